//! What scripts and functions say of themselves, and what that decides before they run.

use super::node;
use crate::common::client::Client;
use crate::common::{SOON, wait_for};

const FLAGGED: &str = "#!lua name=lib
local one = function() return 1 end
redis.register_function('plain', one)
redis.register_function{function_name='ro', callback=one, flags={'no-writes'}}
redis.register_function{function_name='stale', callback=one, flags={'no-writes', 'allow-stale'}}";
const READ_ONLY: &str = "-READONLY You can't write against a read only replica.";
const MASTER_DOWN: &str = "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
const LOADING: &str = "-LOADING Redis is loading the dataset in memory";
const NO_MEMORY: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

/// A script's words count where a command's flags do: nothing is queued that may not run. As 7.0.15 answers.
#[test]
fn what_a_script_says_of_itself_is_asked_at_the_gate() {
    let server = node("2");
    let mut client = server.connect();
    client.cmd(&["FUNCTION", "LOAD", FLAGGED]);
    let queued = |client: &mut Client, line: &str, reply: &str| {
        client.expect(line, reply);
        client.ok("MULTI");
        client.expect(line, reply);
        client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    };
    client.ok("CONFIG SET maxmemory 1");
    client.expect("GET k", "nil");
    client.expect("FCALL ro 0", ":1");
    queued(&mut client, "FCALL plain 0", NO_MEMORY);
    queued(&mut client, "FCALL_RO plain 0", NO_MEMORY);
    // 7.0 queues nothing at all there; 7.4 queues what may run.
    client.ok("MULTI");
    client.expect("FCALL ro 0", "+QUEUED");
    client.expect("EXEC", "[:1]");
    client.ok("CONFIG SET maxmemory 0");
    client.ok("CONFIG SET replica-serve-stale-data no");
    client.ok("REPLICAOF 127.0.0.1 1");
    queued(&mut client, "FCALL plain 0", READ_ONLY);
    queued(&mut client, "FCALL_RO plain 0", READ_ONLY);
    queued(&mut client, "FCALL ro 0", MASTER_DOWN);
    queued(&mut client, "EVAL \"#!lua\\nreturn 1\" 0", READ_ONLY);
    queued(&mut client, "EVAL_RO \"#!lua flags=no-writes\\nreturn 1\" 0", MASTER_DOWN);
    client.expect("FCALL stale 0", ":1");
    client.expect("FCALL nosuch 0", "-ERR Function not found");
}

/// They are in force from then on: what they say of themselves comes before that data are being loaded. As 7.0.15
/// answers.
#[test]
fn libraries_of_a_file_are_known_as_they_are_read() {
    let server = node("2");
    let mut client = server.connect();
    client.cmd(&["FUNCTION", "LOAD", FLAGGED]);
    for n in 0..200 {
        client.ok(&format!("SET k:{n} v"));
    }
    client.ok("SAVE");
    client.cmd(&[
        "FUNCTION",
        "LOAD",
        &FLAGGED
            .replace("lib", "later")
            .replace("'ro'", "'later'")
            .replace("plain", "p")
            .replace("'stale'", "'s'"),
    ]);
    client.expect("FCALL later 0", ":1");
    client.ok("CONFIG SET replica-serve-stale-data no");
    client.ok("CONFIG SET key-load-delay 100000");
    client.ok("REPLICAOF 127.0.0.1 1");
    let mut reloading = server.connect();
    reloading.send(&["DEBUG", "RELOAD", "NOSAVE"]);
    wait_for("the load", SOON, || client.run("FCALL nosuch 0").to_string() == LOADING);
    wait_for("the library", SOON, || client.run("FCALL ro 0").to_string() == MASTER_DOWN);
    client.expect("FCALL plain 0", READ_ONLY);
    client.expect("FCALL stale 0", LOADING);
    client.expect("FCALL later 0", LOADING);
}
