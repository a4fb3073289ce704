//! Clients in MONITOR mode. Whoever runs a command writes its line into their workers' mailboxes while it
//! holds the command's locks: lines of commands that concern the same keys come in the order of effects.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::command::Client;
use crate::exec::observe::Seen;
use crate::server::net::mailbox::Mail;
use crate::server::node::Node;

/// Where a monitor lives.
#[derive(Clone, Copy, Debug)]
struct Place {
    client: u64,
    worker: usize,
    token: usize,
}

/// All monitors.
#[derive(Debug, Default)]
pub struct Monitors(Mutex<Vec<Place>>);

impl Node {
    /// Shows all commands to `client` from now on.
    pub fn monitor(&self, client: &mut Client) {
        let mut monitors = self.people.monitors.0.lock();
        if !client.monitors() {
            client.set_monitors(true);
            client.version += 1;
            monitors.push(Place { client: client.id, worker: client.worker, token: client.token });
        }
        self.shared.observers.monitored.store(true, Ordering::Relaxed);
    }

    /// Shows `client` no more commands.
    pub fn stop_monitoring(&self, client: &mut Client) {
        if client.monitors() {
            client.set_monitors(false);
            client.version += 1;
            let mut monitors = self.people.monitors.0.lock();
            monitors.retain(|place| place.client != client.id);
            self.shared.observers.monitored.store(!monitors.is_empty(), Ordering::Relaxed);
        }
    }

    /// Shows each [`line()`] of `lines` to all monitors. They hear of all commands in one order.
    pub fn show_to_monitors(&self, lines: Vec<u8>) {
        let monitors = self.people.monitors.0.lock();
        let bytes: Arc<[u8]> = lines.into();
        for place in monitors.iter() {
            let (token, client) = (place.token, place.client);
            self.send(place.worker, Mail::Push { token, client, bytes: Arc::clone(&bytes) });
        }
    }
}

/// A command as monitors see it: `+1700000000.123456 [0 127.0.0.1:5000] "SET" "k" "v"`.
pub fn line(seen: &Seen<'_>) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let client = seen.client;
    let from = match client.addr.as_str() {
        _ if seen.scripted => "lua",
        "" => "?:0",
        addr => addr,
    };
    let mut line =
        format!("+{}.{:06} [{} {from}]", now.as_secs(), now.subsec_micros(), client.db).into_bytes();
    for arg in seen.told() {
        line.push(b' ');
        line.extend_from_slice(quoted(arg).as_bytes());
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// An argument in quotation marks, printable.
fn quoted(arg: &[u8]) -> String {
    let mut out = String::with_capacity(arg.len() + 2);
    out.push('"');
    for &byte in arg {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            b' '..=b'~' => out.push(char::from(byte)),
            // A String takes everything.
            _ => _ = write!(out, "\\x{byte:02x}"),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn arguments_are_printable() {
        assert_eq!(quoted(b"a \"b\\\r\n\t\x07\x08\0\xff"), r#""a \"b\\\r\n\t\a\b\x00\xff""#);
    }
}
