//! Replies in RESP2 or RESP3, appended to one buffer.
//! Source: "Redis serialization protocol specification"; the RESP2 forms of RESP3 types follow the server's `addReply*`.

use std::ops::Range;
use std::sync::Arc;

use super::frame;
use crate::base::lossless;
use crate::base::num::{as_integer, format_f64};

/// A reply or a run of replies under construction.
///
/// Small things are copied into one buffer. Large values are kept as shared references beside
/// it, so that they reach the socket without a copy; and what is long because it has many small things is put away
/// part by part, so that it is never copied as a whole.
#[derive(Debug)]
pub struct Reply {
    buf: Vec<u8>,
    /// The position of the buffer's first byte: bytes in `parts`.
    base: usize,
    /// What came before the buffer, without gaps.
    parts: Vec<Part>,
    /// Shared values and the position that each one stands at, ascending.
    shared: Vec<(usize, Arc<Vec<u8>>)>,
    resp3: bool,
    bounds: Bounds,
    /// The length of the buffer beyond which something is to be done.
    watch: usize,
}

/// What was put away.
#[derive(Debug)]
struct Part {
    /// The positions of its bytes.
    range: Range<usize>,
    bytes: Vec<u8>,
}

/// How far a client's replies may grow. What grows further is thrown away as it comes, so that no more is ever
/// kept of a reply that its client will not get.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Where its replies begin.
    from: usize,
    /// The position in the buffer that must not be passed. Shared values bring it nearer.
    until: i64,
    passed: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { from: 0, until: i64::MAX, passed: false }
    }
}

/// Values from this size on are sent by reference.
pub const SHARE_FROM: usize = 16 * 1024;

/// Bytes that a buffer keeps for the next replies.
const MOST_KEPT: usize = 1 << 20;

/// From this size on the replies of one client are put away.
const PART: usize = 256 * 1024;

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

impl Reply {
    /// An empty buffer that speaks RESP2.
    pub fn new() -> Self {
        Self {
            buf: Vec::new(),
            base: 0,
            parts: Vec::new(),
            shared: Vec::new(),
            resp3: false,
            bounds: Bounds::default(),
            watch: PART,
        }
    }

    /// Sets the protocol of what follows.
    #[inline]
    pub fn set_resp3(&mut self, resp3: bool) {
        self.resp3 = resp3;
    }

    /// Whether types that RESP2 does not know may be used.
    pub fn is_resp3(&self) -> bool {
        self.resp3
    }

    /// Bytes written, shared values not counted: a position for [`Reply::truncate`] and [`Reply::take`].
    #[inline]
    pub fn len(&self) -> usize {
        self.base + self.buf.len()
    }

    /// Whether nothing was written since the last [`clear`](Self::clear).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes written from `mark` on are taken back (CLIENT REPLY OFF, a failed handler).
    pub fn truncate(&mut self, mark: usize) {
        while mark < self.base
            && let Some(Part { range, bytes }) = self.parts.pop()
        {
            (self.base, self.buf) = (range.start, bytes);
        }
        self.buf.truncate(mark - self.base);
        while self.shared.last().is_some_and(|(at, _)| *at > mark) {
            if let Some((_, value)) = self.shared.pop() {
                self.bounds.until = self.bounds.until.saturating_add(value.len() as i64);
            }
        }
        self.set_watch();
    }

    /// What comes from here on is for one client, and may be as long as `most` bytes.
    #[inline]
    pub fn begin(&mut self, most: usize) {
        let from = self.len();
        let until = i64::try_from(from.saturating_add(most)).unwrap_or(i64::MAX);
        self.bounds = Bounds { from, until, passed: false };
        self.set_watch();
    }

    /// Whether it was longer: then none of it is there any more.
    #[inline]
    pub fn is_cut_off(&self) -> bool {
        self.bounds.passed
    }

    /// Bytes that it may still grow by.
    pub fn room(&self) -> usize {
        if self.bounds.passed { 0 } else { (self.bounds.until - self.len() as i64).max(0) as usize }
    }

    /// Throws away what was written for the client, who will be closed.
    #[cold]
    pub fn cut_off(&mut self) {
        self.bounds.passed = true;
        self.truncate(self.bounds.from);
    }

    #[inline(always)]
    fn stay_in_bounds(&mut self) {
        if self.buf.len() > self.watch {
            self.overflow();
        }
    }

    #[inline]
    fn set_watch(&mut self) {
        let most = (self.bounds.until - self.base as i64).max(0) as usize;
        self.watch = most.min(self.bounds.from.saturating_sub(self.base) + PART);
    }

    #[cold]
    fn overflow(&mut self) {
        if self.len() as i64 > self.bounds.until {
            return self.cut_off();
        }
        self.begin_part(PART + SHARE_FROM + 64);
    }

    /// Puts away what is in the buffer, and makes room for so many bytes. A part belongs to one client, who gets it as
    /// it is.
    fn begin_part(&mut self, room: usize) {
        let others = self.bounds.from.saturating_sub(self.base);
        if others > 0 {
            let own = self.buf.split_off(others);
            self.put_away(own);
        }
        self.put_away(Vec::with_capacity(room));
        self.set_watch();
    }

    /// Makes a part of what is in the buffer, and goes on with `next` as the buffer.
    fn put_away(&mut self, next: Vec<u8>) {
        let bytes = std::mem::replace(&mut self.buf, next);
        if bytes.is_empty() {
            return;
        }
        let range = self.base..self.base + bytes.len();
        self.base = range.end;
        self.parts.push(Part { range, bytes });
    }

    /// Forgets what was written, and keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.base = 0;
        self.parts.clear();
        self.shared.clear();
        self.bounds = Bounds::default();
        self.set_watch();
    }

    /// Empties the buffer and gives back what an exceptionally large reply took. True when that was much.
    pub fn recycle(&mut self) -> bool {
        let large = self.buf.capacity() > MOST_KEPT || !self.parts.is_empty();
        self.clear();
        self.buf.shrink_to(MOST_KEPT);
        large
    }

    /// Bytes that the buffer takes.
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// All that was written, if [it is in one piece](Self::is_plain).
    pub fn bytes(&self) -> &[u8] {
        debug_assert!(self.is_plain(), "the rest would be missing");
        &self.buf
    }

    /// The text of an error, if that is how it begins.
    pub fn as_error(&self) -> Option<&[u8]> {
        self.parts.first().map_or(&self.buf, |part| &part.bytes).strip_prefix(b"-")
    }

    /// Whether every byte is in the buffer.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.shared.is_empty() && self.parts.is_empty()
    }

    /// Takes out the pieces between two positions in sending order. What was put away is gone then, if it lies between
    /// them as a whole; the rest is copied.
    pub fn take(&mut self, from: usize, to: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = from;
        let first = self.shared.partition_point(|(pos, _)| *pos <= from);
        for i in first..self.shared.len() {
            let (pos, value) = &self.shared[i];
            if *pos > to {
                break;
            }
            let (pos, value) = (*pos, Arc::clone(value));
            self.take_bytes(at, pos, &mut pieces);
            pieces.push(Piece::Shared(value));
            at = pos;
        }
        self.take_bytes(at, to, &mut pieces);
        pieces
    }

    fn take_bytes(&mut self, from: usize, to: usize, pieces: &mut Vec<Piece>) {
        let first = self.parts.partition_point(|part| part.range.end <= from);
        for Part { range, bytes } in &mut self.parts[first..] {
            if range.start >= to {
                return;
            }
            pieces.push(Piece::Owned(if from <= range.start && range.end <= to {
                std::mem::take(bytes)
            } else {
                bytes[from.max(range.start) - range.start..to.min(range.end) - range.start].to_vec()
            }));
        }
        let from = from.max(self.base);
        if from < to {
            pieces.push(Piece::Owned(self.buf[from - self.base..to - self.base].to_vec()));
        }
    }

    /// Copies values that are shared in between, so that [`bytes`](Self::bytes) are all.
    pub fn flatten(&mut self) {
        if !self.is_plain() {
            self.buf = std::mem::take(self).into_bytes();
        }
    }

    /// Everything as one owned byte string.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.is_plain() {
            return self.buf;
        }
        let shared: usize = self.shared.iter().map(|(_, value)| value.len()).sum();
        let mut out = Vec::with_capacity(self.len() + shared);
        // Each piece is freed as soon as it is copied.
        for piece in self.take(0, self.len()) {
            out.extend_from_slice(piece.bytes());
        }
        out
    }

    /// Bytes that are already in protocol form.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        self.stay_in_bounds();
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.buf.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; `text` has no line ends.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.buf.push(b'+');
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.extend_from_slice(b"\r\n");
    }

    /// A line of any bytes; line ends inside become spaces, as the protocol demands.
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.buf.push(kind);
        self.buf.extend(text.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
        self.buf.extend_from_slice(b"\r\n");
    }

    /// As [`simple`](Self::simple), for any bytes.
    pub fn simple_bytes(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// As [`error`](Self::error), for any bytes.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.line(b'-', text);
    }

    /// An integer of any length; in RESP2 a bulk string.
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.resp3 { self.line(b'(', digits) } else { self.bulk(digits) }
    }

    /// An error; `text` starts with its code. Line ends inside become spaces, as the protocol demands.
    #[cold]
    pub fn error(&mut self, text: &str) {
        self.line(b'-', &lossless::bytes(text.trim_end_matches(['\r', '\n'])));
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, n: i64) {
        self.head(b':', n);
    }

    /// An integer whose digits are known.
    #[inline]
    pub fn int_of(&mut self, digits: &str) {
        self.buf.reserve(digits.len() + 3);
        self.buf.push(b':');
        self.buf.extend_from_slice(digits.as_bytes());
        self.buf.extend_from_slice(b"\r\n");
        self.stay_in_bounds();
    }

    /// A bulk string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if bytes.len() > PART && bytes.len() <= self.room() {
            self.begin_part(bytes.len() + 64);
        }
        frame::bulk(&mut self.buf, bytes);
        self.stay_in_bounds();
    }

    /// A bulk string of text.
    pub fn bulk_str(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// An integer as a bulk string.
    pub fn bulk_int(&mut self, n: i64) {
        self.bulk(itoa::Buffer::new().format(n).as_bytes());
    }

    /// A large value, sent by reference when that is worth it.
    pub fn bulk_shared(&mut self, value: &Arc<Vec<u8>>) {
        if value.len() < SHARE_FROM {
            return self.bulk(value);
        }
        self.head(b'$', value.len() as i64);
        self.shared.push((self.len(), Arc::clone(value)));
        self.bounds.until -= value.len() as i64;
        self.set_watch();
        self.buf.extend_from_slice(b"\r\n");
        self.stay_in_bounds();
    }

    /// The missing bulk string.
    #[inline]
    pub fn null(&mut self) {
        self.buf.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The missing array.
    pub fn null_array(&mut self) {
        self.buf.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The head of an array; `len` elements follow.
    pub fn array(&mut self, len: usize) {
        self.head(b'*', len as i64);
    }

    /// A map of `pairs` pairs; in RESP2 an array of twice as many elements.
    pub fn map(&mut self, pairs: usize) {
        if self.resp3 {
            self.head(b'%', pairs as i64);
        } else {
            self.head(b'*', pairs as i64 * 2);
        }
    }

    /// A set; in RESP2 an array.
    pub fn set(&mut self, len: usize) {
        self.head(if self.resp3 { b'~' } else { b'*' }, len as i64);
    }

    /// An out-of-band message; in RESP2 an array.
    pub fn push(&mut self, len: usize) {
        self.head(if self.resp3 { b'>' } else { b'*' }, len as i64);
    }

    /// A double; in RESP2 a bulk string of the same text.
    pub fn double(&mut self, x: f64) {
        if let Some(n) = as_integer(x) {
            return if self.resp3 { self.head(b',', n) } else { self.bulk_int(n) };
        }
        let text = format_f64(x);
        if self.resp3 {
            self.buf.push(b',');
            self.buf.extend_from_slice(text.as_bytes());
            self.buf.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// A boolean; in RESP2 the integers 1 and 0.
    pub fn bool(&mut self, x: bool) {
        if self.resp3 {
            self.buf.extend_from_slice(if x { b"#t\r\n" } else { b"#f\r\n" });
        } else {
            self.int(i64::from(x));
        }
    }

    /// Text for people; in RESP2 a bulk string.
    pub fn verbatim(&mut self, format: &str, text: &str) {
        debug_assert_eq!(format.len(), 3, "a verbatim format has three letters");
        self.verbatim_bytes(format.as_bytes(), text.as_bytes());
    }

    /// As [`verbatim`](Self::verbatim), for any bytes. A format is cut or filled up to three letters.
    pub fn verbatim_bytes(&mut self, format: &[u8], text: &[u8]) {
        if self.resp3 {
            self.head(b'=', text.len() as i64 + 4);
            self.buf.extend(format.iter().copied().chain([b' '; 3]).take(3));
            self.buf.push(b':');
            self.buf.extend_from_slice(text);
            self.buf.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// Moves all of `other` behind what is here.
    pub fn append(&mut self, other: Reply) {
        let base = self.len();
        if !other.parts.is_empty() {
            self.put_away(Vec::new());
            self.parts.extend(
                other
                    .parts
                    .into_iter()
                    .map(|Part { range, bytes }| Part { range: base + range.start..base + range.end, bytes }),
            );
            self.base += other.base;
        }
        self.buf.extend_from_slice(&other.buf);
        self.bounds.until -= other.shared.iter().map(|(_, v)| v.len() as i64).sum::<i64>();
        self.shared.extend(other.shared.into_iter().map(|(at, v)| (at + base, v)));
        self.set_watch();
        self.stay_in_bounds();
    }

    /// A type byte, a number, a line end. Lengths and small integers are nearly always one or two digits.
    #[inline(always)]
    fn head(&mut self, kind: u8, n: i64) {
        frame::head(&mut self.buf, kind, n);
        self.stay_in_bounds();
    }
}

/// One piece of a reply on its way to the socket.
#[derive(Debug)]
pub enum Piece {
    /// Bytes that were written.
    Owned(Vec<u8>),
    /// A large value, sent from where it is stored.
    Shared(Arc<Vec<u8>>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_values_keep_their_place() {
        let big = Arc::new(vec![b'x'; SHARE_FROM]);
        let mut reply = Reply::new();
        reply.ok();
        let mark = reply.len();
        reply.array(2);
        reply.bulk_shared(&big);
        reply.int(7);
        let mut flat = vec![];
        for piece in reply.take(mark, reply.len()) {
            flat.extend_from_slice(piece.bytes());
        }
        assert_eq!(flat, [&b"*2\r\n$16384\r\n"[..], &big, b"\r\n:7\r\n"].concat());
        reply.truncate(mark);
        assert_eq!(reply.into_bytes(), b"+OK\r\n");
    }

    #[test]
    fn a_reply_that_is_too_long_is_not_kept() {
        let big = Arc::new(vec![b'x'; SHARE_FROM]);
        let mut reply = Reply::new();
        reply.ok();
        for shared in [false, true] {
            reply.begin(100_000);
            let mut most = 0;
            for _ in 0..100 {
                assert!(reply.room() <= 100_000);
                if shared {
                    reply.bulk_shared(&big);
                } else {
                    reply.bulk(&big[..1000]);
                }
                most = most.max(reply.len() + reply.shared.iter().map(|(_, v)| v.len()).sum::<usize>());
            }
            assert_eq!(reply.is_cut_off(), shared || 100 * 1008 > 100_000);
            assert!(most <= 100_005, "{most} bytes were kept");
            reply.cut_off();
            assert_eq!((reply.len(), reply.is_plain(), reply.room()), (5, true, 0));
        }
        // What is truncated does not count, and the next client has a limit of its own.
        reply.begin(SHARE_FROM + 100);
        for _ in 0..10 {
            reply.bulk_shared(&big);
            reply.truncate(5);
        }
        assert!(!reply.is_cut_off());
        assert_eq!(reply.into_bytes(), b"+OK\r\n");
    }

    /// The replies of two clients, the second long: it leaves in parts that nobody copies, and what a mark took back is
    /// not among them.
    #[test]
    fn a_long_reply_is_put_away_in_parts() {
        let big = Arc::new(vec![b'x'; SHARE_FROM]);
        let mut reply = Reply::new();
        reply.simple(&"o".repeat(1000));
        let begin = reply.len();
        let mut expected = Vec::new();
        reply.begin(usize::MAX);
        for n in 0..200_000 {
            reply.int(n);
            expected.extend_from_slice(format!(":{n}\r\n").as_bytes());
            if n == 100_000 {
                reply.bulk_shared(&big);
                expected.extend_from_slice(&[&b"$16384\r\n"[..], &big, b"\r\n"].concat());
            }
            if n % 50_000 == 0 {
                let mark = reply.len();
                (0..60_000).for_each(|n| reply.int(n));
                reply.bulk_shared(&big);
                reply.truncate(mark);
            }
        }
        assert!(reply.parts.len() > 3 && reply.buf.capacity() < 2 * PART);
        let long = vec![b'y'; 4 * PART];
        reply.bulk(&long);
        reply.int(7);
        expected.extend_from_slice(&[&b"$1048576\r\n"[..], &long, b"\r\n:7\r\n"].concat());
        let mut all = Reply::new();
        all.ok();
        all.append(reply);
        let (begin, end) = (begin + 5, all.len());
        let held: Vec<*const u8> = all.parts.iter().map(|part| part.bytes.as_ptr()).collect();
        let pieces = all.take(begin, end);
        let moved = pieces.iter().filter(|piece| held.contains(&piece.bytes().as_ptr())).count();
        assert!(moved >= 3 && moved + 4 >= pieces.len(), "{moved} of {} were not copied", pieces.len());
        assert!(pieces.iter().map(Piece::bytes).collect::<Vec<_>>().concat() == expected);
        let others = all.take(0, begin);
        assert_eq!(others.iter().map(|piece| piece.bytes().len()).sum::<usize>(), begin);
    }

    #[test]
    fn resp3_types_fall_back_in_resp2() {
        let render = |resp3| {
            let mut r = Reply::new();
            r.set_resp3(resp3);
            r.null();
            r.map(1);
            r.double(1.5);
            r.bool(true);
            String::from_utf8(r.into_bytes()).unwrap()
        };
        assert_eq!(render(false), "$-1\r\n*2\r\n$3\r\n1.5\r\n:1\r\n");
        assert_eq!(render(true), "_\r\n%1\r\n,1.5\r\n#t\r\n");
    }
}
