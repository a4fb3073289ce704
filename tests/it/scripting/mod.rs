//! Scripts beside other clients: killed, hanging, crossing each other's keys, replicated and saved.

mod effects;
mod flags;
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

#[test]
fn random_numbers_without_a_seed_are_the_same_on_every_server() {
    let server = node("1");
    let mut client = server.connect();
    let script = "EVAL 'return {math.random(1000000),math.random(1000000),math.random(1000000)}' 0";
    client.expect(script, "[:396465, :840486, :353337]");
    client.expect(script, "[:446584, :318693, :886429]");
}

#[test]
fn texts_that_fall_out_of_the_cache_are_counted_until_the_figures_are_reset() {
    if subject_is_real() {
        // 7.0 keeps all.
        return;
    }
    let server = Server::subject();
    let mut client = server.connect();
    client.pipeline(&(0..510).map(|i| format!("EVAL 'return {i}' 0")).collect::<Vec<_>>());
    assert_eq!(
        (client.info("number_of_cached_scripts"), client.info_int("evicted_scripts")),
        ("500".into(), 10)
    );
    client.ok("CONFIG RESETSTAT");
    assert_eq!(client.info_int("evicted_scripts"), 0);
}
