//! Requests: arrays of bulk strings, or one inline line of words.
//! Source: "Redis serialization protocol specification", sections on client requests and inline commands.

use crate::base::num::parse_i64;

/// A header line or an inline request may not be longer than this (Redis: 64 KiB).
pub const MAX_LINE: usize = 64 * 1024;

/// What a connection may declare before it is cut off.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `proto-max-bulk-len`, in bytes.
    pub max_bulk: usize,
    /// Connections that have not authenticated may send 10 arguments of 16 KiB at most.
    pub authenticated: bool,
}

/// What stands at the parse position.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A command; its arguments were appended to the caller's list and the position moved on.
    Command,
    /// An inline command with quoted words, unquoted. The position moved on.
    Inline(Vec<Vec<u8>>),
    /// A request of no arguments, which is skipped without a reply. The position moved on.
    Empty,
    /// Not complete: parsing again is useful once the buffer holds `need` bytes from the position on.
    Incomplete {
        /// Bytes, those that are there included.
        need: usize,
    },
}

/// Why a connection is answered with an error and closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No line end within the longest line that may announce a number of arguments.
    #[error("Protocol error: too big mbulk count string")]
    LongMultibulkLine,
    /// The number of arguments is no number, or too large.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// More arguments than a client may send that has not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// No line end within the longest line that may announce an argument.
    #[error("Protocol error: too big bulk count string")]
    LongBulkLine,
    /// An argument does not begin with its length but with this byte.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedDollar(u8),
    /// The length of an argument is no number, negative, or above `proto-max-bulk-len`.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// A longer argument than a client may send that has not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// No line end within the longest inline command.
    #[error("Protocol error: too big inline request")]
    LongInline,
    /// An inline command whose quotes do not close.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// Parses one request at `*pos`. The arguments are appended to `argv` as slices of `buf`; on
/// [`Parsed::Incomplete`] and on an error `argv` and `*pos` are as before.
#[inline(always)]
pub fn parse<'a>(
    buf: &'a [u8],
    pos: &mut usize,
    argv: &mut Vec<&'a [u8]>,
    limits: &Limits,
) -> Result<Parsed, ProtocolError> {
    let input = &buf[*pos..];
    match input.first() {
        None => Ok(Parsed::Incomplete { need: 1 }),
        Some(b'*') => {
            let before = argv.len();
            let result = multibulk(input, argv, limits);
            match result {
                Ok(Multibulk::Done(used)) => {
                    *pos += used;
                    Ok(if argv.len() == before { Parsed::Empty } else { Parsed::Command })
                }
                Ok(Multibulk::Need(need)) => {
                    argv.truncate(before);
                    Ok(Parsed::Incomplete { need })
                }
                Err(e) => {
                    argv.truncate(before);
                    Err(e)
                }
            }
        }
        Some(_) => inline(input, pos, argv),
    }
}

enum Multibulk {
    Done(usize),
    Need(usize),
}

/// A header line: its number and where the next line starts.
enum Line {
    Number(i64, usize),
    Bad,
    /// No line end yet.
    Open,
}

/// Reads `<digits>\r\n` at `at`. One or two digits, which is nearly every line, are read at once.
#[inline(always)]
fn number_line(input: &[u8], at: usize) -> Line {
    if let Some(&[a, b, c, _]) = input.get(at..).and_then(|rest| rest.first_chunk()) {
        let (tens, ones) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
        if tens <= 9 {
            if b == b'\r' {
                return Line::Number(i64::from(tens), at + 3);
            }
            if ones <= 9 && tens != 0 && c == b'\r' {
                return Line::Number(i64::from(tens * 10 + ones), at + 4);
            }
        }
    }
    number_line_slow(input, at)
}

fn number_line_slow(input: &[u8], at: usize) -> Line {
    let Some(len) = memchr::memchr(b'\r', &input[at..]) else { return Line::Open };
    if at + len + 1 >= input.len() {
        return Line::Open;
    }
    match parse_i64(&input[at..at + len]) {
        Some(n) => Line::Number(n, at + len + 2),
        None => Line::Bad,
    }
}

#[inline(always)]
fn multibulk<'a>(
    input: &'a [u8],
    argv: &mut Vec<&'a [u8]>,
    limits: &Limits,
) -> Result<Multibulk, ProtocolError> {
    let (count, mut at) = match number_line(input, 1) {
        Line::Number(n, next) => (n, next),
        Line::Bad => return Err(ProtocolError::MultibulkLength),
        Line::Open if input.len() > MAX_LINE => return Err(ProtocolError::LongMultibulkLine),
        Line::Open => return Ok(Multibulk::Need(input.len() + 1)),
    };
    if count > i64::from(i32::MAX) {
        return Err(ProtocolError::MultibulkLength);
    }
    if count > 10 && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulk);
    }
    for _ in 0..count.max(0) {
        match input.get(at) {
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedDollar(other)),
            None => return Ok(Multibulk::Need(at + 1)),
        }
        let (len, start) = match number_line(input, at + 1) {
            Line::Number(n, next) => (n, next),
            Line::Bad => return Err(ProtocolError::BulkLength),
            Line::Open if input.len() - at > MAX_LINE => return Err(ProtocolError::LongBulkLine),
            Line::Open => return Ok(Multibulk::Need(input.len() + 1)),
        };
        if len < 0 || len as u64 > limits.max_bulk as u64 {
            return Err(ProtocolError::BulkLength);
        }
        if len > 16384 && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        let end = start + len as usize;
        // The two bytes behind a bulk are skipped unseen, as Redis does.
        if end + 2 > input.len() {
            return Ok(Multibulk::Need(end + 2));
        }
        argv.push(&input[start..end]);
        at = end + 2;
    }
    Ok(Multibulk::Done(at))
}

/// How far an incomplete request was parsed, so that a request of very many arguments is not parsed from its start
/// again whenever a piece of it arrives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Where the next argument begins, from the start of the request.
    at: usize,
    /// Arguments to come; `None` before the first line was read.
    left: Option<i64>,
}

impl Progress {
    /// Bytes of the arguments that are there.
    pub fn parsed(&self) -> usize {
        self.at
    }

    /// Goes on as far as `input` reaches, which begins with the request. How many bytes are needed, at
    /// least; `None` when [`parse`] has something to say: all is there, or something is wrong.
    pub fn advance(&mut self, input: &[u8], limits: &Limits) -> Option<usize> {
        let mut left = match (self.left, input.first()) {
            (Some(left), _) => left,
            (None, Some(b'*')) => match number_line(input, 1) {
                Line::Number(n, next) => {
                    self.at = next;
                    n
                }
                Line::Bad | Line::Open => return None,
            },
            (None, _) => return None,
        };
        while left > 0 {
            match input.get(self.at) {
                Some(b'$') => {}
                Some(_) => return None,
                None => break,
            }
            match number_line(input, self.at + 1) {
                Line::Number(len, start) if (0..=limits.max_bulk as i64).contains(&len) => {
                    let end = start + len as usize + 2;
                    if end > input.len() {
                        self.left = Some(left);
                        return Some(end);
                    }
                    self.at = end;
                    left -= 1;
                }
                Line::Open if input.len() - self.at <= MAX_LINE => break,
                _ => return None,
            }
        }
        self.left = Some(left);
        (left > 0).then_some(input.len() + 1)
    }
}

fn inline<'a>(input: &'a [u8], pos: &mut usize, argv: &mut Vec<&'a [u8]>) -> Result<Parsed, ProtocolError> {
    // A NUL hides the line's end, as it does from `strchr`.
    let Some(end) = memchr::memchr2(b'\n', 0, input).filter(|at| input[*at] != 0) else {
        if input.len() > MAX_LINE {
            return Err(ProtocolError::LongInline);
        }
        return Ok(Parsed::Incomplete { need: input.len() + 1 });
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    if memchr::memchr2(b'"', b'\'', line).is_none() {
        let before = argv.len();
        argv.extend(line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()));
        *pos += end + 1;
        return Ok(if argv.len() == before { Parsed::Empty } else { Parsed::Command });
    }
    let words = split_words(line).ok_or(ProtocolError::UnbalancedQuotes)?;
    *pos += end + 1;
    Ok(if words.is_empty() { Parsed::Empty } else { Parsed::Inline(words) })
}

/// Splits a line into words: `"..."` with `\xHH`, `\n`, `\r`, `\t`, `\b`, `\a` escapes, `'...'`
/// with `\'`, anything else up to white space. `None` when quotes are not closed, or are closed
/// and not followed by white space.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(&first) = rest.first() {
        let (word, after) = match first {
            b'"' => double_quoted(&rest[1..])?,
            b'\'' => single_quoted(&rest[1..])?,
            _ => bare(rest)?,
        };
        if !after.is_empty() && !after[0].is_ascii_whitespace() {
            return None;
        }
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Some(words)
}

/// A word without quotes at its start; quotes inside begin a quoted part, as in `a"b c"`.
fn bare(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end = rest.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\''));
    let Some(end) = end else { return Some((rest.to_vec(), &[])) };
    let mut word = rest[..end].to_vec();
    let (tail, after) = match rest[end] {
        b'"' => double_quoted(&rest[end + 1..])?,
        b'\'' => single_quoted(&rest[end + 1..])?,
        _ => return Some((word, &rest[end..])),
    };
    word.extend(tail);
    Some((word, after))
}

fn double_quoted(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut i = 0;
    loop {
        match *rest.get(i)? {
            b'"' => return Some((word, &rest[i + 1..])),
            b'\\' => {
                let hex = |at: usize| rest.get(at).and_then(|b| char::from(*b).to_digit(16));
                if rest.get(i + 1) == Some(&b'x')
                    && let (Some(high), Some(low)) = (hex(i + 2), hex(i + 3))
                {
                    word.push((high * 16 + low) as u8);
                    i += 4;
                    continue;
                }
                word.push(match *rest.get(i + 1)? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                i += 2;
            }
            other => {
                word.push(other);
                i += 1;
            }
        }
    }
}

fn single_quoted(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut i = 0;
    loop {
        match *rest.get(i)? {
            b'\'' => return Some((word, &rest[i + 1..])),
            b'\\' if rest.get(i + 1) == Some(&b'\'') => {
                word.push(b'\'');
                i += 2;
            }
            other => {
                word.push(other);
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::write_command;

    const OPEN: Limits = Limits { max_bulk: 512 << 20, authenticated: true };

    fn all(buf: &[u8]) -> Result<(Vec<Vec<u8>>, usize), ProtocolError> {
        let (mut pos, mut out) = (0, vec![]);
        loop {
            let mut argv = vec![];
            match parse(buf, &mut pos, &mut argv, &OPEN)? {
                Parsed::Command => out.push(argv.join(&b' ')),
                Parsed::Inline(words) => out.push(words.join(&b' ')),
                Parsed::Empty => {}
                Parsed::Incomplete { need } => {
                    assert!(need > buf.len() - pos, "asks for more than there is");
                    return Ok((out, pos));
                }
            }
        }
    }

    #[test]
    fn a_pipeline_cut_at_every_byte_gives_the_same_commands() {
        let buf = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING x\r\n*0\r\n*-1\r\n\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n";
        let (want, used) = all(buf).unwrap();
        assert_eq!(used, buf.len());
        assert_eq!(want, [&b"GET a"[..], b"PING x", b"SET  \r\n"]);
        for cut in 0..buf.len() {
            let (mut got, used) = all(&buf[..cut]).unwrap();
            got.extend(all(&buf[used..]).unwrap().0);
            assert_eq!(got, want, "cut at {cut}");
        }
    }

    #[test]
    fn protocol_errors_have_redis_texts() {
        for (bytes, text) in [
            (&b"*x\r\n"[..], "Protocol error: invalid multibulk length"),
            (b"*3000000000\r\n", "Protocol error: invalid multibulk length"),
            (b"*1\r\n!3\r\n", "Protocol error: expected '$', got '!'"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$99999999999\r\n", "Protocol error: invalid bulk length"),
            (b"SET \"a\r\n", "Protocol error: unbalanced quotes in request"),
            (b"SET \"a\"b\r\n", "Protocol error: unbalanced quotes in request"),
        ] {
            assert_eq!(all(bytes).unwrap_err().to_string(), text);
        }
        assert_eq!(all(&[b'a'; MAX_LINE + 1]).unwrap_err(), ProtocolError::LongInline);
        assert_eq!(
            all(&[&b"*"[..], &[b'1'; MAX_LINE]].concat()).unwrap_err(),
            ProtocolError::LongMultibulkLine
        );
        let closed = Limits { authenticated: false, ..OPEN };
        let mut argv = vec![];
        assert_eq!(
            parse(b"*11\r\n", &mut 0, &mut argv, &closed),
            Err(ProtocolError::UnauthenticatedMultibulk)
        );
        assert_eq!(
            parse(b"*1\r\n$16385\r\n", &mut 0, &mut argv, &closed),
            Err(ProtocolError::UnauthenticatedBulk)
        );
    }

    #[test]
    fn progress_through_a_request_ends_where_parsing_does() {
        let mut request = Vec::new();
        let args: Vec<Vec<u8>> = (0..1000).map(|i| vec![b'x'; i % 40]).collect();
        write_command(&mut request, &args);
        let mut progress = Progress::default();
        for end in (16..request.len()).step_by(7) {
            let need = progress.advance(&request[..end], &OPEN).expect("not complete yet");
            assert!(need > end && need <= request.len());
        }
        assert_eq!(progress.advance(&request, &OPEN), None);
        // What is wrong is left to parse, at whatever place.
        for wrong in
            [&b"*3\r\n$1\r\na\r\n!"[..], b"*3\r\n$1\r\na\r\n$-1\r\n", b"*3\r\n$1\r\na\r\n$999999999999\r\n"]
        {
            let mut progress = Progress::default();
            assert!(progress.advance(&wrong[..10], &OPEN).is_some());
            assert_eq!(progress.advance(wrong, &OPEN), None);
            assert!(all(wrong).is_err());
        }
    }

    #[test]
    fn quotes_and_escapes() {
        let words = split_words(br#"set "a\x41\n" 'it\'s' b"c d""#).unwrap();
        assert_eq!(words, [&b"set"[..], b"aA\n", b"it's", b"bc d"]);
    }
}
