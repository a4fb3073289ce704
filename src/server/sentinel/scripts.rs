//! Scripts of the user: run without a shell, without our descriptors (all are closed on exec), each watched by a
//! thread that waits for its end.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::sentinel::{Event, ScriptEnd};
use crate::server::sentinel::Driver;

/// Process ids of the scripts that run, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<u64, u32>>);

impl Running {
    pub(super) fn kill(&self, script: u64) {
        // Under the lock the process is not reaped yet, so the number is still its own.
        if let Some(pid) = self.0.lock().get(&script) {
            // SAFETY: a plain system call with numbers.
            unsafe { libc::kill(*pid as libc::pid_t, libc::SIGKILL) };
        }
    }
}

/// Starts a script; the machine hears when it runs and how it ends.
pub(super) fn run(driver: &Arc<Driver>, script: u64, path: String, arguments: Vec<String>) {
    let for_thread = Arc::clone(driver);
    let started = thread::Builder::new().name("script".into()).spawn(move || {
        let end = watch(&for_thread, script, &path, &arguments);
        for_thread.step(Event::ScriptEnded { script, end });
    });
    if let Err(e) = started {
        tracing::warn!("A script cannot be started: {e}");
    }
}

fn watch(driver: &Arc<Driver>, script: u64, path: &str, arguments: &[String]) -> ScriptEnd {
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            tracing::warn!("The script {path} cannot be started: {e}");
            return ScriptEnd::NotStarted;
        }
    };
    let pid = child.id();
    driver.scripts.0.lock().insert(script, pid);
    driver.step(Event::ScriptStarted { script, pid });
    wait_unreaped(pid);
    driver.scripts.0.lock().remove(&script);
    match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ScriptEnd::Exit(code),
            (None, signal) => ScriptEnd::Signal(signal.unwrap_or_default()),
        },
        Err(_) => ScriptEnd::NotStarted,
    }
}

/// Waits for the end of a child and leaves its number taken.
fn wait_unreaped(pid: u32) {
    loop {
        // SAFETY: `siginfo_t` is plain data for which zeroes are valid, and the call only writes to it.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT)
        };
        let interrupted = std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if result == 0 || !interrupted {
            return;
        }
    }
}
