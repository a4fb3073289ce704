//! The part of the log that is kept: blocks of bytes with an index of their units.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::unit::{UnitInfo, UnitKind, Units};

/// Appends gather in blocks of this size before a new one is taken.
pub(super) const BLOCK: usize = 64 * 1024;

/// What links get in the place of a unit that is for files alone: each unit has bytes in the stream.
pub(super) const FILLER: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A run of whole units.
#[derive(Debug)]
struct Block {
    bytes: Bytes,
    units: Units,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Offset of the first byte kept.
    pub(super) start: u64,
    pub(super) end: u64,
    blocks: VecDeque<Block>,
    /// What was appended since the last read, not yet shared with readers.
    tail: BytesMut,
    tail_units: Units,
    for_files: ForFiles,
}

/// What files hold in the place of split units, by the offset of each. It is no part of the stream: it goes as soon as
/// all files have it, however long the backlog keeps the unit.
#[derive(Debug, Default)]
struct ForFiles {
    texts: VecDeque<(u64, Bytes)>,
    bytes: u64,
}

impl ForFiles {
    fn push(&mut self, offset: u64, text: Bytes) {
        self.bytes += text.len() as u64;
        self.texts.push_back((offset, text));
    }

    /// Of the unit at this offset.
    fn at(&self, offset: u64) -> Option<&Bytes> {
        let found = self.texts.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        Some(&self.texts[found].1)
    }

    fn trim(&mut self, floor: u64) {
        while let Some((at, text)) = self.texts.front()
            && *at < floor
        {
            self.bytes -= text.len() as u64;
            self.texts.pop_front();
        }
    }
}

/// Which part of a unit a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Nothing,
    Whole,
    /// What files hold in its place.
    OfFiles,
}

/// What a reader took.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What it asked for, in order.
    pub pieces: Vec<Bytes>,
    /// Units in them, where units are asked for.
    pub units: u64,
    /// The offset behind all that was looked at: where to go on.
    pub end: u64,
}

impl History {
    /// Forgets everything; the next byte has this offset.
    pub(super) fn restart_at(&mut self, offset: u64) {
        *self = Self { start: offset, end: offset, ..Self::default() };
    }

    /// Makes room for the bytes of one unit, so that it stands in one block.
    pub(super) fn begin_unit(&mut self, len: usize) -> &mut BytesMut {
        if self.tail.capacity() - self.tail.len() < len {
            self.share_tail();
            self.tail = BytesMut::with_capacity(BLOCK.max(len));
        }
        &mut self.tail
    }

    /// Ends the unit whose `len` bytes were written to what [`History::begin_unit`] gave.
    pub(super) fn end_unit(&mut self, info: UnitInfo, len: usize) {
        self.tail_units.push(info, len as u64);
        self.end += len as u64;
    }

    /// As [`History::end_unit`], for one in whose place files hold `for_files`.
    pub(super) fn end_split_unit(&mut self, slot: Option<u16>, len: usize, for_files: Bytes) {
        self.for_files.push(self.end, for_files);
        self.end_unit(UnitInfo::split(slot), len);
    }

    /// Bytes that files wait for, beside the stream.
    pub(super) fn bytes_for_files(&self) -> u64 {
        self.for_files.bytes
    }

    /// Forgets what files have: all before `floor`.
    pub(super) fn trim_for_files(&mut self, floor: u64) {
        self.for_files.trim(floor);
    }

    /// Turns the tail into a block; what is left of its allocation goes on as the tail.
    fn share_tail(&mut self) {
        if !self.tail.is_empty() {
            let (bytes, units) = (self.tail.split().freeze(), std::mem::take(&mut self.tail_units));
            self.blocks.push_back(Block { bytes, units });
        }
    }

    /// Whether a block could go if nothing before `floor` is needed.
    pub(super) fn may_trim(&self, floor: u64) -> bool {
        self.blocks.front().is_some_and(|block| self.start + block.bytes.len() as u64 <= floor)
    }

    /// Forgets blocks that end at or before `floor`.
    pub(super) fn trim(&mut self, floor: u64) {
        while self.may_trim(floor) {
            self.start += self.blocks.pop_front().map_or(0, |block| block.bytes.len() as u64);
        }
    }

    fn covers(&self, offset: u64) -> bool {
        (self.start..=self.end).contains(&offset)
    }

    /// The blocks from the one of `offset` on, each with its own offset. Readers are nearly always at the end:
    /// it is looked for from the back.
    fn blocks_from(&self, offset: u64) -> impl Iterator<Item = (u64, &Block)> {
        let (mut first, mut at) = (self.blocks.len(), self.end);
        while first > 0 && at > offset {
            first -= 1;
            at -= self.blocks[first].bytes.len() as u64;
        }
        self.blocks.iter().skip(first).map(move |block| {
            let begin = at;
            at += block.bytes.len() as u64;
            (begin, block)
        })
    }

    /// All bytes from `offset` on, at most about `max`. `None` when `offset` is not kept.
    pub(super) fn read(&mut self, offset: u64, max: usize) -> Option<Taken> {
        if !self.covers(offset) {
            return None;
        }
        self.share_tail();
        let mut taken = Taken { end: offset, ..Taken::default() };
        for (at, block) in self.blocks_from(offset) {
            if taken.end - offset >= max as u64 {
                break;
            }
            let piece = block.bytes.slice(taken.end.saturating_sub(at) as usize..);
            taken.end += piece.len() as u64;
            if !piece.is_empty() {
                taken.pieces.push(piece);
            }
        }
        Some(taken)
    }

    /// Of the units from `offset` on, where one begins, what `share` says of each; it looks at about `max` bytes, and
    /// not beyond `until`, where one ends. Neighbours come as one piece. `None` when `offset` is not kept.
    pub(super) fn read_units(
        &mut self,
        offset: u64,
        max: usize,
        until: u64,
        share: impl Fn(UnitInfo) -> Share,
    ) -> Option<Taken> {
        if !self.covers(offset) {
            return None;
        }
        self.share_tail();
        let mut taken = Taken { end: offset, ..Taken::default() };
        'blocks: for (mut at, block) in self.blocks_from(offset) {
            let (mut from, mut run) = (0, 0..0);
            for (len, info) in block.units.iter() {
                let to = from + len as usize;
                if at >= offset {
                    if taken.end - offset >= max as u64 || taken.end >= until {
                        push_run(&mut taken.pieces, &block.bytes, run);
                        break 'blocks;
                    }
                    let for_file = if info.kind == UnitKind::Split { self.for_files.at(at) } else { None };
                    // A slot's next owner is told of all that changed.
                    let share = match share(info) {
                        Share::Whole if for_file.is_some() && &block.bytes[from..to] == FILLER => {
                            Share::OfFiles
                        }
                        share => share,
                    };
                    taken.units += u64::from(share != Share::Nothing);
                    if let (Share::OfFiles, Some(bytes)) = (share, for_file) {
                        push_run(&mut taken.pieces, &block.bytes, std::mem::replace(&mut run, to..to));
                        if !bytes.is_empty() {
                            taken.pieces.push(bytes.clone());
                        }
                    }
                    if share == Share::Whole {
                        if run.end != from || run.is_empty() {
                            push_run(
                                &mut taken.pieces,
                                &block.bytes,
                                std::mem::replace(&mut run, from..from),
                            );
                        }
                        run.end = to;
                    }
                    taken.end = at + len;
                }
                (from, at) = (to, at + len);
            }
            push_run(&mut taken.pieces, &block.bytes, run);
        }
        Some(taken)
    }
}

fn push_run(pieces: &mut Vec<Bytes>, block: &Bytes, run: std::ops::Range<usize>) {
    if !run.is_empty() {
        pieces.push(block.slice(run));
    }
}
