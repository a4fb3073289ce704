//! A blocking RESP2 and RESP3 client that shows every reply as it came.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// One reply, with the type that it had on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    Nil,
    /// `*-1`
    NilArray,
    /// `_`
    Null,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    /// The text of the number as sent.
    Double(String),
    Bool(bool),
    Big(String),
    /// Format and text, as in `txt:...`.
    Verbatim(Vec<u8>),
}

impl Reply {
    /// The bytes of a bulk, verbatim or simple string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bulk(b) => Some(b),
            Reply::Verbatim(b) => b.get(4..),
            Reply::Simple(s) => Some(s.as_bytes()),
            _ => None,
        }
    }

    pub fn text(&self) -> String {
        match self {
            Reply::Error(e) => e.clone(),
            Reply::Int(n) => n.to_string(),
            _ => self.bytes().map_or_else(|| self.to_string(), |b| String::from_utf8_lossy(b).into_owned()),
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            _ => &[],
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(n) => *n,
            other => panic!("expected an integer, got {other}"),
        }
    }

    /// Sorts arrays, sets and maps at the top level, for replies whose order means nothing.
    pub fn sorted(mut self) -> Reply {
        match &mut self {
            Reply::Array(items) | Reply::Set(items) => items.sort_by_key(ToString::to_string),
            Reply::Map(pairs) => pairs.sort_by_key(|(k, _)| k.to_string()),
            _ => {}
        }
        self
    }
}

/// The notation of the session files: one line a reply, the wire's type visible.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(f: &mut fmt::Formatter<'_>, items: &[Reply]) -> fmt::Result {
            f.write_str("[")?;
            for (i, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
            }
            f.write_str("]")
        }
        match self {
            Reply::Simple(s) => write!(f, "+{s}"),
            Reply::Error(s) => write!(f, "-{s}"),
            Reply::Int(n) => write!(f, ":{n}"),
            Reply::Bulk(b) => write!(f, "{}", quoted(b)),
            Reply::Nil => f.write_str("nil"),
            Reply::NilArray => f.write_str("nil-array"),
            Reply::Null => f.write_str("null"),
            Reply::Array(items) => list(f, items),
            Reply::Set(items) => f.write_str("set ").and_then(|()| list(f, items)),
            Reply::Push(items) => f.write_str("push ").and_then(|()| list(f, items)),
            Reply::Map(pairs) => {
                f.write_str("{")?;
                for (i, (k, v)) in pairs.iter().enumerate() {
                    write!(f, "{}{k}: {v}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
            Reply::Double(s) => write!(f, ",{s}"),
            Reply::Bool(b) => f.write_str(if *b { "#t" } else { "#f" }),
            Reply::Big(s) => write!(f, "({s}"),
            Reply::Verbatim(b) => write!(f, "={}", quoted(b)),
        }
    }
}

/// `bytes` in double quotes, with the escapes that [`words`] reads back.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    let mut put = |text: &str| out.push_str(text);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => put("\\\""),
                '\\' => put("\\\\"),
                '\n' => put("\\n"),
                '\r' => put("\\r"),
                '\t' => put("\\t"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    for b in c.encode_utf8(&mut utf8).bytes() {
                        put(&format!("\\x{b:02x}"));
                    }
                }
                c => put(c.encode_utf8(&mut [0; 4])),
            }
        }
        for b in chunk.invalid() {
            put(&format!("\\x{b:02x}"));
        }
    }
    out.push('"');
    out
}

/// Splits a command line as `redis-cli` does: words, `"with escapes"`, `'without'`.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if(|b| *b == b' ').is_some() {}
        let Some(&first) = bytes.peek() else { return out };
        let mut word = Vec::new();
        if first != b'"' && first != b'\'' {
            while let Some(b) = bytes.next_if(|b| *b != b' ') {
                word.push(b);
            }
        } else {
            bytes.next();
            loop {
                let b = bytes.next().unwrap_or_else(|| panic!("unbalanced quotes: {line}"));
                match b {
                    b if b == first => break,
                    b'\\' if first == b'"' => word.push(match bytes.next() {
                        Some(b'n') => b'\n',
                        Some(b'r') => b'\r',
                        Some(b't') => b'\t',
                        Some(b'x') => {
                            let mut digit = || {
                                bytes.next().and_then(|d| (d as char).to_digit(16)).expect("two hex digits")
                            };
                            let high = digit();
                            (high * 16 + digit()) as u8
                        }
                        Some(other) => other,
                        None => panic!("unbalanced quotes: {line}"),
                    }),
                    b => word.push(b),
                }
            }
        }
        out.push(word);
    }
}

/// `words` as one RESP command.
pub fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The reply at the front of `input` and its length; `None` while it is incomplete.
///
/// Panics on bytes that are no RESP: a server that sends them has failed its test.
pub fn decode(input: &[u8]) -> Option<(Reply, usize)> {
    let end = input.windows(2).position(|w| w == b"\r\n")?;
    let kind = input[0];
    let head = String::from_utf8_lossy(&input[1..end]).into_owned();
    let mut used = end + 2;
    let length = || -> i64 { head.parse().unwrap_or_else(|_| panic!("not a RESP length: {head:?}")) };
    let mut children = |count: i64| -> Option<Vec<Reply>> {
        let mut items = Vec::new();
        for _ in 0..count {
            let (item, n) = decode(&input[used..])?;
            used += n;
            items.push(item);
        }
        Some(items)
    };
    let reply = match kind {
        b'+' => Reply::Simple(head),
        b'-' => Reply::Error(head),
        b':' => Reply::Int(length()),
        b',' => Reply::Double(head),
        b'(' => Reply::Big(head),
        b'#' => Reply::Bool(head == "t"),
        b'_' => Reply::Null,
        b'$' | b'=' if length() < 0 => Reply::Nil,
        b'$' | b'=' => {
            let size = length() as usize;
            let body = input.get(used..used + size)?.to_vec();
            assert_eq!(input.get(used + size..used + size + 2)?, b"\r\n", "the end of a bulk string");
            used += size + 2;
            if kind == b'$' { Reply::Bulk(body) } else { Reply::Verbatim(body) }
        }
        b'*' if length() < 0 => Reply::NilArray,
        b'*' => Reply::Array(children(length())?),
        b'~' => Reply::Set(children(length())?),
        b'>' => Reply::Push(children(length())?),
        b'%' => {
            let mut flat = children(length() * 2)?.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                pairs.push((key, value));
            }
            Reply::Map(pairs)
        }
        other => panic!("no RESP type: {:?} in {:?}", other as char, quoted(&input[..input.len().min(80)])),
    };
    Some((reply, used))
}

pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port).unwrap_or_else(|e| panic!("connect to 127.0.0.1:{port}: {e}"))
    }

    pub fn try_connect(port: u16) -> io::Result<Client> {
        let address = ([127, 0, 0, 1], port).into();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { stream, received: Vec::new() })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("set the read timeout");
    }

    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().expect("a connected socket").port()
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).expect("send");
    }

    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, words: &[impl AsRef<[u8]>]) {
        self.send_raw(&encode(words));
    }

    /// The next reply; an error when the server closed the connection or the timeout passed.
    pub fn try_read(&mut self) -> io::Result<Reply> {
        self.try_read_raw().map(|(reply, _)| reply)
    }

    /// The next reply with the bytes that carried it.
    pub fn try_read_raw(&mut self) -> io::Result<(Reply, Vec<u8>)> {
        let mut chunk = [0; 65536];
        loop {
            if let Some((reply, used)) = decode(&self.received) {
                let rest = self.received.split_off(used);
                return Ok((reply, std::mem::replace(&mut self.received, rest)));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub fn read(&mut self) -> Reply {
        self.try_read().unwrap_or_else(|e| panic!("no reply: {e}"))
    }

    /// Whether the server closes the connection, reading whatever it still sends.
    pub fn closed(&mut self) -> bool {
        let mut chunk = [0; 65536];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }

    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Runs one command given as its words.
    pub fn cmd(&mut self, words: &[impl AsRef<[u8]>]) -> Reply {
        self.send(words);
        self.read()
    }

    /// Runs one command given as a line.
    pub fn run(&mut self, line: &str) -> Reply {
        self.try_run(line).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    pub fn try_run(&mut self, line: &str) -> io::Result<Reply> {
        self.try_send_raw(&encode(&words(line)))?;
        self.try_read()
    }

    /// Runs a command and compares its reply in session notation.
    #[track_caller]
    pub fn expect(&mut self, line: &str, reply: &str) {
        assert_eq!(self.run(line).to_string(), reply, "{line}");
    }

    #[track_caller]
    pub fn ok(&mut self, line: &str) {
        self.expect(line, "+OK");
    }

    /// Sends every line at once and reads all replies.
    pub fn pipeline(&mut self, lines: &[impl AsRef<str>]) -> Vec<Reply> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| encode(&words(line.as_ref()))).collect();
        self.send_raw(&bytes);
        lines.iter().map(|_| self.read()).collect()
    }

    /// One field of INFO, or an empty text.
    pub fn info(&mut self, field: &str) -> String {
        let all = self.run("INFO everything").text();
        all.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    /// A numeric field of INFO, or -1 when it is missing.
    pub fn info_int(&mut self, field: &str) -> i64 {
        self.info(field).parse().unwrap_or(-1)
    }
}
