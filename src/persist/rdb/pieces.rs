//! A file cut into pieces, which threads beside the one that cuts turn into entries.
//!
//! The cutter takes each entry without making its value; most of the work of loading is to make it.

use std::io::Read;

use super::decode;
use super::error::Result;
use super::reader::{Attributes, BUFFER_BYTES, Reader, Record, is_entry};
use super::source::Source;
use crate::value::Limits;

/// What comes next in a file.
#[derive(Debug)]
pub enum Piece {
    /// What is no entry, or a large one.
    Record(Record),
    /// Entries, not yet read.
    Fragment(Fragment),
    /// A large entry that is to be read from the file again; see [`Reader::allow_ranges`].
    Range(Range),
}

/// Whole entries of one database, as they stand in the file.
#[derive(Debug)]
pub struct Fragment {
    bytes: Vec<u8>,
    /// Where they begin in the file.
    offset: u64,
    db: u32,
    /// How many there are.
    pub keys: u64,
}

impl Fragment {
    /// Reads the entries.
    pub fn entries(&self, limits: Limits) -> Reader<&[u8]> {
        let buffer = self.bytes.len().min(BUFFER_BYTES);
        Reader::of_part(&self.bytes[..], buffer, self.offset, self.db, limits)
    }
}

/// Where an entry stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first byte.
    pub from: u64,
    /// The byte behind it; [`u64::MAX`] for one that is damaged.
    pub to: u64,
    db: u32,
}

impl Range {
    /// Reads the entry from `input`, which holds these bytes of the file.
    pub fn entries<R: Read>(&self, input: R, limits: Limits) -> Reader<R> {
        Reader::of_part(input, BUFFER_BYTES, self.from, self.db, limits)
    }
}

/// What the cutter is about to hand out.
#[derive(Default)]
pub(super) struct Cutting {
    /// Entries kept so far, and where they begin.
    keys: u64,
    from: u64,
    /// A large entry, up to its value.
    large: Option<(u8, Attributes, Vec<u8>)>,
    /// Where that entry begins.
    large_from: u64,
    /// Large entries are handed out as ranges.
    ranges: bool,
    /// What went wrong behind the fragment that was handed out last.
    failed: Option<super::Error>,
}

/// What [`Reader::frame`] has passed over.
enum Frame {
    Entry,
    /// Up to its value.
    Large(u8, Attributes, Vec<u8>),
    /// An opcode, which is still to be taken.
    Other,
}

impl<R: Read> Reader<R> {
    /// Has [`Reader::next_piece`] pass over large entries, too: the file can be read a second time, from any place.
    pub fn allow_ranges(&mut self) {
        self.cutting.ranges = true;
    }

    /// The next piece: a fragment of about `most` bytes, or what is none; `None` behind the end mark. An error in an
    /// entry is told by whoever reads the fragment that ends with it, and then here.
    pub fn next_piece(&mut self, most: u64) -> Result<Option<Piece>> {
        if let Some(error) = self.cutting.failed.take() {
            return Err(error);
        }
        if let Some((code, attributes, key)) = self.cutting.large.take() {
            if self.cutting.ranges {
                let passed = decode::skip(&mut self.source, code);
                // Whoever reads it may need more to say what is wrong.
                let to = if passed.is_ok() { self.source.offset() } else { u64::MAX };
                self.cutting.failed = passed.err();
                let range = Range { from: self.cutting.large_from, to, db: self.db };
                return Ok(Some(Piece::Range(range)));
            }
            return Ok(self
                .value_of(code, &attributes, key)?
                .map(|entry| Piece::Record(Record::Entry(entry))));
        }
        loop {
            let begin = self.source.offset();
            if self.cutting.keys == 0 {
                self.source.keep();
                self.cutting.from = begin;
            } else if begin - self.cutting.from >= most {
                return Ok(Some(self.hand_out(begin)));
            }
            match self.frame() {
                Ok(Frame::Entry) => self.cutting.keys += 1,
                Ok(Frame::Large(code, attributes, key)) => {
                    self.cutting.large = Some((code, attributes, key));
                    self.cutting.large_from = begin;
                    return Ok(Some(self.hand_out(begin)));
                }
                Ok(Frame::Other) if self.cutting.keys > 0 => return Ok(Some(self.hand_out(begin))),
                Ok(Frame::Other) => {
                    self.source.take_kept();
                    return Ok(self.record()?.map(Piece::Record));
                }
                Err(error) => {
                    self.cutting.failed = Some(error);
                    self.cutting.keys += 1;
                    return Ok(Some(self.hand_out(self.source.offset())));
                }
            }
        }
    }

    /// What was kept up to `end`.
    fn hand_out(&mut self, end: u64) -> Piece {
        let mut bytes = self.source.take_kept();
        bytes.truncate((end - self.cutting.from) as usize);
        let keys = std::mem::take(&mut self.cutting.keys);
        Piece::Fragment(Fragment { bytes, offset: self.cutting.from, db: self.db, keys })
    }

    /// Passes over an entry.
    fn frame(&mut self) -> Result<Frame> {
        let mut attributes = Attributes::default();
        loop {
            let code = self.source.u8("an opcode or a value type")?;
            if self.attribute(code, &mut attributes)? {
                continue;
            }
            if !is_entry(code) {
                self.source.untake_byte();
                return Ok(Frame::Other);
            }
            let at = self.source.offset();
            self.source.skip_string("a key")?;
            if decode::is_large(&mut self.source, code)? {
                let key = Source::new(self.source.kept_since(at), 64, false).string("a key")?;
                return Ok(Frame::Large(code, attributes, key));
            }
            decode::skip(&mut self.source, code)?;
            return Ok(Frame::Entry);
        }
    }
}
