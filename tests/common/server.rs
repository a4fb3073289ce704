//! Servers that a test starts on free ports in directories of their own, and kills when it ends.

use super::client::Client;
use super::wait_for;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(30);

/// The server under test: our binary, or what `KEYSTEAD_SERVER` names.
pub fn subject() -> PathBuf {
    std::env::var_os("KEYSTEAD_SERVER")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_keystead-server")), PathBuf::from)
}

/// A real Redis 7.0, from Debian's package.
pub fn real() -> PathBuf {
    std::env::var_os("REDIS_SERVER").map_or_else(|| PathBuf::from("redis-server"), PathBuf::from)
}

/// Whether the server under test is itself a real Redis, for the few expectations that differ.
pub fn subject_is_real() -> bool {
    subject().to_string_lossy().contains("redis-server")
}

/// How a server is to be started.
#[derive(Clone)]
pub struct Launch {
    program: PathBuf,
    file: Option<PathBuf>,
    args: Vec<String>,
    dir: Option<PathBuf>,
    env: Vec<(String, PathBuf)>,
}

impl Launch {
    /// The server under test, without saving by itself, with DEBUG allowed, and without the five seconds
    /// that a full synchronisation otherwise waits for more replicas.
    pub fn subject() -> Launch {
        Launch::program(subject())
    }

    pub fn real() -> Launch {
        Launch::program(real())
    }

    pub fn program(program: PathBuf) -> Launch {
        let launch = Launch { program, file: None, args: Vec::new(), dir: None, env: Vec::new() };
        launch
            .args(&["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"])
            .args(&["--repl-diskless-sync-delay", "0"])
    }

    /// Reads this configuration file.
    pub fn file(mut self, path: &Path) -> Launch {
        self.file = Some(path.to_owned());
        self
    }

    pub fn args(mut self, args: &[&str]) -> Launch {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    pub fn env(mut self, name: &str, value: &Path) -> Launch {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn cluster(self) -> Launch {
        self.args(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"])
    }

    /// Runs in `dir`, which stays when the server ends; otherwise in a fresh one that goes with it.
    pub fn dir(mut self, dir: &Path) -> Launch {
        self.dir = Some(dir.to_owned());
        self
    }

    pub fn start(self) -> Server {
        let dir = Dir(self.dir.clone().unwrap_or_else(fresh_dir), self.dir.is_none());
        let mut server = Server { launch: self, child: None, port: 0, dir };
        // Another program may take the port between the look and the start: then try the next.
        for _ in 0..5 {
            server.port = free_port();
            if server.spawn() {
                return server;
            }
        }
        panic!("no start: {}", server.log_tail());
    }
}

/// A directory that is removed on drop when it is ours to remove.
struct Dir(PathBuf, bool);

impl Drop for Dir {
    fn drop(&mut self) {
        if self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

pub struct Server {
    launch: Launch,
    /// None only before the first start.
    child: Option<Child>,
    pub port: u16,
    // After `child`, whose files lie in it.
    dir: Dir,
}

impl Server {
    pub fn subject() -> Server {
        Launch::subject().start()
    }

    pub fn real() -> Server {
        Launch::real().start()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn log(&self) -> String {
        fs::read(self.log_path()).map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("server.log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Starts the process; false when its port was taken meanwhile.
    fn spawn(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("open the log");
        let before = log.metadata().map_or(0, |m| m.len() as usize);
        let mut child = Command::new(&self.launch.program)
            .args(&self.launch.file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(self.dir())
            .args(&self.launch.args)
            .envs(self.launch.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", self.launch.program.display()));
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("wait for the server") {
                let log = self.log();
                if log.get(before..).is_some_and(|l| l.contains("Address already in use")) {
                    return false;
                }
                panic!("the server ended at its start with {status}:\n{}", self.log_tail());
            }
            if ready(self.port) {
                self.child = Some(child);
                return true;
            }
            if start.elapsed() > START {
                self.child = Some(child);
                panic!("not ready within {START:?}:\n{}", self.log_tail());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// `kill -SIGNAL` on the process.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.pid())]).status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{signal} {}", self.pid());
    }

    /// The exit status, once the process ends by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("a started server");
        wait_for("the server exits", START, || child.try_wait().expect("wait").is_some());
        child.wait().expect("the status of an ended process")
    }

    /// kill -9, waiting for the end.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the process again, after [`Server::kill`] or [`Server::wait_exit`], on its old port.
    pub fn start_again(&mut self) {
        wait_for("the old port is free again", START, || self.spawn());
    }

    pub fn start_again_with(&mut self, args: &[&str]) {
        self.launch.args.extend(args.iter().map(ToString::to_string));
        self.start_again();
    }

    /// SHUTDOWN NOSAVE and start again; the caller has saved what it wants to see again.
    pub fn restart(&mut self) {
        let _ = self.connect().try_run("SHUTDOWN NOSAVE");
        self.wait_exit();
        self.start_again();
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- the log of {} on port {} ---\n{}\n---",
                self.launch.program.display(),
                self.port,
                self.log_tail()
            );
        }
    }
}

/// Whether a server answers, whatever it says about its state.
fn ready(port: u16) -> bool {
    let Ok(mut client) = Client::try_connect(port) else { return false };
    client.set_read_timeout(Duration::from_secs(5));
    client.try_run("PING").is_ok_and(|reply| !reply.text().starts_with("LOADING"))
}

/// A port that is free now, with the bus port 10,000 above it free too; outside the range that the
/// kernel hands out by itself.
pub fn free_port() -> u16 {
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 9_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let n = base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + n % COUNT) as u16;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
    panic!("no free port");
}

/// A new directory below cargo's folder for tests.
pub fn fresh_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("create a directory");
    dir
}
