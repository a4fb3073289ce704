//! Data and load that the tests share.

use crate::common::client::{Client, encode, words};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// Keys of every type and encoding: small and large, with and without expiry, binary, in two
/// databases where there are several.
pub fn every_type(client: &mut Client, databases: bool) {
    let mut lines: Vec<String> = [
        "SET string hello",
        r#"SET binary "\x00\xff\r\n\x80""#,
        "SET empty \"\"",
        "SET integer 12345",
        "SET negative -9223372036854775808",
        "SET expiring v PXAT 9999999999999",
        "RPUSH list a b c 1 2 -3 100000",
        "SADD intset 1 2 3 -70000 5000000000",
        "SADD set a b c",
        "HSET hash f v g 1 h 2",
        "ZADD zset 1 a 2.5 b -inf c inf d 0.1 e",
        "XADD stream 1-1 f v",
        "XADD stream 1-2 f w",
        "XADD stream 5-0 other field and another",
        "PEXPIREAT hash 9999999999999",
    ]
    .map(str::to_owned)
    .to_vec();
    for i in 0..600 {
        lines.push(format!("RPUSH longlist element:{i}"));
        lines.push(format!("SADD bigset member:{i}"));
        lines.push(format!("SADD bigintset {}", i * 1001));
        lines.push(format!("HSET bighash field:{i} value:{i}"));
        lines.push(format!("ZADD bigzset {}.5 member:{i}", i % 97));
        lines.push(format!("XADD bigstream {}-{i} field value:{i}", i + 1));
        lines.push(format!("SET key:{i} {i}"));
    }
    lines.push(format!("SET compressible {}", "abc".repeat(1000)));
    lines.push(format!("RPUSH longlist {}", "long".repeat(3000)));
    lines.push(format!("HSET widehash f {}", "x".repeat(100)));
    if databases {
        lines.extend(["SELECT 9", "SET other database", "SADD numbers 1 2 3", "SELECT 0"].map(str::to_owned));
    }
    for reply in client.pipeline(&lines) {
        assert!(!reply.to_string().starts_with('-'), "filling: {reply}");
    }
}

/// DEBUG DIGEST, which is equal for equal data whatever the server.
pub fn digest(client: &mut Client) -> String {
    let digest = client.run("DEBUG DIGEST").text();
    assert_eq!(digest.len(), 40, "{digest}");
    digest
}

/// Connections that write without pause until the load is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Writes strings, counters, lists, sets, hashes, sorted sets, expiring keys and transactions.
    pub fn start(port: u16, connections: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let threads = (0..connections)
            .map(|id| {
                let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
                thread::spawn(move || {
                    let mut client = Client::connect(port);
                    let mut i = id * 1_000_003;
                    while !stop.load(Ordering::Relaxed) {
                        let batch: Vec<u8> = (0..20)
                            .flat_map(|_| {
                                i += 1;
                                encode(&words(&command(i)))
                            })
                            .collect();
                        if client.try_send_raw(&batch).is_err() {
                            return;
                        }
                        for _ in 0..20 {
                            if client.try_read().is_err() {
                                return;
                            }
                        }
                        written.fetch_add(20, Ordering::Relaxed);
                        // A pause between batches: the test is about order, not about speed.
                        thread::park_timeout(std::time::Duration::from_millis(2));
                    }
                })
            })
            .collect();
        Load { stop, written, threads }
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the load and says how many commands were answered.
    pub fn end(mut self) -> u64 {
        self.halt();
        self.written()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

fn command(i: u64) -> String {
    let k = i * 2_654_435_761 % 997;
    match i % 13 {
        0 => format!("SET s:{k} value:{i}"),
        1 => format!("INCR n:{k}"),
        2 => format!("RPUSH l:{} {i}", k % 50),
        3 => format!("LPOP l:{}", k % 50),
        4 => format!("SADD set:{} {}", k % 50, i % 1000),
        5 => format!("SPOP set:{}", k % 50),
        6 => format!("HSET h:{} f{} {i}", k % 50, i % 200),
        7 => format!("ZADD z:{} {} m{}", k % 50, i % 1000, i % 300),
        8 => format!("SET e:{k} x PX {}", 20 + i % 200),
        9 => format!("DEL s:{k} n:{k}"),
        10 => format!("INCRBYFLOAT f:{k} 0.1"),
        11 => format!("XADD x:{} MAXLEN 50 * f {i}", k % 10),
        _ => format!("APPEND a:{k} {i}"),
    }
}
