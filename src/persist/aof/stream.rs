//! Commands and annotations, as they stand in an increment one after the other.
//!
//! Nothing here trusts a length: memory grows with the bytes that really arrive.

use std::fmt;
use std::io::{self, Read};

use crate::base::num::parse_i64;
use crate::resp::{Limits, Parsed, parse};

/// What is read at once.
const CHUNK: usize = 256 << 10;
/// The file is trusted with what was accepted once; lengths only need to be sums without overflow.
const LIMITS: Limits = Limits { max_bulk: usize::MAX / 4, authenticated: true };

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// All words, the name included.
    Command(Vec<&'a [u8]>),
    /// When the commands behind it were written, in Unix seconds.
    Timestamp(i64),
    /// A line that is no command and of no known meaning.
    Annotation,
}

/// Why reading ends early.
#[derive(Debug)]
pub enum Problem {
    /// The data end inside a command: a crash cut it off.
    Truncated,
    /// This is no command.
    Format(String),
    /// The file could not be read.
    Io(io::Error),
}

/// A failure, and the offset of the item that it is in.
#[derive(Debug)]
pub struct Error {
    /// Bytes from the beginning of the file.
    pub offset: u64,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: ", self.offset)?;
        match &self.problem {
            Problem::Truncated => f.write_str("expected the rest of a command, found the end of the data"),
            Problem::Format(why) => write!(f, "expected a command, found {why}"),
            Problem::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Reads items from `input`.
#[derive(Debug)]
pub struct Commands<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where the next item begins in the buffer.
    at: usize,
    /// The offset of the buffer's first byte.
    base: u64,
    /// Bytes of the input, if they are known.
    size: u64,
    ended: bool,
}

/// Where an item ends, or that more is needed to tell.
enum Look {
    Item(usize),
    More(usize),
}

impl<R: Read> Commands<R> {
    /// `ahead` was read from `input` already, and begins at `offset`.
    pub fn new(input: R, ahead: Vec<u8>, offset: u64) -> Self {
        Self { input, buffer: ahead, at: 0, base: offset, size: 0, ended: false }
    }

    /// The input has so many bytes: room for a long item is made at once, and given back.
    pub fn of_size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// The offset of the next item.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// The next item; `None` at the end.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        let offset = self.offset();
        let error = |problem| Error { offset, problem };
        let end = loop {
            match look(&self.buffer[self.at..]).map_err(|why| error(Problem::Format(why)))? {
                Look::Item(len) => break self.at + len,
                Look::More(_) if self.ended && self.at == self.buffer.len() => return Ok(None),
                Look::More(_) if self.ended => return Err(error(Problem::Truncated)),
                Look::More(need) => self.fill(need).map_err(|e| error(Problem::Io(e)))?,
            }
        };
        let bytes = &self.buffer[self.at..end];
        self.at = end;
        if bytes.starts_with(b"#") {
            let stamp = bytes.strip_prefix(b"#TS:").and_then(|text| parse_i64(text.trim_ascii_end()));
            return Ok(Some(stamp.map_or(Item::Annotation, Item::Timestamp)));
        }
        let (mut argv, mut at) = (Vec::new(), 0);
        // It was looked at before.
        let _ = parse(bytes, &mut at, &mut argv, &LIMITS);
        Ok(Some(Item::Command(argv)))
    }

    /// Reads on, until there are `need` bytes of the item or the data end.
    fn fill(&mut self, need: usize) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        if self.buffer.capacity() > 16 * CHUNK {
            self.buffer.shrink_to(4 * CHUNK);
        }
        // No more than the input can fill.
        let honest = usize::try_from(self.size.saturating_sub(self.base)).unwrap_or(usize::MAX).min(need);
        self.buffer.reserve_exact(honest.saturating_sub(self.buffer.len()));
        while self.buffer.len() < need && !self.ended {
            let before = self.buffer.len();
            let room = (need - before).clamp(CHUNK, 4 * CHUNK);
            let read = self.input.by_ref().take(room as u64).read_to_end(&mut self.buffer)?;
            self.ended = read < room;
        }
        Ok(())
    }
}

fn look(bytes: &[u8]) -> Result<Look, String> {
    match bytes.first() {
        None => Ok(Look::More(1)),
        Some(b'#') => Ok(match memchr::memchr(b'\n', bytes) {
            Some(end) => Look::Item(end + 1),
            None if bytes.len() > 1024 => return Err("an annotation that does not end".into()),
            None => Look::More(bytes.len() + 1),
        }),
        Some(b'*') => {
            let (mut argv, mut at) = (Vec::new(), 0);
            match parse(bytes, &mut at, &mut argv, &LIMITS) {
                Ok(Parsed::Command) if !lengths_end(bytes, &argv) => {
                    Err("a length without a line end".into())
                }
                Ok(Parsed::Command) if at_line_ends(bytes, &argv) => Ok(Look::Item(at)),
                Ok(Parsed::Command) => Err("an argument that is longer than its length says".into()),
                Ok(Parsed::Incomplete { need }) => Ok(Look::More(need)),
                Ok(Parsed::Inline(_) | Parsed::Empty) => Err("a command without a name".into()),
                Err(e) => Err(format!("'{}' ({e})", shown(bytes))),
            }
        }
        Some(_) => Err(format!("'{}'", shown(bytes))),
    }
}

/// Whether a line end stands behind the number of arguments and behind each length, as `at_line_ends`.
fn lengths_end(bytes: &[u8], argv: &[&[u8]]) -> bool {
    let count = memchr::memchr(b'\r', bytes).is_some_and(|end| bytes.get(end + 1) == Some(&b'\n'));
    count
        && argv.iter().all(|arg| {
            let begin = arg.as_ptr().addr() - bytes.as_ptr().addr();
            bytes[..begin].ends_with(b"\r\n")
        })
}

/// Whether a line end follows each argument; clients are not asked for that.
fn at_line_ends(bytes: &[u8], argv: &[&[u8]]) -> bool {
    argv.iter().all(|arg| {
        let end = arg.as_ptr().addr() - bytes.as_ptr().addr() + arg.len();
        bytes.get(end..end + 2) == Some(b"\r\n")
    })
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(32)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"#TS:1795646810\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n#free text\n\
        *3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\n\x00\xff\r\n*1\r\n$5\r\nMULTI\r\n";

    fn read(bytes: &[u8]) -> (usize, Option<Error>) {
        let mut commands = Commands::new(bytes, Vec::new(), 0);
        let mut items = 0;
        loop {
            match commands.next_item() {
                Ok(Some(_)) => items += 1,
                Ok(None) => return (items, None),
                Err(e) => return (items, Some(e)),
            }
        }
    }

    #[test]
    fn items_come_in_order_with_their_offsets() {
        let mut commands = Commands::new(&TEXT[16..], TEXT[..16].to_vec(), 100);
        assert_eq!(commands.next_item().unwrap(), Some(Item::Timestamp(1_795_646_810)));
        assert_eq!(commands.offset(), 116);
        assert_eq!(commands.next_item().unwrap(), Some(Item::Command(vec![b"SELECT", b"0"])));
        assert_eq!(commands.next_item().unwrap(), Some(Item::Annotation));
        assert_eq!(commands.next_item().unwrap(), Some(Item::Command(vec![b"SET", b"a\r\n", b"\x00\xff"])));
        assert_eq!(commands.next_item().unwrap(), Some(Item::Command(vec![b"MULTI"])));
        assert_eq!(commands.next_item().unwrap(), None);
        assert_eq!(commands.offset(), 100 + TEXT.len() as u64);
    }

    #[test]
    fn a_cut_at_any_offset_leaves_whole_items_and_says_where_the_rest_begins() {
        for end in 0..TEXT.len() {
            let (items, error) = read(&TEXT[..end]);
            match error {
                None => assert_eq!(read(&TEXT[..end]).0, items),
                Some(Error { offset, problem: Problem::Truncated }) => {
                    let (whole, error) = read(&TEXT[..offset as usize]);
                    assert!(error.is_none());
                    assert_eq!(whole, items);
                }
                Some(other) => panic!("{end}: {other}"),
            }
        }
    }

    #[test]
    fn flipped_bits_and_hostile_lengths_are_errors_or_other_data() {
        for at in 0..TEXT.len() {
            for bit in 0..8 {
                let mut bytes = TEXT.to_vec();
                bytes[at] ^= 1 << bit;
                let _ = read(&bytes);
            }
        }
        for (text, want) in [
            (&b"*0\r\n"[..], "a command without a name"),
            (b"PING\r\n", "'PING"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*9999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n$2\r\nabc\r\n", "longer than its length says"),
            (b"*1\r\n$4\r\x0bPING\r\n", "a length without a line end"),
            (b"*1\r\x08$4\r\nPING\r\n", "a length without a line end"),
        ] {
            let error = read(text).1.expect("an error").to_string();
            assert!(
                error.starts_with("offset 0: expected a command, found ") && error.contains(want),
                "{error}"
            );
        }
        let error = read(b"*2\r\n$3\r\nSET\r\n$4000000000000000000\r\nabc").1.expect("an error");
        assert!(matches!(error.problem, Problem::Truncated | Problem::Format(_)), "{error}");
    }
}
