//! Replies, read back: what a server answers this node when it is a client itself, and what a command answered
//! a script. Both protocol versions.
//! Source: "Redis serialization protocol specification".

use memchr::memmem;

use crate::base::num::{parse_f64, parse_i64};

/// A reply may nest so deep. Nothing that a server sends comes near.
const DEPTH_MAX: usize = 128;

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR ...`, without the sign
    Error(Vec<u8>),
    /// `:1`
    Int(i64),
    /// `$2`, then the bytes
    Bulk(Vec<u8>),
    /// `$-1`, `*-1`, `_`
    Null,
    /// `*2`, then the elements
    Array(Vec<Value>),
    /// `~2`, then the elements
    Set(Vec<Value>),
    /// `%2`, then keys and values by turns
    Map(Vec<(Value, Value)>),
    /// `>2`, then the elements; no reply to a command
    Push(Vec<Value>),
    /// `,1.5`
    Double(f64),
    /// The digits.
    BigNumber(Vec<u8>),
    /// `#t`
    Bool(bool),
    /// `=6`, then the format, a colon and the text
    Verbatim {
        /// Three letters.
        format: Vec<u8>,
        /// Without the format.
        text: Vec<u8>,
    },
}

impl Value {
    /// The text of a string of any kind.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
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

    /// The number of an integer.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }
}

/// These bytes are no reply, whatever follows: a connection that they came over is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error in a reply: {0}")]
pub struct DecodeError(&'static str);

/// The reply that `input` begins with and how many bytes it takes; `None` while it is incomplete. Takes memory for
/// what is there, not for what a length promises.
pub fn decode(input: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
    let mut reader = Reader { input, at: 0 };
    Ok(reader.value(0)?.map(|value| (value, reader.at)))
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

type Decoded<T> = Result<Option<T>, DecodeError>;

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.input[self.at..];
        let end = memmem::find(rest, b"\r\n")?;
        self.at += end + 2;
        Some(&rest[..end])
    }

    /// As many bytes, and the end of the line behind them.
    fn bytes(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let end = self.at.checked_add(len).and_then(|end| end.checked_add(2));
        let end = end.ok_or(DecodeError("a bad length"))?;
        let Some(bytes) = self.input.get(self.at..end) else { return Ok(None) };
        let Some(bytes) = bytes.strip_suffix(b"\r\n") else {
            return Err(DecodeError("a text without its end"));
        };
        self.at = end;
        Ok(Some(bytes))
    }

    fn values(&mut self, count: usize, depth: usize) -> Decoded<Vec<Value>> {
        let mut values = Vec::with_capacity(count.min((self.input.len() - self.at) / 3));
        for _ in 0..count {
            let Some(value) = self.value(depth + 1)? else { return Ok(None) };
            values.push(value);
        }
        Ok(Some(values))
    }

    fn value(&mut self, depth: usize) -> Decoded<Value> {
        if depth > DEPTH_MAX {
            return Err(DecodeError("too deep"));
        }
        let Some(line) = self.line() else { return Ok(None) };
        let Some((kind, head)) = line.split_first() else { return Err(DecodeError("an empty line")) };
        let value = match kind {
            b'+' => Value::Simple(head.to_vec()),
            b'-' => Value::Error(head.to_vec()),
            b':' => Value::Int(parse_i64(head).ok_or(DecodeError("not an integer"))?),
            b',' => Value::Double(parse_f64(head).unwrap_or(f64::NAN)),
            b'(' => Value::BigNumber(head.to_vec()),
            b'#' => Value::Bool(head == b"t"),
            b'_' => Value::Null,
            b'$' | b'=' | b'!' => return self.text(*kind, head),
            b'*' | b'~' | b'>' | b'%' | b'|' => return self.aggregate(*kind, head, depth),
            _ => return Err(DecodeError("unknown type")),
        };
        Ok(Some(value))
    }

    fn text(&mut self, kind: u8, head: &[u8]) -> Decoded<Value> {
        let Some(len) = length(head)? else { return Ok(Some(Value::Null)) };
        let Some(bytes) = self.bytes(len)? else { return Ok(None) };
        Ok(Some(match kind {
            b'!' => Value::Error(bytes.to_vec()),
            // The format and a colon stand before verbatim text.
            b'=' if len < 4 => return Err(DecodeError("a text without its format")),
            b'=' => Value::Verbatim { format: bytes[..3].to_vec(), text: bytes[4..].to_vec() },
            _ => Value::Bulk(bytes.to_vec()),
        }))
    }

    fn aggregate(&mut self, kind: u8, head: &[u8], depth: usize) -> Decoded<Value> {
        let Some(mut count) = length(head)? else { return Ok(Some(Value::Null)) };
        if matches!(kind, b'%' | b'|') {
            count = count.checked_mul(2).ok_or(DecodeError("a bad length"))?;
        }
        let Some(values) = self.values(count, depth)? else { return Ok(None) };
        Ok(Some(match kind {
            b'>' => Value::Push(values),
            b'~' => Value::Set(values),
            b'%' => {
                let mut flat = values.into_iter();
                let mut pairs = Vec::with_capacity(count / 2);
                while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            // An attribute stands before the reply that it is about.
            b'|' => return self.value(depth + 1),
            _ => Value::Array(values),
        }))
    }
}

fn length(head: &[u8]) -> Decoded<usize> {
    match parse_i64(head) {
        Some(-1) => Ok(None),
        Some(n) if n >= 0 => Ok(Some(n as usize)),
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
            ("=8\r\ntxt:text\r\n", Value::Verbatim { format: b"txt".to_vec(), text: b"text".to_vec() }),
            ("~1\r\n:1\r\n", Value::Set(vec![Value::Int(1)])),
            ("|1\r\n+a\r\n+b\r\n:1\r\n", Value::Int(1)),
            ("!3\r\nERR\r\n", Value::Error("ERR".into())),
            ("(12\r\n", Value::BigNumber("12".into())),
            (",1.5\r\n", Value::Double(1.5)),
        ] {
            assert_eq!(decode(wire.as_bytes()), Ok(Some((want, wire.len()))), "{wire}");
            for cut in 0..wire.len() {
                assert_eq!(decode(&wire.as_bytes()[..cut]), Ok(None), "{wire} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for wire in ["\r\n", "x\r\n", ":a\r\n", "$-2\r\n", "$1\r\nabc\r\n", "=1\r\na\r\n"] {
            assert!(decode(wire.as_bytes()).is_err(), "{wire}");
        }
        assert!(decode("*1\r\n".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn nothing_is_believed_of_a_length_that_does_not_follow() {
        for wire in ["*999999999999\r\n:1\r\n", "$99999999999\r\nab\r\n", "%9223372036854775807\r\n"] {
            assert_eq!(decode(wire.as_bytes()), Ok(None), "{wire}");
        }
    }
}
