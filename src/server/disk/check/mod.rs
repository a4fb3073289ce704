//! keystead-check-rdb and keystead-check-aof: whether files are sound, and repair where that means to cut them.
//!
//! Output and exit codes are those of redis-check-rdb and redis-check-aof 7.0.15, with a summary by type.

mod aof;
mod rdb;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::base::version;

/// What does not go on: it is told already, or by this text.
struct Failed(Option<String>);

fn failed<T>(text: impl Into<String>) -> Result<T, Failed> {
    Err(Failed(Some(text.into())))
}

/// Runs a check if the process was called by the name of one, or with `--check-rdb` or `--check-aof`; `None` otherwise.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(arguments.first()?).file_name()?.to_str()?;
    let first = arguments.get(1).and_then(|first| first.to_str());
    let (checks_aof, skip) = match (name, first) {
        (name, _) if name.ends_with("check-aof") => (true, 1),
        (name, _) if name.ends_with("check-rdb") => (false, 1),
        (_, Some("--check-aof")) => (true, 2),
        (_, Some("--check-rdb")) => (false, 2),
        _ => return None,
    };
    let words: Vec<String> =
        arguments[skip..].iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["-v" | "--version"] = words[..] {
        let what = if checks_aof { "keystead-check-aof" } else { "keystead-check-rdb" };
        println!("{what} {}, compatible with Redis {}", version::KEYSTEAD, version::REDIS);
        return Some(ExitCode::SUCCESS);
    }
    let result = if checks_aof { aof::check(name, &words) } else { rdb::check(name, &words) };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(text)) => {
            if let Some(text) = text {
                println!("{text}");
            }
            ExitCode::FAILURE
        }
    })
}
