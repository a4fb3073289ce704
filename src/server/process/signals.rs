//! Signals of everyday life: SIGTERM and SIGINT ask for a shutdown, others must not disturb.

use std::io;
use std::thread;

use libc::SIGXFSZ;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Shut down in order, as `shutdown-on-sigterm` says.
    Terminate,
    /// Shut down in order, as `shutdown-on-sigint` says.
    Interrupt,
    /// A second SIGINT: the process ends at once when the callee returns.
    ExitNow,
}

/// Ignores the signals that would end the process for no good reason: a closed terminal, a peer that
/// hung up, a file that reached its limit of size (the write fails instead), and SIGUSR1, by which other servers
/// reopen their log (ours is opened for each line).
pub fn ignore() {
    for signal in [SIGHUP, SIGPIPE, SIGXFSZ, SIGUSR1] {
        // SAFETY: no handler is installed, the kernel drops the signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Starts a thread that hands every request to `on_request`. The thread lives as long as the process.
pub fn watch(on_request: impl FnMut(Request) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let mut on_request = on_request;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut interrupted = false;
        for signal in signals.forever() {
            match signal {
                SIGINT if interrupted => {
                    on_request(Request::ExitNow);
                    std::process::exit(1);
                }
                SIGINT => {
                    interrupted = true;
                    on_request(Request::Interrupt);
                }
                _ => on_request(Request::Terminate),
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    const CHILD: &str = "KEYSTEAD_TEST_SIGNALS";

    /// Not a test of its own: the body of the process that the test below starts.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        ignore();
        watch(|request| println!("request {request:?}")).unwrap();
        println!("watching");
        loop {
            thread::park();
        }
    }

    #[test]
    fn signals_ask_and_the_second_interrupt_ends() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::process::signals::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id() as libc::pid_t;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut until = |text: &str| assert!(lines.any(|line| line.contains(text)), "no line with {text}");
        // SAFETY: the process is our child and not yet waited for.
        let send = |signal| assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        until("watching");
        for ignored in [SIGHUP, SIGUSR1, SIGPIPE, SIGXFSZ] {
            send(ignored);
        }
        send(SIGTERM);
        until("request Terminate");
        send(SIGINT);
        until("request Interrupt");
        send(SIGINT);
        until("request ExitNow");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}
