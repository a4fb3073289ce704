//! Replies read back: what a command answered, as a value.
//! Source: "Redis serialization protocol specification".

use memchr::memchr;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Double(f64),
    Bool(bool),
    BigNumber(Vec<u8>),
    Verbatim { format: Vec<u8>, text: Vec<u8> },
}

/// How deep replies may be nested.
const DEPTH: usize = 128;

/// Reads one reply at the begin of `input`, and says how long it is. `None`: it is not complete, or none.
pub fn read(input: &[u8]) -> Option<(Value, usize)> {
    let mut reader = Reader { input, at: 0 };
    let value = reader.value(0)?;
    Some((value, reader.at))
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.input[self.at..];
        let end = memchr(b'\r', rest)?;
        (rest.get(end + 1) == Some(&b'\n')).then(|| self.at += end + 2)?;
        Some(&rest[..end])
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let all = self.input.get(self.at..self.at.checked_add(len)?.checked_add(2)?)?;
        self.at += len + 2;
        all.ends_with(b"\r\n").then(|| &all[..len])
    }

    /// As many values; `None` where fewer follow.
    fn values(&mut self, count: usize, depth: usize) -> Option<Vec<Value>> {
        let mut values = Vec::with_capacity(count.min(self.input.len() - self.at));
        for _ in 0..count {
            values.push(self.value(depth + 1)?);
        }
        Some(values)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        let kind = *self.input.get(self.at)?;
        self.at += 1;
        let line = self.line()?;
        let number = || crate::base::num::parse_i64(line);
        let count = || usize::try_from(number()?).ok();
        Some(match kind {
            b'+' => Value::Simple(line.to_vec()),
            b'-' => Value::Error(line.to_vec()),
            b':' => Value::Int(number()?),
            b'$' | b'*' if number() == Some(-1) => Value::Null,
            b'_' => Value::Null,
            b'$' => Value::Bulk(self.bytes(count()?)?.to_vec()),
            b'*' | b'>' => Value::Array(self.values(count()?, depth)?),
            b'~' => Value::Set(self.values(count()?, depth)?),
            b'%' => {
                let mut flat = self.values(count()?.checked_mul(2)?, depth)?.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            // An attribute goes before the reply that it is about.
            b'|' => {
                self.values(count()?.checked_mul(2)?, depth)?;
                self.value(depth + 1)?
            }
            b',' => Value::Double(crate::base::num::parse_f64(line).unwrap_or(f64::NAN)),
            b'#' => Value::Bool(line == b"t"),
            b'(' => Value::BigNumber(line.to_vec()),
            b'=' => {
                let text = self.bytes(count()?)?;
                Value::Verbatim { format: text.get(..3)?.to_vec(), text: text.get(4..)?.to_vec() }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_as_they_are_written() {
        let text = b"*3\r\n+OK\r\n%1\r\n$1\r\na\r\n,1.5\r\n=7\r\ntxt:abc\r\n";
        let (value, len) = read(text).expect("a whole reply");
        assert_eq!(len, text.len());
        let map = Value::Map(vec![(Value::Bulk(b"a".to_vec()), Value::Double(1.5))]);
        let verbatim = Value::Verbatim { format: b"txt".to_vec(), text: b"abc".to_vec() };
        assert_eq!(value, Value::Array(vec![Value::Simple(b"OK".to_vec()), map, verbatim]));
        for cut in 0..text.len() {
            assert_eq!(read(&text[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn nothing_is_believed_of_a_length_that_does_not_follow() {
        for text in ["*999999999999\r\n", "$99999999999\r\nab\r\n", "%9223372036854775807\r\n"] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read("*1\r\n".repeat(100_000).as_bytes()), None);
    }
}
