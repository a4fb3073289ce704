//! The log: events of `tracing` as lines, in Redis's form unless `log-format` says otherwise.
//!
//! | `tracing` | `loglevel` | mark |
//! |---|---|---|
//! | `trace!` | debug | `.` |
//! | `debug!` | verbose | `-` |
//! | `info!` | notice | `*` |
//! | `warn!`, `error!` | warning | `#` |
//!
//! The file is opened for each line, as Redis does: a log that was moved away by rotation goes on
//! in a new file without a signal.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::base::log;
use crate::config::choice::{LogFormat, LogLevel};
use crate::server::process::syslog::Syslog;

/// Writes a line that a state machine asks for.
pub fn log(level: log::Level, text: &str) {
    match level {
        log::Level::Debug => tracing::trace!("{text}"),
        log::Level::Verbose => tracing::debug!("{text}"),
        log::Level::Notice => tracing::info!("{text}"),
        log::Level::Warning => tracing::warn!("{text}"),
    }
}

/// What a node is, as the letter after the process id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not yet serving.
    Starting,
    /// Serves data and follows nobody.
    Primary,
    /// Follows a primary.
    Replica,
    /// Watches others.
    Sentinel,
}

impl Role {
    fn letter(self) -> char {
        match self {
            Self::Starting => 'C',
            Self::Primary => 'M',
            Self::Replica => 'S',
            Self::Sentinel => 'X',
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Sentinel => "sentinel",
        }
    }
}

/// The log's settings, shared with the installed subscriber; all can change at run time.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    level: AtomicU8,
    format: AtomicU8,
    role: AtomicU8,
    /// `None`: standard output.
    file: Option<PathBuf>,
    /// Where lines go beside that.
    syslog: Option<Syslog>,
}

const LEVELS: [LogLevel; 5] =
    [LogLevel::Debug, LogLevel::Verbose, LogLevel::Notice, LogLevel::Warning, LogLevel::Nothing];
const FORMATS: [LogFormat; 3] = [LogFormat::Redis, LogFormat::Json, LogFormat::Logfmt];
const ROLES: [Role; 4] = [Role::Starting, Role::Primary, Role::Replica, Role::Sentinel];

impl Log {
    /// Makes a log that writes to `logfile`, or to standard output if it is empty, and to `syslog`. Fails if the
    /// file cannot be opened for appending.
    pub fn new(
        logfile: &str,
        level: LogLevel,
        format: LogFormat,
        syslog: Option<Syslog>,
    ) -> io::Result<Self> {
        let mut file = None;
        if !logfile.is_empty() {
            // Absolute, because the server changes its directory.
            let path = std::path::absolute(logfile)?;
            open(&path)?;
            file = Some(path);
        }
        let log = Self(Arc::new(Shared {
            level: AtomicU8::new(0),
            format: AtomicU8::new(0),
            role: AtomicU8::new(0),
            file,
            syslog,
        }));
        log.0.level.store(level as u8, Ordering::Relaxed);
        log.set_format(format);
        Ok(log)
    }

    /// Sends the events of the whole process here. Only the first call of a process counts.
    pub fn install(&self) {
        // A second one is refused: tests install theirs side by side.
        let _ = tracing::subscriber::set_global_default(self.clone());
    }

    /// `loglevel`.
    pub fn set_level(&self, level: LogLevel) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        // Every place that logs remembers whether it is heard.
        tracing::callsite::rebuild_interest_cache();
    }

    /// `log-format`.
    pub fn set_format(&self, format: LogFormat) {
        self.0.format.store(format as u8, Ordering::Relaxed);
    }

    /// Changes the letter of the lines that follow.
    pub fn set_role(&self, role: Role) {
        self.0.role.store(role as u8, Ordering::Relaxed);
    }

    /// The file that lines go to; `None` for standard output.
    pub fn file(&self) -> Option<&PathBuf> {
        self.0.file.as_ref()
    }

    fn least(&self) -> LevelFilter {
        match LEVELS[usize::from(self.0.level.load(Ordering::Relaxed))] {
            LogLevel::Debug => LevelFilter::TRACE,
            LogLevel::Verbose => LevelFilter::DEBUG,
            LogLevel::Notice => LevelFilter::INFO,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Nothing => LevelFilter::OFF,
        }
    }

    /// Writes text where lines go, without their marks.
    pub fn write(&self, line: &str) {
        // There is nowhere to tell that the log cannot be written.
        let _ = match &self.0.file {
            Some(path) => open(path).and_then(|mut file| file.write_all(line.as_bytes())),
            None => io::stdout().write_all(line.as_bytes()),
        };
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries have their own idea of what is worth telling: only their warnings are ours.
        let ours = metadata.target().starts_with("keystead");
        *metadata.level() <= self.least() && (ours || *metadata.level() <= Level::WARN)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.least())
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let entry = Entry {
            pid: std::process::id(),
            role: ROLES[usize::from(self.0.role.load(Ordering::Relaxed))],
            time: LocalTime::of(SystemTime::now()),
            level: *event.metadata().level(),
            text,
        };
        if let Some(syslog) = &self.0.syslog {
            syslog.send(entry.level, &entry.time.rfc3164(), &entry.message());
        }
        self.write(&entry.line(FORMATS[usize::from(self.0.format.load(Ordering::Relaxed))]));
    }

    // Spans are not part of the log.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The message of an event and its other fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }
}

struct Entry {
    pid: u32,
    role: Role,
    time: LocalTime,
    level: Level,
    text: Text,
}

impl Entry {
    fn line(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Redis => self.redis(),
            LogFormat::Json => self.json(),
            LogFormat::Logfmt => self.logfmt(),
        }
    }

    fn redis(&self) -> String {
        let mut line = format!("{}:{} {} ", self.pid, self.role.letter(), self.time.redis());
        line.push(match self.level {
            Level::TRACE => '.',
            Level::DEBUG => '-',
            Level::INFO => '*',
            _ => '#',
        });
        line.push(' ');
        line.push_str(&self.message());
        line.push('\n');
        line
    }

    /// The message, and the fields behind it.
    fn message(&self) -> String {
        let mut line = one_line(&self.text.message);
        for (name, value) in &self.text.fields {
            let _ = write!(line, " {name}={}", logfmt_value(value));
        }
        line
    }

    fn json(&self) -> String {
        let (time, level) = (self.time.iso(), self.level_name());
        let mut line = format!(
            "{{\"pid\":{},\"role\":\"{}\",\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":{}",
            self.pid,
            self.role.name(),
            json_text(&self.text.message)
        );
        for (name, value) in &self.text.fields {
            let _ = write!(line, ",{}:{}", json_text(name), json_text(value));
        }
        line.push_str("}\n");
        line
    }

    fn logfmt(&self) -> String {
        let mut line = format!(
            "pid={} role={} timestamp=\"{}\" level={} message={}",
            self.pid,
            self.role.name(),
            self.time.iso(),
            self.level_name(),
            logfmt_value(&self.text.message)
        );
        for (name, value) in &self.text.fields {
            let _ = write!(line, " {name}={}", logfmt_value(value));
        }
        line.push('\n');
        line
    }

    fn level_name(&self) -> &'static str {
        match self.level {
            Level::TRACE => "debug",
            Level::DEBUG => "verbose",
            Level::INFO => "notice",
            _ => "warning",
        }
    }
}

/// Text without line ends: what a client sent must not forge a line of the log.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
}

/// A value bare if it is a plain word, otherwise quoted.
fn logfmt_value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { json_text(text) }
}

/// A JSON string (RFC 8259, section 7), with its quotes.
fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A moment in the time zone of the machine.
#[derive(Clone, Copy)]
struct LocalTime {
    year: i32,
    /// From 0.
    month: usize,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
    milli: u32,
    /// Seconds east of Greenwich.
    offset: i64,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl LocalTime {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs() as libc::time_t;
        // SAFETY: `tm` is plain old data, for which zero is a value; localtime_r writes to it and
        // reads `seconds`, and both live until it returns. It leaves `tm` alone if it fails.
        let tm = unsafe {
            let mut tm: libc::tm = std::mem::zeroed();
            libc::localtime_r(&raw const seconds, &raw mut tm);
            tm
        };
        Self {
            year: tm.tm_year + 1900,
            month: usize::try_from(tm.tm_mon).unwrap_or(0).min(11),
            day: tm.tm_mday,
            hour: tm.tm_hour,
            minute: tm.tm_min,
            second: tm.tm_sec,
            milli: since.subsec_millis(),
            offset: tm.tm_gmtoff,
        }
    }

    /// `21 Nov 2026 13:16:07.752`
    fn redis(&self) -> String {
        let Self { year, day, hour, minute, second, milli, .. } = self;
        format!("{day:02} {} {year} {hour:02}:{minute:02}:{second:02}.{milli:03}", MONTHS[self.month])
    }

    /// `Nov  5 13:16:07`
    fn rfc3164(&self) -> String {
        let Self { day, hour, minute, second, .. } = self;
        format!("{} {day:2} {hour:02}:{minute:02}:{second:02}", MONTHS[self.month])
    }

    /// `2026-11-21T13:16:07.752+00:00`
    fn iso(&self) -> String {
        let Self { year, month, day, hour, minute, second, milli, offset } = self;
        let (sign, east) = if *offset < 0 { ('-', -offset) } else { ('+', *offset) };
        format!(
            "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}{sign}{:02}:{:02}",
            month + 1,
            east / 3600,
            east / 60 % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(level: Level, message: &str) -> Entry {
        let time = LocalTime {
            year: 2026,
            month: 10,
            day: 5,
            hour: 3,
            minute: 16,
            second: 7,
            milli: 52,
            offset: -5400,
        };
        let text = Text { message: message.into(), fields: vec![("node", "a b".into()), ("n", "3".into())] };
        Entry { pid: 12, role: Role::Primary, time, level, text }
    }

    #[test]
    fn lines_of_each_format() {
        let e = entry(Level::INFO, "Ready to \"accept\"\nx");
        assert_eq!(
            e.line(LogFormat::Redis),
            "12:M 05 Nov 2026 03:16:07.052 * Ready to \"accept\"\\nx node=\"a b\" n=3\n"
        );
        assert_eq!(
            e.line(LogFormat::Json),
            "{\"pid\":12,\"role\":\"primary\",\"timestamp\":\"2026-11-05T03:16:07.052-01:30\",\
             \"level\":\"notice\",\"message\":\"Ready to \\\"accept\\\"\\nx\",\"node\":\"a b\",\"n\":\"3\"}\n"
        );
        assert_eq!(
            e.line(LogFormat::Logfmt),
            "pid=12 role=primary timestamp=\"2026-11-05T03:16:07.052-01:30\" level=notice \
             message=\"Ready to \\\"accept\\\"\\nx\" node=\"a b\" n=3\n"
        );
        for (level, mark) in
            [(Level::TRACE, " . "), (Level::DEBUG, " - "), (Level::WARN, " # "), (Level::ERROR, " # ")]
        {
            assert!(entry(level, "m").line(LogFormat::Redis).contains(mark));
        }
    }

    #[test]
    fn the_level_and_the_format_change_while_it_runs() {
        let path = std::env::temp_dir().join(format!("keystead-log-{}", std::process::id()));
        let log = Log::new(path.to_str().unwrap(), LogLevel::Notice, LogFormat::Redis, None).unwrap();
        tracing::subscriber::with_default(log.clone(), || {
            tracing::debug!("hidden");
            tracing::info!(slot = 7, "first {}", 1);
            log.set_level(LogLevel::Verbose);
            log.set_role(Role::Replica);
            tracing::debug!("second");
            // Rotation: the file moves away, the next line opens a new one.
            std::fs::rename(&path, path.with_extension("1")).unwrap();
            log.set_format(LogFormat::Json);
            tracing::warn!("third");
            log.set_level(LogLevel::Nothing);
            tracing::error!("hidden");
        });
        let old = std::fs::read_to_string(path.with_extension("1")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path.with_extension("1")).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<_> = old.lines().collect();
        assert_eq!(lines.len(), 2, "{old}");
        assert!(lines[0].starts_with(&format!("{}:C ", std::process::id())), "{old}");
        assert!(lines[0].ends_with(" * first 1 slot=7"), "{old}");
        assert!(lines[1].contains(":S ") && lines[1].ends_with(" - second"), "{old}");
        assert!(new.starts_with('{') && new.ends_with("\"message\":\"third\"}\n"), "{new}");
        assert_eq!(new.lines().count(), 1);
    }

    #[test]
    fn lines_go_to_the_system_log_too() {
        use crate::config::choice::SyslogFacility;
        use std::os::unix::net::UnixDatagram;
        let path = std::env::temp_dir().join(format!("keystead-syslog-{}", std::process::id()));
        let system = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::open(&path, "keystead-1", SyslogFacility::Local3).unwrap();
        std::fs::remove_file(&path).unwrap();
        let log = Log::new("/dev/null", LogLevel::Notice, LogFormat::Json, Some(syslog)).unwrap();
        tracing::subscriber::with_default(log, || {
            tracing::debug!("hidden");
            tracing::info!(slot = 7, "first");
            tracing::warn!("second\nline");
        });
        let received = || {
            let mut line = [0; 200];
            let n = system.recv(&mut line).unwrap();
            String::from_utf8(line[..n].to_vec()).unwrap()
        };
        let tag = format!(" keystead-1[{}]: ", std::process::id());
        // local3 is 19: 19 * 8, and 5 for notice, 4 for warning.
        for (mark, message) in [("<157>", "first slot=7"), ("<156>", "second\\nline")] {
            let line = received();
            assert!(line.starts_with(mark) && line.ends_with(&format!("{tag}{message}")), "{line}");
            assert_eq!(
                line.len(),
                mark.len() + "Nov  5 13:16:07".len() + tag.len() + message.len(),
                "{line}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_at_once() {
        assert!(Log::new("/no/such/folder/log", LogLevel::Notice, LogFormat::Redis, None).is_err());
    }
}
