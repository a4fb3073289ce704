//! Replies, read back: what this node is answered when it is a client itself. Both protocol versions.
//! Source: "Redis serialization protocol specification".

use crate::base::num::parse_i64;

/// A reply may nest so deep. Nothing that a server sends us comes near.
const DEPTH_MAX: usize = 16;
/// Bytes that one text may have: as `proto-max-bulk-len` by default.
const BULK_MAX: i64 = 512 << 20;
/// Elements that one aggregate may have.
const ITEMS_MAX: i64 = 1 << 20;

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`, without the sign
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    /// `$-1`, `*-1`, `_`
    Null,
    /// Arrays and sets.
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Push(Vec<Value>),
    /// Doubles and big numbers, as they were written.
    Number(String),
    Bool(bool),
}

impl Value {
    /// The text of a string of any kind.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The elements of an array or of a push.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) | Self::Push(items) => items,
            _ => &[],
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }
}

/// The peer speaks something else: the connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error in a reply: {0}")]
pub struct DecodeError(&'static str);

/// The reply that `input` begins with and how many bytes it takes; `None` while it is incomplete.
pub fn decode(input: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
    let mut reader = Reader { input, at: 0 };
    Ok(reader.value(0)?.map(|value| (value, reader.at)))
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.input[self.at..];
        let end = memchr::memmem::find(rest, b"\r\n")?;
        self.at += end + 2;
        Some(&rest[..end])
    }

    fn value(&mut self, depth: usize) -> Result<Option<Value>, DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError("too deep"));
        }
        let Some(line) = self.line() else { return Ok(None) };
        let Some((kind, head)) = line.split_first() else { return Err(DecodeError("an empty line")) };
        let text = || String::from_utf8_lossy(head).into_owned();
        Ok(Some(match kind {
            b'+' => Value::Simple(text()),
            b'-' => Value::Error(text()),
            b':' => Value::Int(parse_i64(head).ok_or(DecodeError("not an integer"))?),
            b',' | b'(' => Value::Number(text()),
            b'#' => Value::Bool(head == b"t"),
            b'_' => Value::Null,
            b'$' | b'=' | b'!' => match length(head, BULK_MAX)? {
                None => Value::Null,
                Some(len) => {
                    let Some(bytes) = self.input.get(self.at..self.at + len + 2) else { return Ok(None) };
                    if &bytes[len..] != b"\r\n" {
                        return Err(DecodeError("a text without its end"));
                    }
                    self.at += len + 2;
                    let bytes = &bytes[..len];
                    match kind {
                        b'!' => Value::Error(String::from_utf8_lossy(bytes).into_owned()),
                        // The format and a colon stand before verbatim text.
                        b'=' => Value::Bulk(bytes.get(4..).unwrap_or_default().to_vec()),
                        _ => Value::Bulk(bytes.to_vec()),
                    }
                }
            },
            b'*' | b'~' | b'>' | b'%' => {
                let Some(count) = length(head, ITEMS_MAX)? else { return Ok(Some(Value::Null)) };
                let mut items = Vec::new();
                for _ in 0..if *kind == b'%' { 2 * count } else { count } {
                    let Some(item) = self.value(depth + 1)? else { return Ok(None) };
                    items.push(item);
                }
                match kind {
                    b'>' => Value::Push(items),
                    b'%' => {
                        let mut flat = items.into_iter();
                        let mut pairs = Vec::with_capacity(count);
                        while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                            pairs.push((key, value));
                        }
                        Value::Map(pairs)
                    }
                    _ => Value::Array(items),
                }
            }
            _ => return Err(DecodeError("unknown type")),
        }))
    }
}

fn length(head: &[u8], most: i64) -> Result<Option<usize>, DecodeError> {
    match parse_i64(head) {
        Some(-1) => Ok(None),
        Some(n) if (0..=most).contains(&n) => Ok(Some(n as usize)),
        _ => Err(DecodeError("a bad length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_both_protocols() {
        let bulk = |text: &str| Value::Bulk(text.into());
        for (wire, want) in [
            ("+OK\r\n", Value::Simple("OK".into())),
            ("-ERR no\r\n", Value::Error("ERR no".into())),
            (":-7\r\n", Value::Int(-7)),
            ("$3\r\na\r\n\r\n", bulk("a\r\n")),
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("_\r\n", Value::Null),
            (
                "*2\r\n:1\r\n*1\r\n+x\r\n",
                Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Simple("x".into())])]),
            ),
            ("%1\r\n+k\r\n#t\r\n", Value::Map(vec![(Value::Simple("k".into()), Value::Bool(true))])),
            (">1\r\n$1\r\nm\r\n", Value::Push(vec![bulk("m")])),
            ("=8\r\ntxt:text\r\n", bulk("text")),
            (",1.5\r\n", Value::Number("1.5".into())),
        ] {
            assert_eq!(decode(wire.as_bytes()), Ok(Some((want, wire.len()))), "{wire}");
            for cut in 0..wire.len() {
                assert_eq!(decode(&wire.as_bytes()[..cut]), Ok(None), "{wire} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wire in
            ["\r\n", "x\r\n", ":a\r\n", "$-2\r\n", "$99999999999\r\n", "*9999999\r\n", "$1\r\nabc\r\n"]
        {
            assert!(decode(wire.as_bytes()).is_err(), "{wire}");
        }
        assert!(decode("*1\r\n".repeat(100).as_bytes()).is_err());
    }
}
