//! Replies in RESP2 or RESP3, appended to one buffer.
//! Source: "Redis serialization protocol specification"; the RESP2 forms of RESP3 types follow the server's `addReply*`.

use std::sync::Arc;

use super::frame;
use crate::base::lossless;
use crate::base::num::{as_integer, format_f64};

/// A reply or a run of replies under construction.
///
/// Small parts are copied into one buffer. Large values are kept as shared references beside
/// it, so that they reach the socket without a copy.
#[derive(Debug, Default)]
pub struct Reply {
    buf: Vec<u8>,
    /// Shared values and the buffer position that each one stands at, ascending.
    shared: Vec<(usize, Arc<Vec<u8>>)>,
    resp3: bool,
    bounds: Bounds,
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

impl Reply {
    /// An empty buffer that speaks RESP2.
    pub fn new() -> Self {
        Self::default()
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

    /// Bytes in the buffer, shared values not counted: a position for [`Reply::truncate`] and [`Reply::segment`].
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written since the last [`clear`](Self::clear).
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The bytes written from `mark` on are taken back (CLIENT REPLY OFF, a failed handler).
    pub fn truncate(&mut self, mark: usize) {
        self.buf.truncate(mark);
        while self.shared.last().is_some_and(|(at, _)| *at > mark) {
            if let Some((_, value)) = self.shared.pop() {
                self.bounds.until = self.bounds.until.saturating_add(value.len() as i64);
            }
        }
    }

    /// What comes from here on is for one client, and may be as long as `most` bytes.
    #[inline]
    pub fn begin(&mut self, most: usize) {
        let from = self.buf.len();
        let until = i64::try_from(from.saturating_add(most)).unwrap_or(i64::MAX);
        self.bounds = Bounds { from, until, passed: false };
    }

    /// Whether it was longer: then none of it is there any more.
    #[inline]
    pub fn is_cut_off(&self) -> bool {
        self.bounds.passed
    }

    /// Bytes that it may still grow by.
    pub fn room(&self) -> usize {
        if self.bounds.passed { 0 } else { (self.bounds.until - self.buf.len() as i64).max(0) as usize }
    }

    /// Throws away what was written for the client, who will be closed.
    #[cold]
    pub fn cut_off(&mut self) {
        self.bounds.passed = true;
        self.truncate(self.bounds.from);
    }

    #[inline(always)]
    fn stay_in_bounds(&mut self) {
        if self.buf.len() as i64 > self.bounds.until {
            self.cut_off();
        }
    }

    /// Forgets what was written, and keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.shared.clear();
        self.bounds = Bounds::default();
    }

    /// Empties the buffer and gives back what an exceptionally large reply took. True when that was much.
    pub fn recycle(&mut self) -> bool {
        self.clear();
        let large = self.buf.capacity() > MOST_KEPT;
        self.buf.shrink_to(MOST_KEPT);
        large
    }

    /// Bytes that the buffer takes.
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// What was written, without the values that are shared.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Whether every byte is in the buffer.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.shared.is_empty()
    }

    /// The pieces between two buffer positions in sending order.
    pub fn segment(&self, from: usize, to: usize) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        let mut at = from;
        for (pos, value) in &self.shared {
            if *pos > from && *pos <= to {
                pieces.push(Piece::Bytes(&self.buf[at..*pos]));
                pieces.push(Piece::Shared(value));
                at = *pos;
            }
        }
        pieces.push(Piece::Bytes(&self.buf[at..to]));
        pieces.retain(|p| !matches!(p, Piece::Bytes(b) if b.is_empty()));
        pieces
    }

    /// Copies values that are shared in between, so that [`bytes`](Self::bytes) are all.
    pub fn flatten(&mut self) {
        if !self.shared.is_empty() {
            self.buf = std::mem::take(self).into_bytes();
        }
    }

    /// Everything as one owned byte string.
    pub fn into_bytes(self) -> Vec<u8> {
        if self.shared.is_empty() {
            return self.buf;
        }
        let mut out = Vec::new();
        for piece in self.segment(0, self.buf.len()) {
            match piece {
                Piece::Bytes(b) => out.extend_from_slice(b),
                Piece::Shared(v) => out.extend_from_slice(v),
            }
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
        self.shared.push((self.buf.len(), Arc::clone(value)));
        self.bounds.until -= value.len() as i64;
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
        let base = self.buf.len();
        self.buf.extend_from_slice(&other.buf);
        self.bounds.until -= other.shared.iter().map(|(_, v)| v.len() as i64).sum::<i64>();
        self.shared.extend(other.shared.into_iter().map(|(at, v)| (at + base, v)));
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
pub enum Piece<'a> {
    /// Bytes of the buffer.
    Bytes(&'a [u8]),
    /// A large value, sent from where it is stored.
    Shared(&'a Arc<Vec<u8>>),
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
        for piece in reply.segment(mark, reply.len()) {
            flat.extend_from_slice(match &piece {
                Piece::Bytes(b) => b,
                Piece::Shared(v) => v,
            });
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
