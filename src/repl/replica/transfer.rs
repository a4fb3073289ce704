//! The RDB of a full synchronisation on the wire: `$<length>` and so many bytes, or `$EOF:<mark>`, bytes, and the
//! mark of forty random characters again.

use memchr::memmem;

use super::{Action, Position, log, shown};
use crate::repl::Level;

const MARK: usize = 40;
/// No head of a transfer is longer.
const MAX_HEAD: usize = 4096;

/// A transfer under way.
pub(super) struct Transfer {
    /// What we hold once it is loaded; `None` after SYNC.
    position: Option<Position>,
    body: Body,
    /// Bytes of the RDB so far.
    pub(super) read: u64,
    /// Bytes of the RDB as a whole, if the primary told.
    pub(super) total: Option<u64>,
}

enum Body {
    /// The line before the RDB, as far as it has arrived.
    Head(Vec<u8>),
    Counted {
        left: u64,
    },
    /// `tail` are the last bytes that arrived, which may be the beginning of the mark.
    Marked {
        mark: [u8; MARK],
        tail: Vec<u8>,
    },
}

/// What [`Transfer::feed`] made of its input.
pub(super) struct Fed<'a> {
    pub(super) rest: &'a [u8],
    /// The RDB is complete; `rest` follows it.
    pub(super) whole: bool,
}

impl Transfer {
    pub(super) fn new(position: Option<Position>) -> Self {
        Self { position, body: Body::Head(Vec::new()), read: 0, total: None }
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Takes bytes in. An error is the line to log before the link is given up.
    pub(super) fn feed<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<Action>) -> Result<Fed<'a>, String> {
        match &mut self.body {
            Body::Head(line) => {
                let end = memchr::memchr(b'\n', bytes);
                let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                if line.len() + part.len() > MAX_HEAD {
                    return Err("Bad protocol from MASTER, the head of the transfer is too long".into());
                }
                line.extend_from_slice(part);
                if end.is_none() {
                    return Ok(Fed { rest: &[], whole: false });
                }
                let line = std::mem::take(line);
                self.head(line.trim_ascii_end(), out)?;
                let whole = matches!(self.body, Body::Counted { left: 0 });
                Ok(Fed { rest: &rest[1..], whole })
            }
            Body::Counted { left } => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let (part, rest) = bytes.split_at(n);
                *left -= n as u64;
                let whole = *left == 0;
                self.pass_on(part.to_vec(), out);
                Ok(Fed { rest, whole })
            }
            Body::Marked { .. } => Ok(self.marked(bytes, out)),
        }
    }

    /// The line before the RDB. Empty ones are signs of life.
    fn head(&mut self, line: &[u8], out: &mut Vec<Action>) -> Result<(), String> {
        let text = shown(line);
        let announced = match line {
            [] => return Ok(()),
            [b'-', error @ ..] => {
                return Err(format!("MASTER aborted replication with an error: {}", shown(error)));
            }
            [b'$', announced @ ..] => announced,
            _ => {
                return Err(format!(
                    "Bad protocol from MASTER, the first byte is not '$' (we received '{text}'), are you sure \
                     the host and port are right?"
                ));
            }
        };
        if let Some(mark) = announced.strip_prefix(b"EOF:").and_then(|m| <[u8; MARK]>::try_from(m).ok()) {
            let text = format!(
                "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF {}",
                mark.escape_ascii()
            );
            log(out, Level::Notice, text);
            self.body = Body::Marked { mark, tail: Vec::new() };
        } else if let Some(length) = crate::base::num::parse_u64(announced) {
            let text = format!("MASTER <-> REPLICA sync: receiving {length} bytes from master to parser");
            log(out, Level::Notice, text);
            self.total = Some(length);
            self.body = Body::Counted { left: length };
        } else {
            return Err(format!("Bad protocol from MASTER, '{text}' is no length of a transfer"));
        }
        out.push(Action::FullSync { position: self.position, length: self.total });
        Ok(())
    }

    fn marked<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<Action>) -> Fed<'a> {
        let Body::Marked { mark, tail } = &mut self.body else { return Fed { rest: bytes, whole: false } };
        let known = tail.len();
        let mut data = std::mem::take(tail);
        data.extend_from_slice(bytes);
        if let Some(at) = memmem::find(&data, &mark[..]) {
            let rest = &bytes[at + MARK - known..];
            data.truncate(at);
            self.pass_on(data, out);
            return Fed { rest, whole: true };
        }
        *tail = data.split_off(data.len().saturating_sub(MARK - 1));
        self.pass_on(data, out);
        Fed { rest: &[], whole: false }
    }

    fn pass_on(&mut self, rdb: Vec<u8>, out: &mut Vec<Action>) {
        if !rdb.is_empty() {
            self.read += rdb.len() as u64;
            out.push(Action::Rdb(rdb));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `size`; returns the RDB and what followed it.
    fn received(wire: &[u8], size: usize) -> (Vec<u8>, Vec<u8>) {
        let mut transfer = Transfer::new(None);
        let (mut out, mut pieces) = (vec![], wire.chunks(size));
        let mut after: Option<Vec<u8>> = None;
        for piece in pieces.by_ref() {
            let mut piece = piece;
            while after.is_none() && !piece.is_empty() {
                let fed = transfer.feed(piece, &mut out).unwrap();
                piece = fed.rest;
                if fed.whole {
                    after = Some(vec![]);
                }
            }
            if let Some(after) = &mut after {
                after.extend_from_slice(piece);
            }
        }
        let rdb = out.iter().filter_map(|a| if let Action::Rdb(b) = a { Some(&b[..]) } else { None });
        (rdb.collect::<Vec<_>>().concat(), after.expect("the transfer ends"))
    }

    #[test]
    fn both_framings_in_pieces_of_any_size() {
        let mark = b"0123456789012345678901234567890123456789";
        // Data that look like the beginning of the mark.
        let rdb = [b"REDIS0010 ".as_slice(), &mark[..39], b"x", &mark[..20], &mark[..1]].concat();
        let marked = [b"\n\n$EOF:".as_slice(), mark, b"\r\n", &rdb, mark, b"*1\r\n"].concat();
        let counted = [format!("\n${}\r\n", rdb.len()).as_bytes(), &rdb, b"*1\r\n"].concat();
        for size in 1..=marked.len() {
            assert_eq!(
                received(&marked, size),
                (rdb.clone(), b"*1\r\n".to_vec()),
                "marked, pieces of {size}"
            );
            assert_eq!(
                received(&counted, size),
                (rdb.clone(), b"*1\r\n".to_vec()),
                "counted, pieces of {size}"
            );
        }
    }

    #[test]
    fn a_bad_head_is_an_error() {
        for (head, want) in [
            (&b"-ERR no\r\n"[..], "MASTER aborted replication with an error: ERR no"),
            (
                b"*1\r\n",
                "Bad protocol from MASTER, the first byte is not '$' (we received '*1'), are you sure",
            ),
            (b"$-1\r\n", "Bad protocol from MASTER, '$-1' is no length of a transfer"),
            (b"$EOF:short\r\n", "Bad protocol from MASTER, '$EOF:short' is no length of a transfer"),
            (&[b'$'; 5000], "Bad protocol from MASTER, the head of the transfer is too long"),
        ] {
            let Err(text) = Transfer::new(None).feed(head, &mut vec![]) else { panic!("{head:?}") };
            assert!(text.starts_with(want), "{text}");
        }
    }
}
