//! Runs the `*.session` files beside it: commands with the replies that a client must see.
//!
//! A file is a list of sections; each is one test on fresh connections and an empty keyspace. One
//! server runs a whole file.
//!
//! ```text
//! @args --maxmemory 10mb      arguments of the file's server
//! == a name                   a section begins
//! # prose
//! > SET k v                   a command on the first connection ...
//! +OK                         ... and its reply, in the notation of `Reply`'s Display
//! b> GET k                    a command on the connection named b
//! b!> BLPOP l 0               sent, its reply is read later
//! b<                          reads the next reply or push of b
//! ?> EXISTS k                 repeated until the reply is the expected one, for 10 s
//! $> "*1\r\n"                 raw bytes; replies are read with <
//! ```
//!
//! Expected replies may begin with `unordered` (elements in any order), or be `like PATTERN` with
//! `*` for any text, or `closed`.
//!
//! `KEYSTEAD_SERVER=/usr/bin/redis-server BLESS=1 cargo test --test sessions` writes what a real
//! Redis replies into the files; expectations come from there and from nowhere else.

#[path = "../common/mod.rs"]
mod common;

use common::client::{Client, Reply, words};
use common::server::{Launch, Server, subject, subject_is_real};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let bless = std::env::var_os("BLESS").is_some();
    assert!(!bless || subject_is_real(), "replies are blessed by a real Redis only");
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    println!("\nsessions with {}", subject().display());
    let (mut passed, mut failures) = (0, Vec::new());
    for path in session_files() {
        let text = fs::read_to_string(&path).expect("read a session file");
        let mut file = SessionFile::parse(&path, &text);
        let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
        if !file.sections.iter().any(|s| wanted(&file.title(s))) {
            continue;
        }
        let mut server = file.launch();
        for i in 0..file.sections.len() {
            let title = file.title(&file.sections[i]);
            if !wanted(&title) {
                continue;
            }
            let result = file.sections[i].run(&server, bless);
            println!("test {title} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
            match result {
                Ok(()) => passed += 1,
                Err(why) => {
                    failures.push(format!("{title}\n{why}"));
                    // Whatever the section left behind must not fail the next one.
                    server = file.launch();
                }
            }
        }
        if bless {
            fs::write(&path, file.render()).expect("write a session file");
        }
    }
    for failure in &failures {
        println!("\n---- {failure}");
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {} failed", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn session_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("list the session files")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "session"))
        .collect();
    files.sort();
    files
}

struct SessionFile {
    name: String,
    /// The lines above the first section, kept for blessing.
    head: Vec<String>,
    args: Vec<String>,
    sections: Vec<Section>,
}

struct Section {
    name: String,
    lines: Vec<Line>,
}

enum Line {
    Prose(String),
    Step { connection: String, kind: Kind, text: String, expected: Option<String>, number: usize },
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Run,
    Send,
    Read,
    Until,
    Raw,
}

const MARKS: [(&str, Kind); 5] =
    [("!>", Kind::Send), ("?>", Kind::Until), ("$>", Kind::Raw), (">", Kind::Run), ("<", Kind::Read)];

impl SessionFile {
    fn parse(path: &Path, text: &str) -> SessionFile {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut file = SessionFile { name, head: Vec::new(), args: Vec::new(), sections: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = line.strip_prefix("== ") {
                file.sections.push(Section { name: name.trim().to_owned(), lines: Vec::new() });
                continue;
            }
            let Some(section) = file.sections.last_mut() else {
                if let Some(args) = line.strip_prefix("@args ") {
                    let args = words(args).into_iter().map(|w| String::from_utf8(w).expect("text arguments"));
                    file.args.extend(args);
                }
                file.head.push(line.to_owned());
                continue;
            };
            if line.is_empty() || line.starts_with("# ") {
                section.lines.push(Line::Prose(line.to_owned()));
            } else if let Some(step) = parse_step(line, index + 1) {
                section.lines.push(step);
            } else if let Some(Line::Step { kind, expected: expected @ None, .. }) = section.lines.last_mut()
                && matches!(kind, Kind::Run | Kind::Read | Kind::Until)
            {
                *expected = Some(line.to_owned());
            } else {
                panic!("{}:{}: neither a step nor a reply: {line}", path.display(), index + 1);
            }
        }
        file
    }

    fn title(&self, section: &Section) -> String {
        format!("{}: {}", self.name, section.name)
    }

    fn launch(&self) -> Server {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        Launch::subject().args(&args).start()
    }

    fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.head {
            let _ = writeln!(out, "{line}");
        }
        for section in &self.sections {
            let _ = writeln!(out, "== {}", section.name);
            for line in &section.lines {
                match line {
                    Line::Prose(text) => {
                        let _ = writeln!(out, "{text}");
                    }
                    Line::Step { connection, kind, text, expected, .. } => {
                        let mark = MARKS.iter().find(|(_, k)| k == kind).map_or("", |(m, _)| m);
                        let _ = writeln!(out, "{}", format!("{connection}{mark} {text}").trim_end());
                        if let Some(expected) = expected {
                            let _ = writeln!(out, "{expected}");
                        }
                    }
                }
            }
        }
        out
    }
}

fn parse_step(line: &str, number: usize) -> Option<Line> {
    let letters = line.bytes().take_while(u8::is_ascii_lowercase).count();
    let (connection, rest) = line.split_at(letters);
    let (mark, kind) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark))?;
    let text = rest[mark.len()..].trim().to_owned();
    Some(Line::Step { connection: connection.to_owned(), kind: *kind, text, expected: None, number })
}

impl Section {
    fn run(&mut self, server: &Server, bless: bool) -> Result<(), String> {
        let mut clients: HashMap<String, Client> = HashMap::new();
        let mut cleaner = server.connect();
        cleaner.run("FLUSHALL");
        cleaner.run("CONFIG RESETSTAT");
        for line in &mut self.lines {
            let Line::Step { connection, kind, text, expected, number } = line else { continue };
            let client = clients.entry(connection.clone()).or_insert_with(|| {
                let client = server.connect();
                client.set_read_timeout(Duration::from_secs(10));
                client
            });
            let fail = |why: String| format!("line {number}: {connection}> {text}\n{why}");
            match kind {
                Kind::Send => {
                    client.send(&words(text));
                    continue;
                }
                Kind::Raw => {
                    let bytes: Vec<u8> = words(text).concat();
                    let _ = client.try_send_raw(&bytes); // the server may have hung up already
                    continue;
                }
                Kind::Run | Kind::Read | Kind::Until => {}
            }
            if *kind == Kind::Run {
                let _ = client.try_send_raw(&common::client::encode(&words(text)));
            }
            if expected.is_none() && !bless {
                return Err(fail("no reply is written down; bless the file".to_owned()));
            }
            let start = Instant::now();
            loop {
                let reply = if *kind == Kind::Until { client.try_run(text) } else { client.try_read() }
                    .map_err(|e| e.kind());
                let shown = match &reply {
                    Ok(reply) => reply.to_string(),
                    Err(std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset) => {
                        "closed".to_owned()
                    }
                    Err(e) => format!("no reply: {e}"),
                };
                let wanted = expected.clone().unwrap_or_default();
                if matches(&wanted, &shown, reply.ok()) {
                    break;
                }
                if *kind == Kind::Until && start.elapsed() < Duration::from_secs(10) {
                    std::thread::park_timeout(Duration::from_millis(10));
                    continue;
                }
                if bless && !wanted.starts_with("like ") {
                    let unordered = if wanted.starts_with("unordered") { "unordered " } else { "" };
                    *expected = Some(format!("{unordered}{shown}"));
                    break;
                }
                return Err(fail(format!("expected {wanted}\n     got {shown}")));
            }
        }
        Ok(())
    }
}

fn matches(expected: &str, shown: &str, reply: Option<Reply>) -> bool {
    if let Some(pattern) = expected.strip_prefix("like ") {
        return like(pattern, shown);
    }
    if let Some(expected) = expected.strip_prefix("unordered ") {
        // Both sides in notation: the written one is read back as its elements.
        return reply.is_some_and(|r| r.sorted().to_string() == sorted_notation(expected));
    }
    expected == shown
}

/// Sorts the elements of `[a, b]`, `set [..]` or `{k: v}` as written in a file.
fn sorted_notation(text: &str) -> String {
    let Some(open) = text.find(['[', '{']) else { return text.to_owned() };
    let (prefix, rest) = text.split_at(open + 1);
    let Some(inner) = rest.get(..rest.len().saturating_sub(1)) else { return text.to_owned() };
    let (mut items, mut item, mut depth, mut in_quotes) = (Vec::new(), String::new(), 0, false);
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_quotes => {
                item.push(c);
                item.extend(chars.next());
                continue;
            }
            '"' => in_quotes = !in_quotes,
            '[' | '{' if !in_quotes => depth += 1,
            ']' | '}' if !in_quotes => depth -= 1,
            ',' if !in_quotes && depth == 0 && chars.peek() == Some(&' ') => {
                chars.next();
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    if !item.is_empty() {
        items.push(item);
    }
    items.sort();
    format!("{prefix}{}{}", items.join(", "), &rest[rest.len() - 1..])
}

/// Whether `text` fits `pattern`, in which `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
