//! Configuration text, with its includes, into a [`Config`].

use std::collections::HashMap;
use std::fmt;

use super::grammar;
use super::{Config, table};
use crate::base::version;

/// One line of a configuration file, for directives whose subject lies outside this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it stands, for error messages.
    pub origin: Origin,
    /// The directive, then its arguments, unquoted.
    pub words: Vec<Vec<u8>>,
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The included file; `None` for the text given to [`load`].
    pub file: Option<String>,
    /// From 1.
    pub number: usize,
    /// The line without surrounding space.
    pub text: Vec<u8>,
}

impl Line {
    /// The error that stops the start because of this line.
    pub fn error(&self, message: impl Into<String>) -> FileError {
        FileError { origin: Some(self.origin.clone()), message: message.into() }
    }
}

/// Why a configuration cannot be used. Its text is what is written to stderr before the exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// `None` when the lines contradict one another.
    pub origin: Option<Origin>,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "\n*** FATAL CONFIG FILE ERROR (Keystead {}) ***", version::KEYSTEAD)?;
        if let Some(origin) = &self.origin {
            let file = origin.file.as_ref().map(|f| format!(" '{f}'")).unwrap_or_default();
            writeln!(f, "Reading the configuration file{file}, at line {}", origin.number)?;
            writeln!(f, ">>> '{}'", String::from_utf8_lossy(&origin.text))?;
        }
        writeln!(f, "{}", self.message)
    }
}

impl std::error::Error for FileError {}

/// A configuration that was read, and the lines that others must look at.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// All directives, defaults included.
    pub config: Config,
    /// `user` lines: the words after `user` describe the user as ACL SETUSER does.
    pub users: Vec<Line>,
    /// `rename-command` lines: the command and its new name, empty to disable it.
    pub renames: Vec<Line>,
    /// `sentinel` lines; only in Sentinel mode.
    pub sentinel: Vec<Line>,
    /// The last line of each directive that was given, by its name in the table.
    origins: HashMap<&'static str, Origin>,
}

/// Files by the path or pattern of an `include` line: name and content of each. The error is a message.
pub type Includes<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<(String, Vec<u8>)>, String>;

/// How deep files may include files: a file that includes itself is a mistake, not a hang.
const INCLUDE_DEPTH_MAX: usize = 16;

/// Reads configuration text. Later lines win; lists that grow by line (`save`) start anew at their
/// first line.
pub fn load(text: &[u8], sentinel_mode: bool, includes: Includes) -> Result<Loaded, FileError> {
    let mut reader = Reader { loaded: Loaded::default(), sentinel_mode };
    reader.text(text, None, 0, includes)?;
    let mut loaded = reader.loaded;
    loaded.contradictions()?;
    if loaded.config.cluster_enabled {
        // A cluster has one, whatever the file says, and CONFIG GET shows it.
        loaded.config.databases = 1;
    }
    Ok(loaded)
}

struct Reader {
    loaded: Loaded,
    sentinel_mode: bool,
}

impl Reader {
    fn text(
        &mut self,
        text: &[u8],
        file: Option<&str>,
        depth: usize,
        includes: Includes,
    ) -> Result<(), FileError> {
        for (index, line) in text.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if grammar::is_blank(line) {
                continue;
            }
            let origin = Origin { file: file.map(str::to_owned), number: index + 1, text: line.to_vec() };
            self.line(origin.clone(), depth, includes).map_err(|fault| match fault {
                Fault::Here(message) => FileError { origin: Some(origin), message },
                Fault::Inside(error) => error,
            })?;
        }
        Ok(())
    }

    fn line(&mut self, origin: Origin, depth: usize, includes: Includes) -> Result<(), Fault> {
        let words = grammar::words(&origin.text).ok_or("Unbalanced quotes in configuration line")?;
        let Some((name, arguments)) = words.split_first() else { return Ok(()) };
        if let Some(row) = table::find(name) {
            let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
            let first = self.loaded.origins.insert(row.name, origin).is_none();
            return Ok(row.read(&mut self.loaded.config, &arguments, first)?);
        }
        let name = name.to_ascii_lowercase();
        match (name.as_slice(), arguments) {
            (b"include", [pattern]) => self.include(pattern, depth, includes)?,
            (b"user", [_, ..]) => self.loaded.users.push(Line { origin, words }),
            (b"rename-command", [_, _]) => self.loaded.renames.push(Line { origin, words }),
            (b"loadmodule", [_, ..]) => {
                return Err("loadmodule is not supported: this server has no modules".into());
            }
            (b"sentinel", [_, ..]) => {
                if !self.sentinel_mode {
                    return Err("sentinel directive while not in sentinel mode".into());
                }
                self.loaded.sentinel.push(Line { origin, words });
            }
            _ => return Err("Bad directive or wrong number of arguments".into()),
        }
        Ok(())
    }

    fn include(&mut self, pattern: &[u8], depth: usize, includes: Includes) -> Result<(), Fault> {
        if depth == INCLUDE_DEPTH_MAX {
            return Err("Files include one another without an end".into());
        }
        let pattern = std::str::from_utf8(pattern).map_err(|_| "argument must be UTF-8 text")?;
        for (name, content) in includes(pattern)? {
            self.text(&content, Some(&name), depth + 1, includes).map_err(Fault::Inside)?;
        }
        Ok(())
    }
}

/// A mistake in the line being read, or one in a file that it includes.
enum Fault {
    Here(String),
    Inside(FileError),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Here(message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::Here(message.to_owned())
    }
}

impl Loaded {
    /// The error of a directive whose value turned out to be unusable outside this module, such as a
    /// `dir` that does not exist.
    pub fn error(&self, name: &str, message: impl Into<String>) -> FileError {
        FileError { origin: self.origins.get(name).cloned(), message: message.into() }
    }

    /// Whether a line gave this directive.
    pub fn says(&self, name: &str) -> bool {
        self.origins.contains_key(name)
    }

    /// Refuses lines that are right by themselves but not together.
    fn contradictions(&self) -> Result<(), FileError> {
        let message = if self.config.cluster_enabled && self.config.replicaof.0.is_some() {
            "replicaof directive not allowed in cluster mode"
        } else {
            return Ok(());
        };
        Err(FileError { origin: None, message: message.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Loaded, FileError> {
        load(text.as_bytes(), false, &mut |_| Err("no such file".into()))
    }

    /// The lines that a mistake writes to stderr, after the title.
    fn mistake(text: &str) -> String {
        let shown = read(text).unwrap_err().to_string();
        let (title, rest) = shown.trim_start().split_once('\n').unwrap();
        assert!(title.starts_with("*** FATAL CONFIG FILE ERROR (Keystead "));
        rest.to_owned()
    }

    #[test]
    fn a_mistake_shows_its_line_and_text() {
        assert_eq!(
            mistake("# c\n\nport 70000\n"),
            "Reading the configuration file, at line 3\n>>> 'port 70000'\n\
             argument must be between 0 and 65535 inclusive\n"
        );
    }

    /// Lines and messages as redis-server 7.0.15 prints them.
    #[test]
    fn messages_are_those_of_redis() {
        for (line, message) in [
            ("foo bar", "Bad directive or wrong number of arguments"),
            ("port abc", "argument couldn't be parsed into an integer"),
            ("daemonize maybe", "argument must be 'yes' or 'no'"),
            ("appendfsync sometimes", "argument(s) must be one of the following: everysec, always, no"),
            ("maxmemory 12xx", "argument must be a memory value"),
            ("maxmemory -1", "argument must be a memory value"),
            ("maxmemory 1.5gb", "argument must be a memory value"),
            (
                "stream-node-max-bytes 99999999999999999999",
                "argument must be between 0 and 9223372036854775807 inclusive",
            ),
            ("proc-title-template \"\"", "template format is invalid or contains unknown variables"),
            ("port", "wrong number of arguments"),
            ("port 1 2", "wrong number of arguments"),
            ("save \"60", "Unbalanced quotes in configuration line"),
            ("save 10", "Invalid save parameters"),
            ("save 0 1", "Invalid save parameters"),
            ("save a b", "Invalid save parameters"),
            (
                "client-output-buffer-limit foo 1 2 3",
                "Invalid client class specified in buffer limit configuration.",
            ),
            (
                "client-output-buffer-limit normal 1 2",
                "Wrong number of arguments in buffer limit configuration.",
            ),
            (
                "client-output-buffer-limit normal 0 0 -1",
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            ),
            ("oom-score-adj-values 1 2", "wrong number of arguments"),
            (
                "oom-score-adj-values 1 2 5000",
                "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
            ),
            ("notify-keyspace-events Q", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
            ("unixsocketperm 999", "argument couldn't be parsed as an octal number"),
            ("unixsocketperm 1777", "argument must be between 0 and 777 inclusive"),
            ("rename-command get", "Bad directive or wrong number of arguments"),
            ("replicaof a", "wrong number of arguments"),
            ("replicaof localhost 99999", "Invalid master port"),
            ("sentinel monitor a 127.0.0.1 1 2", "sentinel directive while not in sentinel mode"),
            ("user", "Bad directive or wrong number of arguments"),
            ("maxmemory-clients 5x%", "argument must be a memory or percent value"),
            ("maxmemory-clients 150%", "percentage argument must be less or equal to 100"),
            (
                "latency-tracking-info-percentiles 101",
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
            ),
            ("latency-tracking-info-percentiles abc", "Invalid latency-tracking-info-percentiles parameters"),
            ("include", "Bad directive or wrong number of arguments"),
            ("dbfilename a/b", "dbfilename can't be a path, just a filename"),
            ("appendfilename \"\"", "appendfilename can't be empty"),
            ("appenddirname a/b", "appenddirname can't be a path, just a dirname"),
            ("proc-title-template {foo}", "template format is invalid or contains unknown variables"),
            ("socket-mark-id 4294967296", "argument must be between 0 and 4294967295 inclusive"),
            ("databases 0", "argument must be between 1 and 2147483647 inclusive"),
            ("repl-backlog-size 0", "argument must be between 1 and 9223372036854775807 inclusive"),
            ("bind 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", "Too many bind addresses specified."),
            ("slowlog-log-slower-than -2", "argument must be between -1 and 9223372036854775807 inclusive"),
            (
                "shutdown-on-sigterm save nosave",
                "shutdown options SAVE and NOSAVE can't be used simultaneously",
            ),
            (
                "cluster-announce-hostname a_b",
                "Hostnames may only contain alphanumeric characters, hyphens or dots",
            ),
            ("enable-debug-command foo", "argument(s) must be one of the following: no, yes, local"),
            ("dir '/tmp'x", "Unbalanced quotes in configuration line"),
        ] {
            let want = format!("Reading the configuration file, at line 1\n>>> '{line}'\n{message}\n");
            assert_eq!(mistake(line), want);
        }
        assert_eq!(
            mistake("cluster-enabled yes\nreplicaof localhost 1"),
            "replicaof directive not allowed in cluster mode\n"
        );
    }

    #[test]
    fn later_lines_win_and_save_points_add_up() {
        let text = "\
PORT 7000
port 7001\r
maxmemory 1gb
maxmemory 100mb
save 60 1000
save 900 1 300 10
slave-priority 5
hz 99999
client-output-buffer-limit replica 1kb 2mb 3
requirepass \"a\\xffb\"
";
        let config = read(text).unwrap().config;
        assert_eq!(
            (config.port, config.maxmemory, config.replica_priority, config.hz),
            (7001, 100 << 20, 5, 500)
        );
        let points: Vec<_> = config.save.0.iter().map(|p| (p.seconds, p.changes)).collect();
        assert_eq!(points, [(60, 1000), (900, 1), (300, 10)]);
        assert_eq!(config.client_output_buffer_limit.replica.soft_bytes, 2 << 20);
        assert_eq!(&config.requirepass[..], b"a\xffb");
        assert_eq!(config.timeout, 0);
        assert!(read("save \"\"").unwrap().config.save.0.is_empty());
        assert!(read("bind \"\"").unwrap().config.bind.0.is_empty());
    }

    #[test]
    fn lines_for_others_are_handed_out() {
        let loaded = read("user alice on >p ~*\nrename-command DEBUG \"\"\nport 1").unwrap();
        assert_eq!(loaded.users[0].words[1], b"alice");
        assert_eq!(loaded.renames[0].words[2], b"");
        assert_eq!(loaded.renames[0].origin.number, 2);
        assert!(mistake("loadmodule /x.so").contains("loadmodule is not supported"));
        assert!(load(b"sentinel myid x", true, &mut |_| Ok(vec![])).unwrap().sentinel.len() == 1);
    }

    #[test]
    fn includes_are_read_in_place_and_named_in_mistakes() {
        let mut files = |path: &str| match path {
            "d/*.conf" => Ok(vec![
                ("d/a.conf".to_owned(), b"port 1\ntimeout 7".to_vec()),
                ("d/b.conf".to_owned(), b"port 2".to_vec()),
            ]),
            "none*.conf" => Ok(vec![]),
            "bad" => Ok(vec![("bad".to_owned(), b"\nport x".to_vec())]),
            "loop" => Ok(vec![("loop".to_owned(), b"include loop".to_vec())]),
            other => Err(format!("can't open {other}")),
        };
        let text = b"port 9\ninclude d/*.conf\ninclude none*.conf\nhz 20";
        let config = load(text, false, &mut files).unwrap().config;
        assert_eq!((config.port, config.timeout, config.hz), (2, 7, 20));
        let bad = load(b"include bad", false, &mut files).unwrap_err().to_string();
        assert!(bad.contains("file 'bad', at line 2\n>>> 'port x'\n"), "{bad}");
        let endless = load(b"include loop", false, &mut files).unwrap_err();
        assert_eq!(endless.message, "Files include one another without an end");
        assert_eq!(load(b"include gone", false, &mut files).unwrap_err().message, "can't open gone");
    }
}
