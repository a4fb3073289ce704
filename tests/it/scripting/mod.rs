//! Scripts beside other clients: killed, hanging, crossing each other's keys, replicated and saved.

mod effects;
mod hanging;
mod limits;
mod locks;

use std::time::Duration;

use crate::common::server::{Launch, Server, subject_is_real};
use crate::common::{SOON, wait_for};

fn node(workers: &str) -> Server {
    if subject_is_real() {
        Server::subject()
    } else {
        Launch::subject().args(&["--io-threads", workers]).start()
    }
}

const ENDLESS: &str = r#"EVAL "while true do end" 0"#;

/// Waits until a new connection gets this answer.
fn answered(server: &Server, line: &str, reply: &str) {
    // One that came before the script was known to hang gets no answer.
    wait_for(line, SOON, || {
        let mut client = server.connect();
        client.set_read_timeout(Duration::from_millis(500));
        client.try_run(line).is_ok_and(|told| told.to_string() == reply)
    });
}
