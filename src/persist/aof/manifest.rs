//! The manifest: a line for each file, base first, in the order in which they are read.
//!
//! `file <name> seq <number> type <b|i|h>`: base, increment, and history, which nobody needs any more.

use std::fmt;

use crate::base::num::parse_i64;
use crate::config::grammar;

/// Lines above this are damage.
const MAX_LINE: usize = 1024;

/// A file that the manifest names, without its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// File name, without a folder.
    pub name: String,
    /// Number in the order of the files of its kind, from 1.
    pub seq: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What the files begin with; `None`: they begin empty.
    pub base: Option<Part>,
    /// What was written since, in order.
    pub increments: Vec<Part>,
    /// To be deleted.
    pub history: Vec<Part>,
    /// The greatest numbers given so far.
    base_seq: u64,
    increment_seq: u64,
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// From 1; 0: the file as a whole.
    pub line: usize,
    /// The line as it stands; empty for the file as a whole.
    pub text: String,
    /// Told to the operator before the exit.
    pub why: &'static str,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(self.why),
            line => write!(
                f,
                "Reading the manifest file, at line {line}\n>>> '{}'\n{}",
                self.text.escape_debug(),
                self.why
            ),
        }
    }
}

impl std::error::Error for Error {}

/// The kind of a file as the manifest writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Base,
    Increment,
    History,
}

impl Manifest {
    /// Reads a manifest. Numbers of increments must rise, and there is one base at most.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let whole = |why| Error { line: 0, text: String::new(), why };
        if bytes.is_empty() {
            return Err(whole("Found an empty AOF manifest"));
        }
        let mut manifest = Self::default();
        for (n, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            let shown = || {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                String::from_utf8_lossy(&line[..line.len().min(128)]).into_owned()
            };
            let error = |why| Error { line: n + 1, text: shown(), why };
            manifest.read_line(line).map_err(error)?;
        }
        if manifest.is_empty() && manifest.history.is_empty() {
            return Err(whole("Found an empty AOF manifest"));
        }
        Ok(manifest)
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.starts_with(b"#") {
            return Ok(());
        }
        // Redis reads no further than to a byte 0, and misses the line end, as where the file was cut off.
        let line = line.strip_suffix(b"\n").filter(|line| line.len() <= MAX_LINE && !line.contains(&0));
        let line = line.ok_or("The AOF manifest file contains too long line")?;
        let (name, seq, kind) = fields(line)?;
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err("File can't be a path, just a filename");
        }
        let part = Part { name, seq };
        if part.line(kind).len() > MAX_LINE {
            // Quoted by whoever wrote it otherwise: we could not write it so that it can be read.
            return Err("The AOF manifest file contains too long line");
        }
        match kind {
            Kind::Base if self.base.is_some() => return Err("Found duplicate base file information"),
            Kind::Base => {
                self.base_seq = part.seq;
                self.base = Some(part);
            }
            Kind::History => self.history.push(part),
            Kind::Increment if part.seq <= self.increment_seq => {
                return Err("Found a non-monotonic sequence number");
            }
            Kind::Increment => {
                self.increment_seq = part.seq;
                self.increments.push(part);
            }
        }
        Ok(())
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.increments.is_empty()
    }

    /// The files with data, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.base.iter().chain(&self.increments)
    }

    /// Makes a file from before there were manifests the base.
    pub fn adopt(old: &str) -> Self {
        let base = Some(Part { name: old.to_owned(), seq: 1 });
        Self { base, base_seq: 1, ..Self::default() }
    }

    /// Puts a new base in the place of the old one, which becomes history. `rdb`: what it is made of. Returns its name.
    pub fn new_base(&mut self, prefix: &str, rdb: bool) -> String {
        self.history.extend(self.base.take());
        self.base_seq += 1;
        let name = format!("{prefix}.{}.base.{}", self.base_seq, if rdb { "rdb" } else { "aof" });
        self.base = Some(Part { name: name.clone(), seq: self.base_seq });
        name
    }

    /// Adds an increment behind all others. Returns its name.
    pub fn new_increment(&mut self, prefix: &str) -> String {
        self.increment_seq += 1;
        let name = format!("{prefix}.{}.incr.aof", self.increment_seq);
        self.increments.push(Part { name: name.clone(), seq: self.increment_seq });
        name
    }

    /// Makes all increments but the last `kept` history: the base holds what they say.
    pub fn retire_increments(&mut self, kept: usize) {
        let old = self.increments.len().saturating_sub(kept);
        self.history.extend(self.increments.drain(..old));
    }

    /// The file's content.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let lines = self.base.iter().map(|part| (part, Kind::Base));
        let lines = lines.chain(self.history.iter().map(|part| (part, Kind::History)));
        for (part, kind) in lines.chain(self.increments.iter().map(|part| (part, Kind::Increment))) {
            out.push_str(&part.line(kind));
            out.push('\n');
        }
        out
    }
}

impl Part {
    /// Its line, without the end.
    fn line(&self, kind: Kind) -> String {
        let bytes = self.name.as_bytes();
        let plain = bytes.iter().all(|b| b.is_ascii_graphic() && !b"\"'\\".contains(b));
        let quoted = grammar::quote(bytes);
        let name = if plain { self.name.as_str().into() } else { String::from_utf8_lossy(&quoted) };
        let kind = match kind {
            Kind::Base => 'b',
            Kind::Increment => 'i',
            Kind::History => 'h',
        };
        format!("file {name} seq {} type {kind}", self.seq)
    }
}

/// Name, number and kind of a line. Fields may stand in any order, and unknown ones are passed over.
fn fields(line: &[u8]) -> Result<(String, u64, Kind), &'static str> {
    const FORMAT: &str = "Invalid AOF manifest file format";
    let words = grammar::words(line).ok_or(FORMAT)?;
    let (pairs, []) = words.as_chunks::<2>() else { return Err(FORMAT) };
    let (mut name, mut seq, mut kind) = (None, None, None);
    for [key, value] in pairs {
        match key.to_ascii_lowercase().as_slice() {
            b"file" => name = String::from_utf8(value.clone()).ok(),
            b"seq" => seq = parse_i64(value).and_then(|n| u64::try_from(n).ok()),
            b"type" => {
                kind = Some(match value.as_slice() {
                    b"b" => Kind::Base,
                    b"i" => Kind::Increment,
                    b"h" => Kind::History,
                    _ => return Err("Unknown AOF file type"),
                });
            }
            _ => {}
        }
    }
    let seq = seq.filter(|seq| *seq > 0);
    name.zip(seq).zip(kind).map(|((name, seq), kind)| (name, seq, kind)).ok_or(FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "file appendonly.aof.2.base.rdb seq 2 type b\n\
                        file appendonly.aof.2.incr.aof seq 2 type i\n";

    #[test]
    fn what_redis_wrote_comes_back_in_the_same_bytes() {
        let manifest = Manifest::parse(TEXT.as_bytes()).unwrap();
        assert_eq!(manifest.to_text(), TEXT);
        let mut grown = manifest.clone();
        assert_eq!(grown.new_increment("appendonly.aof"), "appendonly.aof.3.incr.aof");
        assert_eq!(grown.new_base("appendonly.aof", false), "appendonly.aof.3.base.aof");
        grown.retire_increments(1);
        assert_eq!(
            grown.to_text(),
            "file appendonly.aof.3.base.aof seq 3 type b\n\
             file appendonly.aof.2.base.rdb seq 2 type h\n\
             file appendonly.aof.2.incr.aof seq 2 type h\n\
             file appendonly.aof.3.incr.aof seq 3 type i\n"
        );
        assert_eq!(Manifest::parse(grown.to_text().as_bytes()).unwrap(), grown);
    }

    #[test]
    fn names_with_blanks_are_quoted() {
        let mut manifest = Manifest::adopt("my file.aof");
        manifest.new_increment("my file.aof");
        assert!(manifest.to_text().starts_with("file \"my file.aof\" seq 1 type b\n"));
        assert_eq!(Manifest::parse(manifest.to_text().as_bytes()).unwrap(), manifest);
    }

    /// The errors are those of redis-server 7.0.15 for the same files.
    #[test]
    fn damage_is_named() {
        let why = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err().why;
        assert_eq!(why(""), "Found an empty AOF manifest");
        assert_eq!(why("# only this\n"), "Found an empty AOF manifest");
        assert_eq!(why("file a seq 1\n"), "Invalid AOF manifest file format");
        assert_eq!(why("file a seq 1 type x\n"), "Unknown AOF file type");
        assert_eq!(why("\n"), "Invalid AOF manifest file format");
        assert_eq!(why("file ../a seq 1 type b\n"), "File can't be a path, just a filename");
        assert_eq!(why(&format!("{TEXT}file x seq 3 type b\n")), "Found duplicate base file information");
        assert_eq!(why(&format!("{TEXT}file x seq 2 type i\n")), "Found a non-monotonic sequence number");
        assert_eq!(why("file x seq\x002 type b\n"), "The AOF manifest file contains too long line");
        assert_eq!(why(&"x".repeat(2000)), "The AOF manifest file contains too long line");
        assert_eq!(why(&TEXT[..TEXT.len() - 1]), "The AOF manifest file contains too long line");
        let error = Manifest::parse(format!("{TEXT}nonsense\n").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("Reading the manifest file, at line 3\n>>> 'nonsense'\n"));
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_is_taken_for_anything_but_a_manifest() {
        for end in 0..TEXT.len() {
            let whole = end > 0 && TEXT[..end].ends_with('\n');
            assert_eq!(Manifest::parse(&TEXT.as_bytes()[..end]).is_ok(), whole, "{end}");
            for bit in 0..8 {
                let mut bytes = TEXT.as_bytes().to_vec();
                bytes[end] ^= 1 << bit;
                if let Ok(manifest) = Manifest::parse(&bytes) {
                    assert!(manifest.parts().all(|part| !part.name.contains('/')));
                    assert_eq!(Manifest::parse(manifest.to_text().as_bytes()).as_ref(), Ok(&manifest));
                }
            }
        }
    }
}
