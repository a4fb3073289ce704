//! From the command line to a running node and its end: what must happen in which order.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::acl::rule::{RuleError, merge_selectors};
use crate::acl::{Catalog, DEFAULT_USER, Rules, User, file as user_file};
use crate::base::version;
use crate::command::spec::Mode;
use crate::command::{CommandTable, gate};
use crate::config::choice::PubsubDefault;
use crate::config::compound::ShutdownOn;
use crate::config::{Config, FileError, Line, Loaded};
use crate::sentinel::Sentinel;
use crate::server::commands;
use crate::server::disk::check;
use crate::server::disk::config_file;
use crate::server::disk::rdb_file;
use crate::server::node::tuning;
use crate::server::node::{Node, Origin};
use crate::server::process::affinity;
use crate::server::process::cli;
use crate::server::process::cli::{Asked, Invocation};
use crate::server::process::crash;
use crate::server::process::daemon;
use crate::server::process::daemon::PidFile;
use crate::server::process::limits;
use crate::server::process::limits::OomScore;
use crate::server::process::logging::{Log, Role};
use crate::server::process::os_error;
use crate::server::process::signals;
use crate::server::process::signals::Request;
use crate::server::process::supervise::Supervisor;
use crate::server::process::syslog::{self, Syslog};
use crate::server::process::title::Title;
use crate::server::sentinel::{self, Driver};
use crate::server::{shutdown, start};

/// Where a sentinel listens unless a line says otherwise.
const SENTINEL_PORT: u16 = 26379;

/// The whole life of the process.
pub fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let program = arguments.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    if let Some(status) = check::run(&arguments) {
        return status;
    }
    let invocation = match cli::parse(arguments) {
        Asked::Serve(invocation) => invocation,
        Asked::Print(text) => {
            // Whoever closed the pipe does not want the rest.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Asked::Refuse(text) => return refuse(&text),
    };
    let loaded = match config_file::read(&invocation) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    match prepare(&invocation, loaded) {
        Ok(prepared) => prepared.serve(&program),
        Err(message) => refuse(&message),
    }
}

/// Tells why there is no start, before there is a log.
fn refuse(message: &str) -> ExitCode {
    eprint!("{message}");
    ExitCode::FAILURE
}

/// A process that is ready for threads.
struct Prepared {
    loaded: Loaded,
    sentinel: Option<Sentinel>,
    /// What was healed in the lines of a sentinel.
    warnings: Vec<String>,
    renames: Vec<(String, String)>,
    users: Result<Vec<User>, UsersError>,
    log: Log,
    supervisor: Result<Supervisor, &'static str>,
    background: bool,
    /// Absolute: the server has changed its directory.
    config_file: Option<PathBuf>,
}

/// Everything that must be done while the process has one thread, or while mistakes still go to the
/// terminal. The error is the text for stderr.
fn prepare(invocation: &Invocation, mut loaded: Loaded) -> Result<Prepared, String> {
    let mode = if invocation.sentinel { Mode::Sentinel } else { Mode::Data };
    let renames = renames(&loaded, mode).map_err(|error| error.to_string())?;
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let config_file = invocation.config_file.as_ref().map(absolute);
    let mut warnings = Vec::new();
    let sentinel = match mode {
        Mode::Data => None,
        Mode::Sentinel => {
            sentinel::check_writable(config_file.as_deref())?;
            let (sentinel, healed) = watched(&mut loaded).map_err(|error| error.to_string())?;
            warnings = healed;
            Some(sentinel)
        }
    };
    // The directory first: log, pid file and sockets are relative to it, as in Redis.
    std::env::set_current_dir(&loaded.config.dir)
        .map_err(|error| loaded.error("dir", os_error::words(&error)).to_string())?;
    if let Some(path) = std::env::current_dir().ok().and_then(|path| path.to_str().map(str::to_owned)) {
        // Absolute, as CONFIG GET shows it.
        loaded.config.dir = path;
    }
    let catalog = CommandTable::new(mode, commands::FAMILIES, &renames);
    let users = users(&loaded, &catalog).map_err(|error| error.to_string())?;
    let config = &loaded.config;
    let syslog = syslog(config, &mut warnings);
    let log = Log::new(&config.logfile, config.loglevel, config.log_format, syslog)
        .map_err(|error| format!("Can't open the log file: {}", os_error::words(&error)))
        .map_err(|text| loaded.error("logfile", text).to_string())?;
    let supervisor = Supervisor::find(config.supervised);
    // A supervisor watches the process that it started.
    let background = config.daemonize && !supervisor.as_ref().is_ok_and(Supervisor::is_some);
    if background {
        daemon::to_background()
            .map_err(|error| format!("Can't go to the background: {}\n", os_error::words(&error)))?;
    }
    log.install();
    crash::install(log.file().map(PathBuf::as_path));
    crash::configure(config.crash_log_enabled, config.use_exit_on_panic);
    signals::ignore();
    Ok(Prepared { loaded, sentinel, warnings, renames, users, log, supervisor, background, config_file })
}

/// The system log, if it is asked for; a machine without one is told of in ours.
fn syslog(config: &Config, warnings: &mut Vec<String>) -> Option<Syslog> {
    if !config.syslog_enabled {
        return None;
    }
    let opened = Syslog::open(Path::new(syslog::SOCKET), &config.syslog_ident, config.syslog_facility);
    opened
        .inspect_err(|e| warnings.push(format!("syslog-enabled: {}: {}", syslog::SOCKET, os_error::words(e))))
        .ok()
}

/// The `rename-command` lines, each checked against the names that commands have by then.
fn renames(loaded: &Loaded, mode: Mode) -> Result<Vec<(String, String)>, FileError> {
    let mut renames: Vec<(String, String)> = Vec::new();
    for line in &loaded.renames {
        let word =
            |index: usize| String::from_utf8_lossy(line.words.get(index).map_or(&[][..], |w| w)).into_owned();
        let (from, to) = (word(1), word(2));
        let table = CommandTable::new(mode, commands::FAMILIES, &renames);
        let Some(id) = table.find(from.to_ascii_lowercase().as_bytes()) else {
            return Err(line.error("No such command in rename-command"));
        };
        let taken = table.find(to.to_ascii_lowercase().as_bytes()).is_some();
        if taken && !to.eq_ignore_ascii_case(&from) {
            return Err(line.error("Target command name already exists"));
        }
        let original = table.get(id).original.clone();
        renames.retain(|(name, _)| *name != original);
        renames.push((original, to));
    }
    Ok(renames)
}

/// Reads the `sentinel` lines of the configuration, and warns of what had to be corrected in them. A sentinel's other
/// directives get the defaults of a sentinel, where those differ from a node's and no line gives them.
fn watched(loaded: &mut Loaded) -> Result<(Sentinel, Vec<String>), FileError> {
    if !loaded.says("port") {
        loaded.config.port = SENTINEL_PORT;
    }
    if !loaded.says("protected-mode") {
        loaded.config.protected_mode = false;
    }
    // There is nothing to save.
    loaded.config.save.0.clear();
    let mut lines = Vec::new();
    for line in &loaded.sentinel {
        let words: Result<Vec<String>, _> = line.words[1..].iter().cloned().map(String::from_utf8).collect();
        let words = words.map_err(|_| line.error("argument must be UTF-8 text"))?;
        if let [option, _, path, ..] = &words[..] {
            commands::sentinel::check_script(option, path).map_err(|text| line.error(format!("{text}.")))?;
        }
        lines.push(words);
    }
    // Where other sentinels find this one.
    let config = &loaded.config;
    let secured = config.tls_replication && config.tls_port != 0;
    let port = if secured { config.tls_port } else { config.port };
    Driver::load(&lines, port, start::seed())
        .map_err(|mistake| loaded.sentinel[mistake.line].error(mistake.message))
}

/// Why there is no start with these users. It is told when there is a log, as in Redis, and in its words.
#[derive(Debug, thiserror::Error)]
enum UsersError {
    #[error(
        "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is invalid. This setup is very likely to lead to configuration errors and security holes, please define either an ACL file or declare users directly in your redis.conf, but not both."
    )]
    Both,
    #[error("Aborting Redis startup because of ACL errors: {0}")]
    File(String),
    #[error("{0}")]
    Name(&'static str),
    #[error("Error loading ACL rule '{rule}' for the user named '{user}': {error}")]
    Rule { rule: String, user: String, error: RuleError },
}

/// The users that the node begins with: those of `aclfile`, or of `user` lines and `requirepass`. A node must not
/// come up open to everybody because it left some of them unread.
fn users(loaded: &Loaded, catalog: &dyn Catalog) -> Result<Result<Vec<User>, UsersError>, FileError> {
    let config = &loaded.config;
    let rules = Rules { catalog, all_channels: config.acl_pubsub_default == PubsubDefault::AllChannels };
    let mut default = User::unprotected(catalog);
    default.set_only_password(&config.requirepass.0);
    let mut users = vec![default];
    let mut first_error = None;
    for (index, line) in loaded.users.iter().enumerate() {
        match user_of_line(line, &loaded.users[..index], &rules)? {
            Ok(user) => {
                users.retain(|known| known.name != user.name);
                users.push(user);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Ok(match first_error {
        _ if config.aclfile.is_empty() => first_error.map_or(Ok(users), Err),
        _ if !loaded.users.is_empty() => Err(UsersError::Both),
        _ => users_of_file(&config.aclfile, &rules).map_err(UsersError::File),
    })
}

fn users_of_file(path: &str, rules: &Rules<'_>) -> Result<Vec<User>, String> {
    let text = std::fs::read(path)
        .map_err(|error| format!("Error loading ACLs, opening file '{path}': {}", os_error::words(&error)))?;
    user_file::read(&text, path, rules)
}

/// The user of a `user` line. Of the line only the name is shown, when it is wrong: the rest may hold passwords.
fn user_of_line(
    line: &Line,
    earlier: &[Line],
    rules: &Rules<'_>,
) -> Result<Result<User, UsersError>, FileError> {
    let name = &line.words[1];
    let wrong = |what: &str| {
        let shown = String::from_utf8_lossy(name);
        let mut error = line.error(format!("Error in user declaration '{shown}': {what}"));
        if let Some(origin) = &mut error.origin {
            origin.text = format!("user {shown} ...").into_bytes();
        }
        error
    };
    if earlier.iter().any(|line| line.words[1] == *name) {
        return Err(wrong("Duplicate user found. A user can only be defined once in config files"));
    }
    let words: Vec<&[u8]> = line.words[2..].iter().map(Vec::as_slice).collect();
    let words =
        merge_selectors(&words).map_err(|_| wrong("Unmatched parenthesis in selector definition."))?;
    let Some(text) = user_file::user_name(name) else {
        return Ok(Err(UsersError::Name("Spaces not allowed in ACL usernames")));
    };
    let mut user = rules.new_user(text);
    let mut unknown = None;
    for word in &words {
        match rules.apply(&mut user, word) {
            Ok(()) => {}
            // In Redis a module might bring the command until there is a log.
            Err(error @ RuleError::Unknown) => {
                let rule = String::from_utf8_lossy(word).into_owned();
                unknown = unknown.or(Some(UsersError::Rule { rule, user: text.to_owned(), error }));
            }
            Err(error) => return Err(wrong(&error.to_string())),
        }
    }
    Ok(unknown.map_or(Ok(user), Err))
}

/// What may not be meant so.
fn doubt(config: &Config, users: &[User]) -> Option<&'static str> {
    let password = &config.requirepass.0;
    let is_asked_for = users.iter().any(|user| &*user.name == DEFAULT_USER && user.has_password(password));
    (!password.is_empty() && !is_asked_for).then_some(
        "requirepass has no effect: the users that are declared say which password the default user has",
    )
}

fn refuse_users(error: &UsersError) -> ExitCode {
    warn!("{error}");
    if matches!(error, UsersError::Name(_) | UsersError::Rule { .. }) {
        warn!("Critical error while loading ACLs. Exiting.");
    }
    ExitCode::FAILURE
}

impl Prepared {
    fn serve(mut self, program: &str) -> ExitCode {
        greet(self.config_file.as_deref());
        let users = match self.users {
            Ok(users) => users,
            Err(error) => return refuse_users(&error),
        };
        let config = &mut self.loaded.config;
        show_doubts(config, &users, &self.warnings);
        let supervisor = self.supervisor.unwrap_or_else(|message| {
            warn!("{message}");
            Supervisor::None
        });
        // Threads inherit it: there are none yet.
        affinity::bind_or_warn("server-cpulist", &config.server_cpulist);
        // Each worker has an event queue, a wake-up and a few files of its own.
        match limits::raise_open_files(config.maxclients, tuning::own_files(config)) {
            Ok(fitting) => config.maxclients = fitting,
            Err(message) => {
                warn!("{message}");
                return ExitCode::FAILURE;
            }
        }
        let is_replica = config.replicaof.0.is_some();
        let mode = if self.sentinel.is_some() { Mode::Sentinel } else { Mode::Data };
        let mut oom_score = OomScore::default();
        if let Err(error) = oom_score.apply(config, is_replica) {
            warn!("Unable to write oom_score_adj: {}", os_error::words(&error));
        }
        let pid_file = PidFile::path(&config.pidfile, self.background).and_then(|path| pid_file(&path));
        self.log.set_role(match mode {
            Mode::Sentinel => Role::Sentinel,
            Mode::Data if is_replica => Role::Replica,
            Mode::Data => Role::Primary,
        });

        // SAFETY: there is one thread still, and what the command line said has been copied.
        let title = unsafe { Title::take_over(program) };
        let title = title.inspect_err(|e| warn!("set-proc-title: {}", os_error::words(e))).ok();
        let origin = Origin {
            mode,
            title,
            log: Some(self.log),
            config_file: self.config_file,
            executable: std::env::current_exe().unwrap_or_default(),
            supervisor: supervisor.clone(),
            oom_score: Mutex::new(oom_score),
        };
        tell(supervisor.status("Loading"));
        let ready = || tell(supervisor.ready());
        let served = start::serve(
            self.loaded.config,
            &self.renames,
            users,
            self.sentinel,
            origin,
            watch_signals,
            ready,
        );

        tell(supervisor.stopping());
        rdb_file::remove_unfinished();
        if let Some(file) = pid_file {
            info!("Removing the pid file.");
            if let Err(error) = file.remove() {
                warn!("Can't remove the pid file: {}", os_error::words(&error));
            }
        }
        match served {
            Ok(()) => {
                warn!("Keystead is now ready to exit, bye bye...");
                ExitCode::SUCCESS
            }
            Err(error) => {
                warn!("{error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// The first lines of the log.
fn greet(config_file: Option<&Path>) {
    info!(
        "Keystead {} starting, compatible with Redis {}, pid={}",
        version::KEYSTEAD,
        version::REDIS,
        std::process::id()
    );
    match config_file {
        Some(path) => info!("Configuration loaded from {}", path.display()),
        None => info!("No config file specified, using the default config"),
    }
}

/// What of the configuration may not be as it was meant. `warnings`: what was found before there was a log.
fn show_doubts(config: &Config, users: &[User], warnings: &[String]) {
    for user in users.iter().filter(|user| !user.enabled) {
        info!(
            "The user '{}' is disabled (there is no 'on' modifier in the user description). Make sure this is not a configuration error.",
            user.name
        );
    }
    for warning in warnings.iter().map(String::as_str).chain(doubt(config, users)) {
        warn!("{warning}");
    }
    for row in config.unheeded() {
        warn!("{} is set, but has no effect in this server", row.name);
    }
}

fn pid_file(path: &Path) -> Option<PidFile> {
    PidFile::create(path)
        .inspect_err(|error| warn!("Failed to write PID file {}: {}", path.display(), os_error::words(error)))
        .ok()
}

fn tell(told: io::Result<()>) {
    if let Err(error) = told {
        warn!("Can't notify the supervisor: {}", os_error::words(&error));
    }
}

fn watch_signals(node: &Arc<Node>) {
    let node = Arc::clone(node);
    let watching = signals::watch(move |request| {
        let config = node.config.load();
        let (name, on) = match request {
            Request::Terminate => ("SIGTERM", config.shutdown_on_sigterm),
            Request::Interrupt => ("SIGINT", config.shutdown_on_sigint),
            Request::ExitNow => {
                warn!("Received SIGINT again: exiting now.");
                rdb_file::remove_unfinished();
                return;
            }
        };
        if node.shared.gate.load(Ordering::Acquire) & gate::LOADING != 0 {
            warn!("Received shutdown signal during loading, exiting now.");
        } else {
            warn!("Received {name} scheduling shutdown...");
        }
        let ShutdownOn { save, nosave, now, force } = on;
        shutdown::begin(&node, shutdown::Shutdown { save, nosave, now, force, abort: false }, None);
    });
    if let Err(error) = watching {
        warn!("Can't watch for signals: {error}");
    }
}
