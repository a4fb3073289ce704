//! The system log (`syslog-enabled`): datagrams to its socket, as the C library's syslog writes them (RFC 3164).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::Level;

use crate::config::choice::SyslogFacility;

/// Where the system listens.
pub const SOCKET: &str = "/dev/log";

/// A connection to it, and what each line begins with.
pub struct Syslog {
    socket: UnixDatagram,
    ident: String,
    facility: u8,
}

impl Syslog {
    /// Connects to the socket at `path`.
    pub fn open(path: &Path, ident: &str, facility: SyslogFacility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // A log that takes nothing must not hold the server.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, ident: ident.to_owned(), facility: code(facility) })
    }

    /// Sends a line. `time` is as RFC 3164 writes it.
    pub fn send(&self, level: Level, time: &str, message: &str) {
        let severity = match level {
            Level::TRACE => 7,
            Level::DEBUG => 6,
            Level::INFO => 5,
            _ => 4,
        };
        let (mark, pid) = (self.facility * 8 + severity, std::process::id());
        let line = format!("<{mark}>{time} {}[{pid}]: {message}", self.ident);
        // There is nowhere to tell that the log cannot be written.
        let _ = self.socket.send(line.as_bytes());
    }
}

/// The numbers of RFC 3164, section 4.1.1.
fn code(facility: SyslogFacility) -> u8 {
    match facility {
        SyslogFacility::User => 1,
        SyslogFacility::Local0 => 16,
        SyslogFacility::Local1 => 17,
        SyslogFacility::Local2 => 18,
        SyslogFacility::Local3 => 19,
        SyslogFacility::Local4 => 20,
        SyslogFacility::Local5 => 21,
        SyslogFacility::Local6 => 22,
        SyslogFacility::Local7 => 23,
    }
}
