//! The same random commands to our server and to a real Redis: every reply must be the same bytes,
//! in RESP2 and in RESP3, and the data the same in the end.
//!
//! ```text
//! DIFF_SEEDS=500 cargo test --release --test differential     more seeds than the usual share
//! DIFF_SEED=1234 cargo test --release --test differential     one seed, shrunk if it fails
//! DIFF_COMMANDS=2500                                           commands of a seed
//! ```
//!
//! What may differ stands in `allowed.rs`, with the reason.

#[path = "../common/mod.rs"]
mod common;

mod allowed;
mod blocking;
mod counters;
mod generator;
mod records;
mod sweep;

use common::SOON;
use common::client::{Client, encode, quoted};
use common::server::Server;
use generator::{Rng, Words, command};

const COMMANDS_A_SEED: u64 = 400;
const SEEDS: u64 = 150;

/// What went wrong, and at which command.
struct Difference {
    at: usize,
    what: String,
}

struct Pair {
    ours: Server,
    real: Server,
}

impl Pair {
    fn start() -> Pair {
        Pair { ours: Server::subject(), real: Server::real() }
    }

    /// Runs the commands on fresh connections and empty servers; the first difference ends it.
    fn run(&self, commands: &[Words], protocol: u8) -> Option<Difference> {
        let (mut ours, mut real) = (self.ours.connect(), self.real.connect());
        for client in [&mut ours, &mut real] {
            client.run("FLUSHALL");
            if protocol == 3 {
                client.run("HELLO 3");
            }
        }
        // In pipelines of ten: replies are compared one by one all the same.
        for (block, chunk) in commands.chunks(10).enumerate() {
            let bytes: Vec<u8> = chunk.iter().flat_map(|words| encode(words)).collect();
            let _ = ours.try_send_raw(&bytes);
            let _ = real.try_send_raw(&bytes);
            for (i, words) in chunk.iter().enumerate() {
                let at = block * 10 + i;
                let theirs = match real.try_read_raw() {
                    Ok((_, bytes)) => bytes,
                    Err(e) => panic!("the real server does not answer {}: {e}", show(words)),
                };
                let ours = match ours.try_read_raw() {
                    Ok((_, bytes)) => bytes,
                    Err(e) => return Some(Difference { at, what: format!("ours does not answer: {e}") }),
                };
                if ours != theirs && !allowed::allowed(words, &ours, &theirs) {
                    let what = format!("ours   {}\ntheirs {}", quoted(&ours), quoted(&theirs));
                    return Some(Difference { at, what });
                }
            }
        }
        let at = commands.len().saturating_sub(1);
        let (a, b) = (data(&mut ours), data(&mut real));
        (a != b).then(|| Difference { at, what: format!("the data differ at the end: {a} and {b}") })
    }
}

/// DEBUG DIGEST, outside of any transaction that the commands left open.
fn data(client: &mut Client) -> String {
    client.run("DISCARD");
    client.run("DEBUG DIGEST").text()
}

fn show(words: &Words) -> String {
    words
        .iter()
        .map(|w| {
            if w.iter().all(u8::is_ascii_graphic) && !w.is_empty() {
                String::from_utf8_lossy(w).into_owned()
            } else {
                quoted(w)
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Removes commands as long as the rest still fails.
fn shrink(
    pair: &Pair,
    mut commands: Vec<Words>,
    protocol: u8,
    first: Difference,
) -> (Vec<Words>, Difference) {
    let mut difference = first;
    commands.truncate(difference.at + 1);
    let mut size = commands.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < commands.len() {
            let mut fewer = commands.clone();
            fewer.drain(from..(from + size).min(fewer.len()));
            match pair.run(&fewer, protocol) {
                Some(found) => {
                    fewer.truncate(found.at + 1);
                    commands = fewer;
                    difference = found;
                }
                None => from += size,
            }
        }
        size /= 2;
    }
    (commands, difference)
}

fn check(pair: &Pair, seed: u64, protocol: u8) -> Result<(), String> {
    let mut rng = Rng(seed);
    let count = number("DIFF_COMMANDS").unwrap_or(COMMANDS_A_SEED);
    let commands: Vec<Words> = (0..count).map(|_| command(&mut rng)).collect();
    let Some(first) = pair.run(&commands, protocol) else { return Ok(()) };
    let (commands, difference) = shrink(pair, commands, protocol, first);
    let script: Vec<String> = commands.iter().map(show).collect();
    Err(format!("DIFF_SEED={seed} in RESP{protocol}:\n{}\n{}\n", script.join("\n"), difference.what))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Tries the seeds that are asked for.
fn try_seeds(check: impl Fn(&Pair, u64) -> Result<(), String>) {
    let seeds = match number("DIFF_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIFF_SEEDS").unwrap_or(SEEDS),
    };
    let pair = Pair::start();
    let mut failures = Vec::new();
    for seed in seeds {
        if let Err(failure) = check(&pair, seed) {
            failures.push(failure);
            // The same cause shows up in many seeds: a few tell enough.
            if failures.len() == 5 {
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} seeds differ:\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn replies_and_data_are_the_same_in_resp2() {
    try_seeds(|pair, seed| check(pair, seed, 2));
}

#[test]
fn replies_and_data_are_the_same_in_resp3() {
    try_seeds(|pair, seed| check(pair, seed, 3));
}

#[test]
fn blocked_clients_get_the_same_answers() {
    try_seeds(blocking::check);
}
