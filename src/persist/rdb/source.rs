//! Bytes that come in: lengths and strings, with the offset and the running checksum of what was taken.
//!
//! Nothing here trusts a length: memory grows with the bytes that really arrive.

use std::io::{self, Read};

use super::checksum::Crc64;
use super::error::{Error, Problem, Result};
use super::sink;
use crate::encoding::lzf;

/// How much of a long string is asked for at a time.
const GROWTH: usize = 1 << 20;

/// A buffered reader of RDB primitives. `what` in its methods completes "expected ...".
pub(super) struct Source<R> {
    inner: R,
    buffer: Vec<u8>,
    /// Taken up to here, filled up to `end`.
    position: usize,
    end: usize,
    /// Offset of `buffer[0]` from the beginning.
    base: u64,
    checksum: Option<Crc64>,
    /// Bytes of `buffer` up to here are in `checksum` and `kept`: they are fed in blocks, not by field.
    summed: usize,
    /// A copy of what is taken, while somebody wants it.
    kept: Option<Vec<u8>>,
}

/// A length field: a number, or the mark of a special string form.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<R: Read> Source<R> {
    /// `buffer_bytes` is the size of the read buffer, at least 16.
    pub fn new(inner: R, buffer_bytes: usize, checksum: bool) -> Self {
        Self {
            inner,
            buffer: vec![0; buffer_bytes.max(16)],
            position: 0,
            end: 0,
            base: 0,
            checksum: checksum.then(Crc64::new),
            summed: 0,
            kept: None,
        }
    }

    /// The same, where the data are a part that begins at `offset`.
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.base = offset;
        self
    }

    /// From here on, what is taken is kept, too.
    pub fn keep(&mut self) {
        self.sum_up();
        self.kept = Some(Vec::new());
    }

    /// What was kept. Nothing more is.
    pub fn take_kept(&mut self) -> Vec<u8> {
        self.sum_up();
        self.kept.take().unwrap_or_default()
    }

    /// What was kept since `offset`.
    pub fn kept_since(&mut self, offset: u64) -> &[u8] {
        let len = self.offset() - offset;
        self.sum_up();
        let kept = self.kept.as_deref().unwrap_or_default();
        &kept[kept.len().saturating_sub(len as usize)..]
    }

    /// Takes back the byte that was taken last.
    pub fn untake_byte(&mut self) {
        assert!(self.position > self.summed, "nothing has counted it yet");
        self.position -= 1;
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> u64 {
        self.base + self.position as u64
    }

    /// The checksum of all bytes taken so far; 0 if none is kept.
    pub fn checksum(&mut self) -> u64 {
        self.sum_up();
        self.checksum.as_ref().map_or(0, Crc64::value)
    }

    pub fn keeps_checksum(&self) -> bool {
        self.checksum.is_some()
    }

    pub fn stop_checksum(&mut self) {
        self.checksum = None;
    }

    /// The reader.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The reader and what was read from it but not taken.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        (self.inner, self.buffer[self.position..self.end].to_vec())
    }

    pub fn error(&self, problem: Problem) -> Error {
        Error { offset: self.offset(), key: None, problem }
    }

    pub fn unexpected<T>(&self, expected: &'static str, found: impl ToString) -> Result<T> {
        Err(self.error(Problem::Unexpected { expected, found: found.to_string() }))
    }

    pub fn malformed<T>(&self, expected: &'static str, why: &'static str) -> Result<T> {
        Err(self.error(Problem::Malformed { expected, why }))
    }

    fn sum_up(&mut self) {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&self.buffer[self.summed..self.position]);
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&self.buffer[self.summed..self.position]);
        }
        self.summed = self.position;
    }

    /// Reads more behind what is there; false at the end of the data.
    fn fill(&mut self) -> Result<bool> {
        // What is left is moved to the front where there is no room behind it, or nothing to move.
        if self.end == self.buffer.len() || self.position == self.end {
            self.sum_up();
            self.buffer.copy_within(self.position..self.end, 0);
            self.base += self.position as u64;
            self.end -= self.position;
            (self.position, self.summed) = (0, 0);
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error(Problem::Io(e))),
            }
        }
    }

    /// Whether all data were taken.
    pub fn at_end(&mut self) -> Result<bool> {
        Ok(self.position == self.end && !self.fill()?)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        debug_assert!(N <= 16, "fields fit the smallest buffer");
        while self.end - self.position < N {
            if !self.fill()? {
                return Err(self.error(Problem::Truncated(what)));
            }
        }
        let mut field = [0; N];
        field.copy_from_slice(&self.buffer[self.position..self.position + N]);
        self.position += N;
        Ok(field)
    }

    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Exactly `length` bytes.
    pub fn bytes(&mut self, length: u64, what: &'static str) -> Result<Vec<u8>> {
        let Ok(length) = usize::try_from(length) else {
            return self.unexpected(what, format_args!("a length of {length} bytes"));
        };
        let mut out = Vec::with_capacity(length.min(GROWTH));
        while out.len() < length {
            if self.position == self.end && !self.fill()? {
                return Err(self.error(Problem::Truncated(what)));
            }
            let n = (length - out.len()).min(self.end - self.position);
            if out.capacity() - out.len() < n {
                // Doubling, but never past the end: what is kept has no slack.
                out.reserve_exact((length - out.len()).min(out.len().max(GROWTH)));
            }
            out.extend_from_slice(&self.buffer[self.position..self.position + n]);
            self.position += n;
        }
        Ok(out)
    }

    /// Takes `length` bytes and makes nothing of them.
    #[inline]
    pub fn skip(&mut self, mut length: u64, what: &'static str) -> Result<()> {
        loop {
            let n = length.min((self.end - self.position) as u64);
            self.position += n as usize;
            length -= n;
            if length == 0 {
                return Ok(());
            }
            if !self.fill()? {
                return Err(self.error(Problem::Truncated(what)));
            }
        }
    }

    /// The same with a string.
    #[inline]
    pub fn skip_string(&mut self, what: &'static str) -> Result<()> {
        let bytes = match self.any_length(what)? {
            Length::Plain(n) => n,
            Length::Special(sink::STRING_INT8) => 1,
            Length::Special(sink::STRING_INT16) => 2,
            Length::Special(sink::STRING_INT32) => 4,
            Length::Special(sink::STRING_LZF) => {
                let packed = self.length(what)?;
                self.length(what)?;
                packed
            }
            Length::Special(form) => {
                return self.unexpected(what, format_args!("the string form 0x{form:02x}"));
            }
        };
        self.skip(bytes, what)
    }

    /// The length that stands `ahead` bytes further on, which is not taken. `None` if there is none.
    pub fn peek_length(&mut self, ahead: usize) -> Result<Option<u64>> {
        const LONGEST: usize = 9;
        debug_assert!(ahead + LONGEST <= 32, "it fits a buffer");
        while self.end - self.position < ahead + LONGEST && self.fill()? {}
        let Some(bytes) = self.buffer[self.position..self.end].get(ahead..) else { return Ok(None) };
        Ok(match *bytes {
            [first @ 0x00..=0x3f, ..] => Some(u64::from(first)),
            [first @ 0x40..=0x7f, low, ..] => Some(u64::from(u16::from_be_bytes([first & 0x3f, low]))),
            [sink::LENGTH_32, a, b, c, d, ..] => Some(u64::from(u32::from_be_bytes([a, b, c, d]))),
            [sink::LENGTH_64, ref rest @ ..] => rest.first_chunk().map(|n| u64::from_be_bytes(*n)),
            _ => None,
        })
    }

    #[inline]
    fn any_length(&mut self, what: &'static str) -> Result<Length> {
        let first = self.u8(what)?;
        Ok(match first {
            0x00..=0x3f => Length::Plain(u64::from(first)),
            0x40..=0x7f => {
                let low = self.u8(what)?;
                Length::Plain(u64::from(u16::from_be_bytes([first & 0x3f, low])))
            }
            sink::LENGTH_32 => Length::Plain(u64::from(u32::from_be_bytes(self.array(what)?))),
            sink::LENGTH_64 => Length::Plain(u64::from_be_bytes(self.array(what)?)),
            0xc0.. => Length::Special(first),
            _ => return self.unexpected(what, format_args!("the length byte 0x{first:02x}")),
        })
    }

    #[inline]
    pub fn length(&mut self, what: &'static str) -> Result<u64> {
        match self.any_length(what)? {
            Length::Plain(n) => Ok(n),
            Length::Special(mark) => {
                self.unexpected(what, format_args!("a string form (0x{mark:02x}) in place of a length"))
            }
        }
    }

    /// A string in any of its forms.
    #[inline]
    pub fn string(&mut self, what: &'static str) -> Result<Vec<u8>> {
        match self.any_length(what)? {
            Length::Plain(n) => self.bytes(n, what),
            Length::Special(form) => self.special_string(form, what),
        }
    }

    fn special_string(&mut self, form: u8, what: &'static str) -> Result<Vec<u8>> {
        let number = match form {
            sink::STRING_INT8 => i32::from(i8::from_le_bytes(self.array(what)?)),
            sink::STRING_INT16 => i32::from(i16::from_le_bytes(self.array(what)?)),
            sink::STRING_INT32 => i32::from_le_bytes(self.array(what)?),
            sink::STRING_LZF => return self.compressed_string(what),
            _ => return self.unexpected(what, format_args!("the string form 0x{form:02x}")),
        };
        Ok(itoa::Buffer::new().format(number).as_bytes().to_vec())
    }

    fn compressed_string(&mut self, what: &'static str) -> Result<Vec<u8>> {
        let packed_length = self.length(what)?;
        let length = self.length(what)?;
        let unpack = |packed: &[u8]| usize::try_from(length).ok().and_then(|n| lzf::decompress(packed, n));
        let buffered = usize::try_from(packed_length)
            .ok()
            .and_then(|n| self.position.checked_add(n))
            .and_then(|to| self.buffer[..self.end].get(self.position..to));
        let unpacked = match buffered {
            Some(packed) => {
                let unpacked = unpack(packed);
                self.position += packed.len();
                unpacked
            }
            None => unpack(&self.bytes(packed_length, what)?),
        };
        match unpacked {
            Some(bytes) => Ok(bytes),
            None => self.malformed(what, "the LZF data are damaged"),
        }
    }

    /// A double as sorted sets had it before RDB 8: its text after one byte of length, or a mark.
    pub fn text_double(&mut self, what: &'static str) -> Result<f64> {
        match self.u8(what)? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            n => {
                let text = self.bytes(u64::from(n), what)?;
                match crate::base::num::parse_f64(&text) {
                    Some(x) => Ok(x),
                    None => self.unexpected(what, format_args!("'{}'", text.escape_ascii())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8]) -> Source<&[u8]> {
        Source::new(bytes, 16, true)
    }

    #[test]
    fn what_the_sink_writes_comes_back() {
        let long: Vec<u8> = (0..5000u32).map(|i| (i % 251) as u8).collect();
        let strings: [&[u8]; 9] =
            [b"", b"a", b"0", b"-1", b"300", b"-70000", b"99999999999", &[b'x'; 500], &long];
        let lengths = [0, 63, 64, 16383, 16384, u64::from(u32::MAX), u64::MAX];
        let mut out = vec![];
        for s in strings {
            sink::put_string(&mut out, s, true);
        }
        for n in lengths {
            sink::put_length(&mut out, n);
        }
        let mut source = source(&out);
        for s in strings {
            assert_eq!(source.string("a string").unwrap(), s);
        }
        for n in lengths {
            assert_eq!(source.length("a length").unwrap(), n);
        }
        assert!(source.at_end().unwrap());
        assert_eq!(source.offset(), out.len() as u64);
        assert_eq!(source.checksum(), super::super::checksum::crc64(&out));
    }

    #[test]
    fn a_hostile_length_allocates_only_what_arrives() {
        let mut bytes = vec![];
        sink::put_length(&mut bytes, u64::MAX);
        bytes.extend_from_slice(b"only this");
        let error = source(&bytes).string("a key").unwrap_err();
        assert_eq!(error.to_string(), "offset 18: expected a key, found the end of the data");
    }

    #[test]
    fn errors_name_offset_and_expectation() {
        for (bytes, want) in [
            (&b"\x05abc"[..], "offset 4: expected a key, found the end of the data"),
            (b"\x82", "offset 1: expected a key, found the length byte 0x82"),
            (b"\xc4", "offset 1: expected a key, found the string form 0xc4"),
            (b"\xc3\x01\x05x", "offset 4: expected a key: the LZF data are damaged"),
        ] {
            assert_eq!(source(bytes).string("a key").unwrap_err().to_string(), want);
        }
        let error = source(b"\xc0\x01").length("the number of fields").unwrap_err();
        assert!(error.to_string().contains("in place of a length"), "{error}");
    }
}
