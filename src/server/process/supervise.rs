//! Telling the supervisor how the server is: systemd's notification socket, upstart's SIGSTOP.
//! Source: sd_notify(3).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::choice::Supervised;

/// Who watches over the process.
#[derive(Clone, Debug, Default)]
pub enum Supervisor {
    /// Nobody is told anything.
    #[default]
    None,
    /// Datagrams to this socket.
    Systemd(OsString),
    /// Waits until the process stops itself once.
    Upstart,
}

impl Supervisor {
    /// The supervisor that is configured, as far as the environment has one. The error is a line for
    /// the log; the server then runs without.
    pub fn find(configured: Supervised) -> Result<Self, &'static str> {
        Self::choose(configured, std::env::var_os("NOTIFY_SOCKET"), std::env::var_os("UPSTART_JOB").is_some())
    }

    fn choose(
        configured: Supervised,
        notify_socket: Option<OsString>,
        upstart_job: bool,
    ) -> Result<Self, &'static str> {
        match (configured, notify_socket, upstart_job) {
            (Supervised::No, ..) => Ok(Self::None),
            (Supervised::Upstart | Supervised::Auto, _, true) => Ok(Self::Upstart),
            (Supervised::Systemd | Supervised::Auto, Some(socket), _) => Ok(Self::Systemd(socket)),
            (Supervised::Auto, None, false) => Ok(Self::None),
            (Supervised::Upstart, ..) => Err("upstart supervision requested, but UPSTART_JOB not found"),
            (Supervised::Systemd, ..) => Err("systemd supervision requested, but NOTIFY_SOCKET not found"),
        }
    }

    /// Whether the supervisor wants the process in the foreground, whatever `daemonize` says.
    pub fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// A line about what the server is doing, for `systemctl status`.
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.notify(&format!("STATUS={text}\n"))
    }

    /// Clients may come.
    pub fn ready(&self) -> io::Result<()> {
        if let Self::Upstart = self {
            // SAFETY: SIGSTOP stops the process until upstart lets it go on; nothing is shared.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
        self.notify("STATUS=Ready to accept connections\nREADY=1\n")
    }

    /// The shutdown has begun.
    pub fn stopping(&self) -> io::Result<()> {
        self.notify("STATUS=Stopping\nSTOPPING=1\n")
    }

    fn notify(&self, message: &str) -> io::Result<()> {
        let Self::Systemd(socket) = self else { return Ok(()) };
        // A leading @ stands for the zero byte of an abstract name.
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_for_auto() {
        let chosen = |configured, socket: Option<&str>, job| {
            format!("{:?}", Supervisor::choose(configured, socket.map(OsString::from), job))
        };
        assert_eq!(chosen(Supervised::No, Some("/s"), true), "Ok(None)");
        assert_eq!(chosen(Supervised::Auto, Some("/s"), false), "Ok(Systemd(\"/s\"))");
        assert_eq!(chosen(Supervised::Auto, None, true), "Ok(Upstart)");
        assert_eq!(chosen(Supervised::Auto, None, false), "Ok(None)");
        assert!(chosen(Supervised::Systemd, None, true).starts_with("Err"));
        assert!(chosen(Supervised::Upstart, Some("/s"), false).starts_with("Err"));
    }

    #[test]
    fn systemd_hears_status_ready_and_stopping() {
        let name = format!("keystead-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let in_file_system = UnixDatagram::bind(&path).unwrap();
        let abstract_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in
            [(in_file_system, path.clone().into_os_string()), (abstract_name, format!("@{name}").into())]
        {
            let supervisor = Supervisor::Systemd(address);
            supervisor.status("Loading").unwrap();
            supervisor.ready().unwrap();
            supervisor.stopping().unwrap();
            let mut heard = String::new();
            for _ in 0..3 {
                let mut buffer = [0; 200];
                let n = socket.recv(&mut buffer).unwrap();
                heard.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
            assert_eq!(
                heard,
                "STATUS=Loading\nSTATUS=Ready to accept connections\nREADY=1\nSTATUS=Stopping\nSTOPPING=1\n"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Supervisor::Systemd(path.into_os_string()).ready().is_err());
        assert!(Supervisor::None.ready().is_ok());
    }
}
