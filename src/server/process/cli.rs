//! The command line: a configuration file, `-` for standard input, and directives.
//!
//! Directives of the command line are configuration text too: `--port 7000 --save 60 1` becomes the
//! lines `port "7000"` and `save "60" "1"`, read after the file, so that they win over it and the
//! same mistakes have the same messages.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser};

use crate::base::version;
use crate::config::grammar::quote;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Start a server.
    Serve(Invocation),
    /// Print this text and exit with success.
    Print(String),
    /// Print this text to stderr and exit with status 1.
    Refuse(String),
}

/// How to start the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// As it was given, relative to the folder that the server is started in.
    pub config_file: Option<PathBuf>,
    /// Watch others instead of serving data: `--sentinel`, or by the program's name.
    pub sentinel: bool,
    /// Read configuration from standard input, after the file.
    pub stdin: bool,
    /// Configuration text from the directives of the command line; empty without one, otherwise
    /// it begins with a line end, so that nothing is glued to the last line of a file.
    pub directives: Vec<u8>,
}

/// A Redis-compatible cluster node server that runs commands on every core
#[derive(Parser)]
#[command(
    name = "keystead-server",
    disable_version_flag = true,
    override_usage = "keystead-server [CONFIG-FILE] [--DIRECTIVE VALUE...]... [-]",
    after_help = "\
Any directive of conf/keystead.conf may follow as --NAME VALUE...; it wins over the file.
A first or last argument - reads configuration from standard input.

Examples:
  keystead-server                                    built-in defaults, port 6379
  keystead-server /etc/keystead/keystead.conf
  keystead-server --port 7777 --replicaof 127.0.0.1 8888
  keystead-server sentinel.conf --sentinel           watch others; also by the name keystead-sentinel
  keystead-server /etc/keystead/keystead.conf --loglevel verbose
  echo 'maxmemory 128mb' | keystead-server -"
)]
struct Arguments {
    /// Show the version
    #[arg(short = 'v', long, action = ArgAction::SetTrue)]
    version: bool,

    /// Configuration file, then directives
    #[arg(
        value_name = "CONFIG-FILE] [--DIRECTIVE VALUE",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    rest: Vec<OsString>,
}

/// Reads the arguments, the program's name first.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Asked {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let by_name = arguments.first().is_some_and(|name| is_sentinel(Path::new(name)));
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => return Asked::Refuse(error.to_string()),
        Err(help) => return Asked::Print(help.to_string()),
    };
    if arguments.version {
        return Asked::Print(version_line());
    }
    let mut rest = arguments.rest;
    let mut stdin = rest.pop_if(|last| last == "-").is_some();
    let has_file = rest.first().is_some_and(|first| !first.as_bytes().starts_with(b"-"));
    let config_file = has_file.then(|| PathBuf::from(rest.remove(0)));
    // As in Redis, in the place of a file, too.
    if !has_file && rest.first().is_some_and(|first| first == "-") {
        rest.remove(0);
        stdin = true;
    }
    let before = rest.len();
    rest.retain(|argument| argument != "--sentinel");
    let sentinel = by_name || rest.len() < before;
    if let Some(check @ ("--test-memory" | "--check-system")) = rest.first().and_then(|first| first.to_str())
    {
        return Asked::Refuse(format!("{check} is not offered here: use a tool made for it\n"));
    }
    let directives = directives(rest.into_iter().map(OsString::into_vec));
    Asked::Serve(Invocation { config_file, sentinel, stdin, directives })
}

/// Whether the program goes by a name such as `keystead-sentinel` or `redis-sentinel`.
fn is_sentinel(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.as_bytes().ends_with(b"-sentinel"))
}

/// As `redis-server --version`, whose fields tools read.
pub fn version_line() -> String {
    format!(
        "Keystead server v={} redis_version={} sha=00000000:0 malloc=jemalloc bits={} build=0\n",
        version::KEYSTEAD,
        version::REDIS,
        usize::BITS
    )
}

/// Configuration text from `--name value...` arguments. The argument after a name is its value even
/// if it begins with `--`; `--save` may stand without one and then means no save points.
fn directives(arguments: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut text = Vec::new();
    let mut arguments = arguments.peekable();
    let mut value_expected = false;
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(b"--") {
            Some(name) if !value_expected => {
                text.push(b'\n');
                text.extend(name);
                text.push(b' ');
                let alone = !name.contains(&b' ');
                let next_is_name = arguments.peek().is_none_or(|next| next.starts_with(b"--"));
                if name.eq_ignore_ascii_case(b"save") && next_is_name {
                    text.extend(b"\"\"");
                } else {
                    value_expected = alone;
                }
            }
            _ => {
                if text.is_empty() {
                    text.push(b'\n');
                }
                text.extend(quote(&argument));
                text.push(b' ');
                value_expected = false;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::load;

    fn asked(line: &[&str]) -> Asked {
        parse(std::iter::once("keystead-server").chain(line.iter().copied()).map(OsString::from))
    }

    fn served(line: &[&str]) -> Invocation {
        match asked(line) {
            Asked::Serve(invocation) => invocation,
            other => panic!("{other:?}"),
        }
    }

    fn config(line: &[&str]) -> crate::config::Config {
        load(&served(line).directives, false, &mut |_| Ok(vec![])).unwrap().config
    }

    #[test]
    fn file_standard_input_and_directives() {
        assert_eq!(served(&[]), Invocation::default());
        let all = served(&["a.conf", "--port", "7000", "-"]);
        assert_eq!(all.config_file, Some("a.conf".into()));
        assert!(all.stdin);
        assert_eq!(all.directives, b"\nport \"7000\" ");
        assert!(served(&["-"]).stdin);
        assert_eq!(served(&["-"]).config_file, None);
        let first = served(&["-", "--port", "7000"]);
        assert_eq!((first.stdin, first.directives), (true, all.directives));
        // Elsewhere it is a value.
        for line in [&["a.conf", "-", "--port", "7000"][..], &["--loglevel", "-", "--port", "7000"]] {
            assert!(!served(line).stdin, "{line:?}");
        }
    }

    #[test]
    fn a_sentinel_is_asked_for_by_name_or_by_option() {
        let by_option = served(&["s.conf", "--sentinel", "--port", "5000"]);
        assert!(by_option.sentinel);
        assert_eq!(by_option.directives, b"\nport \"5000\" ");
        for (program, want) in
            [("/usr/bin/keystead-sentinel", true), ("redis-sentinel", true), ("keystead-server", false)]
        {
            let asked = parse([program, "s.conf"].map(OsString::from));
            assert!(
                matches!(asked, Asked::Serve(Invocation { sentinel, .. }) if sentinel == want),
                "{program}"
            );
        }
    }

    #[test]
    fn directives_of_several_values() {
        let config = config(&[
            "--port",
            "7000",
            "--bind",
            "127.0.0.1",
            "::1",
            "--save",
            "60",
            "1000",
            "--save",
            "900",
            "1",
            "--requirepass",
            "--secret",
            "--maxmemory 1gb",
        ]);
        assert_eq!(config.port, 7000);
        assert_eq!(config.bind.0, ["127.0.0.1", "::1"]);
        assert_eq!(config.save.0.len(), 2);
        assert_eq!(&config.requirepass[..], b"--secret");
        assert_eq!(config.maxmemory, 1 << 30);
    }

    #[test]
    fn save_without_a_value_means_no_save_points() {
        for line in [&["--save", ""][..], &["--save", "--port", "1"], &["--port", "1", "--save"]] {
            assert!(config(line).save.0.is_empty(), "{line:?}");
        }
    }

    /// As redis-server shows the same mistakes: the line number counts from the file's end.
    #[test]
    fn mistakes_name_the_line() {
        for (line, want) in [
            (&["--foo"][..], "at line 2\n>>> 'foo'\nBad directive or wrong number of arguments"),
            (&["--port"], "at line 2\n>>> 'port'\nwrong number of arguments"),
            (&["--port", "1", "--port2", "4"], "at line 3\n>>> 'port2 \"4\"'\nBad directive"),
            (
                &["--port", "abc"],
                "at line 2\n>>> 'port \"abc\"'\nargument couldn't be parsed into an integer",
            ),
            (&["c.conf", "x"], "at line 2\n>>> '\"x\"'\nBad directive"),
            (&["--port=7"], "at line 2\n>>> 'port=7'\nBad directive"),
        ] {
            let error = load(&served(line).directives, false, &mut |_| Ok(vec![])).unwrap_err();
            assert!(error.to_string().contains(want), "{line:?}: {error}");
        }
    }

    #[test]
    fn version_and_help() {
        for line in ["-v", "--version"] {
            let Asked::Print(text) = asked(&[line]) else { panic!("{line}") };
            assert!(text.starts_with("Keystead server v="), "{text}");
            assert!(text.contains(" redis_version=7.4") && text.contains(" bits=64 "), "{text}");
        }
        for line in ["-h", "--help"] {
            let Asked::Print(text) = asked(&[line]) else { panic!("{line}") };
            assert!(text.contains("Usage: keystead-server [CONFIG-FILE] [--DIRECTIVE VALUE...]"), "{text}");
        }
        for refused in [&["--test-memory", "100"][..], &["--check-system"]] {
            assert!(matches!(asked(refused), Asked::Refuse(_)), "{refused:?}");
        }
    }
}
