//! Lines of redis.conf as words, and words as text that reads back to the same words.
//! Source: the notes on quoting in the documentation of the configuration file, and a running server.

/// The words of a line. `None` when quotes are not balanced or a closing quote is not followed by
/// space.
///
/// In double quotes `\xHH`, `\n`, `\r`, `\t`, `\b`, `\a` stand for bytes and any other `\c` for `c`;
/// in single quotes only `\'` is special. Quotes may open inside a word: `a"b c"` is one word.
pub fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// The first word of `text`, which does not begin with space, and what follows it.
fn word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'"' | b'\'' => {
                rest = quoted(*byte, rest, &mut word)?;
                let ends = rest.first().is_none_or(|b| b.is_ascii_whitespace() || *b == 0);
                return ends.then_some((word, rest));
            }
            0 | b' ' | b'\n' | b'\r' | b'\t' => break,
            other => word.push(*other),
        }
    }
    Some((word, rest))
}

/// Reads up to the closing quote; returns what follows it.
fn quoted<'a>(quote: u8, text: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return None,
            [b, tail @ ..] if *b == quote => return Some(tail),
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => {
                word.push(b'\'');
                tail
            }
            [b'\\', b'x', high, low, tail @ ..] if quote == b'"' && hex(*high).and(hex(*low)).is_some() => {
                word.push(hex(*high)? << 4 | hex(*low)?);
                tail
            }
            [b'\\', escaped, tail @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [b, tail @ ..] => {
                word.push(*b);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|d| d as u8)
}

/// A word in double quotes, escaped so that [`words`] reads the same bytes back.
pub fn quote(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in word {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            8 => out.extend(b"\\b"),
            7 => out.extend(b"\\a"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out.push(b'"');
    out
}

/// Whether a line holds no directive: blank or a comment.
pub fn is_blank(line: &[u8]) -> bool {
    matches!(line.trim_ascii(), [] | [b'#', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<String>> {
        words(line.as_bytes())
            .map(|ws| ws.into_iter().map(|w| String::from_utf8_lossy(&w).into_owned()).collect())
    }

    #[test]
    fn quotes_and_escapes() {
        for (line, want) in [
            ("port 6379", vec!["port", "6379"]),
            ("  save\t60   1 ", vec!["save", "60", "1"]),
            (r#"requirepass "a b\"c\n\x41""#, vec!["requirepass", "a b\"c\nA"]),
            (r#"x "\xzz""#, vec!["x", "xzz"]),
            (r"x 'it\'s \n'", vec!["x", r"it's \n"]),
            (r#"save """#, vec!["save", ""]),
            (r#"foo"a b" c"#, vec!["fooa b", "c"]),
        ] {
            assert_eq!(split(line).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in ["save \"60", "dir 'abc", "dir 'a'b", "dir \"a\"b", "x \"\\", "x '\\'"] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    #[test]
    fn quoting_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(words(&quote(&all)), Some(vec![all]));
        assert_eq!(quote(b"a\x07\xff\""), br#""a\a\xff\"""#);
    }
}
