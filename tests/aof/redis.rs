//! Beside a real Redis: the same bytes, a folder that changes hands.

use std::fs;

use crate::common::server::{Launch, Server};
use crate::workload::{digest, every_type};

use super::{ON, aof, last_increment, rewrite, stop};

/// What both write without timestamps and for the same commands has the same bytes.
#[test]
fn an_increment_has_the_bytes_that_redis_writes() {
    let write = |server: Server| {
        let mut server = server;
        let mut client = server.connect();
        let lines = [
            "SET a 1",
            "SELECT 3",
            "RPUSH l a b",
            "GET a",
            "MULTI",
            "SADD s x",
            "INCR n",
            "EXEC",
            // One write, or none, is no transaction.
            "MULTI",
            "SET one 1",
            "GET one",
            "EXEC",
            "MULTI",
            "DEL nosuch",
            "EXEC",
            "SORT l ALPHA STORE sorted",
            "SMOVE s t x",
            "GETDEL one",
            "COPY l m",
            "BITOP NOT n2 n",
            "PFMERGE p",
            "SELECT 0",
        ];
        client.pipeline(&lines);
        client.pipeline(&["SPOP nothing", "DEL a", "SET c 1 PXAT 9999999999999"]);
        stop(&mut server);
        String::from_utf8(fs::read(last_increment(server.dir())).expect("the increment")).expect("text")
    };
    assert_eq!(write(aof(&[])), write(Launch::real().args(&ON).start()));
}

/// One folder, five times from one server to the other, each time with writes and rewrites.
#[test]
fn a_folder_changes_hands_between_us_and_redis() {
    for preamble in ["yes", "no"] {
        let dir =
            std::env::temp_dir().join(format!("keystead-aof-hand-over-{}-{preamble}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let mut before = None;
        for turn in 0..10 {
            let launch = if turn % 2 == 0 { Launch::subject() } else { Launch::real() };
            let args = ["--aof-use-rdb-preamble", preamble, "--aof-timestamp-enabled", "yes"];
            let mut server = launch.args(&ON).args(&args).dir(&dir).start();
            let mut client = server.connect();
            if let Some(before) = &before {
                assert_eq!(&digest(&mut client), before, "turn {turn}, preamble {preamble}");
            } else {
                every_type(&mut client, true);
                client
                    .pipeline(&["XGROUP CREATE stream g 0", "XREADGROUP GROUP g c COUNT 2 STREAMS stream >"]);
            }
            client.pipeline(&[
                format!("SET turn:{turn} x"),
                "INCR turns".into(),
                format!("XADD stream * turn {turn}"),
            ]);
            if turn % 4 > 1 {
                rewrite(&mut client);
                client.pipeline(&["MULTI", "INCR turns", "RPUSH list x", "EXEC"]);
            }
            before = Some(digest(&mut client));
            stop(&mut server);
        }
        fs::remove_dir_all(&dir).expect("remove the directory");
    }
}
