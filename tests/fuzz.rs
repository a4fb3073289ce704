//! A bounded run of each fuzz target on stable: its seeds, and random changes of them.
//!
//! `KEYSTEAD_FUZZ=N` runs N inputs a target in place of a second. A failure prints the input; it becomes a seed.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use keystead::base::rng::Rng;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long each target runs by default.
const SHARE: Duration = Duration::from_millis(1500);
/// An input may grow so long.
const LONGEST: usize = 8 << 10;

/// What makes lengths and counts hostile, in the formats that are read.
const HOSTILE: [&[u8]; 14] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\xff\xff\xff\xff",
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xc3\x01\xbf\xff",
    b"\x00\x00\x00\x00",
    b"\x7f",
    b"\x80",
    b"-1",
    b"9223372036854775807",
    b"*1073741824\r\n",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\"",
    b"\r\n",
];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus().join(name)).unwrap_or_else(|e| panic!("the seeds of {name}: {e}"));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has seeds");
    paths.into_iter().map(|path| fs::read(path).expect("a seed")).collect()
}

/// A seed after a few changes.
fn changed(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let any = |rng: &mut Rng| seeds[rng.below(seeds.len() as u64) as usize].clone();
    let mut input = any(rng);
    for _ in 0..=rng.below(4) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        match rng.below(8) {
            0 | 1 if at < input.len() => input[at] ^= 1 << rng.below(8),
            2 if at < input.len() => input[at] = rng.next_u64() as u8,
            3 => input.truncate(at),
            4 => {
                let hostile = HOSTILE[rng.below(HOSTILE.len() as u64) as usize];
                let end = (at + rng.below(hostile.len() as u64 + 1) as usize).min(input.len());
                input.splice(at..end, hostile.iter().copied());
            }
            5 => {
                let end = (at + 1 + rng.below(16) as usize).min(input.len());
                input.drain(at..end);
            }
            6 => {
                let end = (at + 1 + rng.below(64) as usize).min(input.len());
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = any(rng);
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

fn try_input(name: &str, target: fn(&[u8]), input: &[u8]) {
    let begun = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(ended.is_ok(), "{name} failed on b\"{}\"", input.escape_ascii());
    assert!(begun.elapsed() < Duration::from_secs(20), "{name} was slow on b\"{}\"", input.escape_ascii());
}

#[test]
fn every_target_bears_its_seeds_and_changes_of_them() {
    let fixed: Option<u64> = std::env::var("KEYSTEAD_FUZZ").ok().and_then(|n| n.parse().ok());
    let only = std::env::var("KEYSTEAD_FUZZ_TARGET").ok();
    for (name, target) in targets::TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let seeds = seeds(name);
        for seed in &seeds {
            try_input(name, *target, seed);
        }
        let (mut rng, begun, mut runs) = (Rng::new(fixed.unwrap_or(1)), Instant::now(), 0);
        while fixed.map_or(begun.elapsed() < SHARE, |fixed| runs < fixed) {
            try_input(name, *target, &changed(&mut rng, &seeds));
            runs += 1;
        }
        println!("{name}: {} seeds, {runs} changed ones", seeds.len());
        assert!(runs > 100, "{name} ran {runs} times");
    }
}

#[test]
fn every_target_has_a_program() {
    for (name, _) in targets::TARGETS {
        let program = corpus().with_file_name("fuzz_targets").join(format!("{name}.rs"));
        assert!(program.is_file(), "{}", program.display());
    }
}
