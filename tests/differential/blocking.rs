//! Clients that are blocked, and one that writes: who is served what, and who is left, must be the same.

use crate::common::client::{Client, encode};
use crate::common::wait_for;
use crate::generator::{Rng, Words};
use crate::{Pair, SOON, show};

/// What clients block with: the key is one of few, so that they meet.
const WAITS: &[&str] = &[
    "BLPOP {1} {2} 0",
    "BRPOP {1} 0",
    "BLMOVE {1} {2} LEFT RIGHT 0",
    "BRPOPLPUSH {1} {2} 0",
    "BLMPOP 0 2 {1} {2} LEFT COUNT 2",
    "BZPOPMIN {1} {2} 0",
    "BZPOPMAX {1} 0",
    "BZMPOP 0 2 {1} {2} MAX COUNT 2",
    "XREAD BLOCK 0 STREAMS {1} $",
    "BZPOPMIN {3} {1} 0",
    "BLPOP {1} {4} 0",
];

/// What the other does meanwhile.
const WRITES: &[&str] = &[
    "RPUSH {1} a",
    "LPUSH {1} a b c",
    "RPUSH {1} 1 2",
    "ZADD {1} 1 a",
    "ZADD {1} 3 c 2 b",
    "XADD {1} 1-1 f v",
    "XADD {1} 2-1 f w",
    "SET {1} string",
    "DEL {1} {2}",
    "RENAME {1} {2}",
    "COPY {1} {2} REPLACE",
    "SADD {1} 3 1 2",
    "SORT {1} ALPHA STORE {4}",
    "LMOVE {1} {2} LEFT LEFT",
    "ZUNIONSTORE {3} 1 {1}",
    "ZRANGESTORE {3} {1} 0 -1",
    "DEL {3} {4}",
    "LPOP {1}",
    "MULTI",
    "EXEC",
    "DISCARD",
    "SWAPDB 0 1",
    "SELECT 1",
    "SELECT 0",
    "FLUSHDB",
    "EXISTS {1} {2}",
    "TYPE {1}",
];

fn fill(rng: &mut Rng, template: &str) -> Words {
    let word = |word: &str| match word {
        "{1}" | "{2}" => format!("k{}", rng.below(3)).into_bytes(),
        // What is stored over a value of another type wakes nobody in Redis, but here: these keys have one type.
        "{3}" => format!("z{}", rng.below(2)).into_bytes(),
        "{4}" => format!("l{}", rng.below(2)).into_bytes(),
        word => word.as_bytes().to_vec(),
    };
    template.split(' ').map(word).collect()
}

/// One server's side of the story.
struct Side {
    waiting: Vec<(Client, i64)>,
    writer: Client,
    looker: Client,
}

impl Side {
    fn new(server: &crate::common::server::Server, waits: &[Words], resp3: bool) -> Side {
        let (mut writer, mut looker) = (server.connect(), server.connect());
        writer.run("FLUSHALL");
        let mut waiting = Vec::new();
        for words in waits {
            let mut client = server.connect();
            if resp3 {
                client.run("HELLO 3");
            }
            let id = client.run("CLIENT ID").int();
            client.send(words);
            waiting.push((client, id));
            // They queue in this order.
            wait_for("it is blocked", SOON, || looker.info_int("blocked_clients") == waiting.len() as i64);
        }
        Side { waiting, writer, looker }
    }

    fn write(&mut self, words: &Words) -> Vec<u8> {
        self.writer.send_raw(&encode(words));
        let (_, bytes) = self.writer.try_read_raw().expect("an answer");
        bytes
    }

    /// Who still waits is let go: for each whether that was so, and its answer.
    fn end(mut self) -> Vec<(i64, String)> {
        let mut answers = Vec::new();
        for (client, id) in &mut self.waiting {
            let unblocked = self.looker.run(&format!("CLIENT UNBLOCK {id}")).int();
            let reply = client.read().to_string();
            answers.push((unblocked, reply));
        }
        answers
    }
}

/// One story.
pub fn check(pair: &Pair, seed: u64) -> Result<(), String> {
    let mut rng = Rng(seed);
    let mut draw = |from: &[&str], count: u64| -> Vec<Words> {
        let n = 1 + rng.below(count);
        (0..n)
            .map(|_| {
                let template = from[rng.below(from.len() as u64) as usize];
                fill(&mut rng, template)
            })
            .collect()
    };
    let (waits, writes) = (draw(WAITS, 4), draw(WRITES, 12));
    let told = |what: String| {
        let script: Vec<String> = waits.iter().chain(&writes).map(show).collect();
        Err(format!("DIFF_SEED={seed}, blocked:\n{}\n{what}\n", script.join("\n")))
    };
    let [mut ours, mut real] =
        [&pair.ours, &pair.real].map(|server| Side::new(server, &waits, seed % 2 == 1));
    for words in &writes {
        let (a, b) = (ours.write(words), real.write(words));
        if a != b {
            let what = format!("{}: ours {} theirs {}", show(words), a.escape_ascii(), b.escape_ascii());
            return told(what);
        }
    }
    let (a, b) = (ours.end(), real.end());
    if a == b { Ok(()) } else { told(format!("ours {a:?}\ntheirs {b:?}")) }
}
