//! An RDB file, record by record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Failed, failed};
use crate::persist::rdb::{Problem, Reader, Record};
use crate::server::node::unix_ms;
use crate::server::process::os_error::words;
use crate::value::Limits;

pub(super) fn check(program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let [name] = arguments else { return failed(format!("Usage: {program} <rdb-file-name>")) };
    let file = File::open(Path::new(name))
        .map_err(|e| Failed(Some(format!("Cannot open file {name}: {}", words(&e)))))?;
    read(name, file).map(drop)
}

/// What was found.
#[derive(Default)]
struct Summary {
    keys: u64,
    expires: u64,
    expired: u64,
    by_type: BTreeMap<&'static str, u64>,
    functions: u64,
}

impl Summary {
    fn print(&self) {
        println!("[info] {} keys read", self.keys);
        println!("[info] {} expires", self.expires);
        println!("[info] {} already expired", self.expired);
        for (kind, count) in &self.by_type {
            println!("[info] {count} keys of type {kind}");
        }
        if self.functions > 0 {
            println!("[info] {} function libraries", self.functions);
        }
    }
}

/// Reads RDB from `input` and tells what is there. Returns what follows it: the reader, what was read ahead, and the
/// offset.
pub(super) fn read<R: Read>(name: &str, input: R) -> Result<(R, Vec<u8>, u64), Failed> {
    println!("[offset 0] Checking RDB file {name}");
    let mut summary = Summary::default();
    let mut reader = match Reader::open(input, Limits::default()) {
        Ok(reader) => reader,
        Err(e) => return Err(damaged(&e, &summary)),
    };
    loop {
        match reader.next() {
            None => break,
            Some(Err(e)) => return Err(damaged(&e, &summary)),
            Some(Ok(record)) => tell(&record, reader.offset(), &mut summary),
        }
    }
    let offset = reader.offset();
    if reader.version() >= 5 {
        println!("[offset {offset}] Checksum OK");
    }
    println!("[offset {offset}] \\o/ RDB looks OK! \\o/");
    summary.print();
    if reader.empty_keys_skipped() > 0 {
        println!("[info] {} keys with an empty value, which are left out", reader.empty_keys_skipped());
    }
    let (input, ahead) = reader.into_parts();
    Ok((input, ahead, offset))
}

fn tell(record: &Record, offset: u64, summary: &mut Summary) {
    match record {
        Record::Aux { name, value } => {
            println!("[offset {offset}] AUX FIELD {} = '{}'", name.escape_ascii(), value.escape_ascii());
        }
        Record::SelectDb(db) => println!("[offset {offset}] Selecting DB ID {db}"),
        Record::Function(_) => summary.functions += 1,
        Record::ModuleAux { module } => println!("[offset {offset}] MODULE AUX for: {module}"),
        Record::Entry(entry) => {
            summary.keys += 1;
            *summary.by_type.entry(entry.value.kind().name()).or_default() += 1;
            summary.expires += u64::from(entry.expire.is_some());
            summary.expired += u64::from(entry.expire.is_some_and(|at| at < unix_ms()));
        }
        Record::ResizeDb { .. } | Record::SlotInfo { .. } => {}
    }
}

fn damaged(error: &crate::persist::rdb::Error, summary: &Summary) -> Failed {
    println!("--- RDB ERROR DETECTED ---");
    match &error.problem {
        Problem::Truncated(what) => {
            println!("[offset {}] Unexpected EOF reading RDB file (expected {what})", error.offset);
        }
        Problem::Version(version) => {
            println!("[offset {}] Can't handle RDB format version {version}", error.offset);
        }
        problem => println!("[offset {}] {problem}", error.offset),
    }
    if let Some(key) = &error.key {
        println!("[additional info] Reading key '{}'", key[..key.len().min(128)].escape_ascii());
    }
    summary.print();
    Failed(None)
}
