//! An append-only file: all files of a manifest, or a single one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::{Failed, failed, rdb};
use crate::persist::aof::Manifest;
use crate::persist::aof::stream::{Commands, Item, Problem};
use crate::server::process::os_error::words;

/// What is asked for beside a report.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Report,
    /// Cut off what is damaged.
    Fix,
    /// Cut off what was written after this Unix second.
    Until(i64),
}

/// How a file was found.
#[derive(PartialEq, Eq)]
enum Found {
    Empty,
    Valid,
    /// Cut, as was asked for.
    Truncated,
}

pub(super) fn check(program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let usage = || {
        failed(format!(
            "Usage: {program} [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>"
        ))
    };
    let (task, name) = match arguments {
        [name] => (Task::Report, *name),
        ["--fix", name] => (Task::Fix, *name),
        ["--truncate-to-timestamp", second, name] => match second.parse() {
            Ok(second) => (Task::Until(second), *name),
            Err(_) => return failed("Invalid timestamp, aborting..."),
        },
        _ => return usage(),
    };
    let path = Path::new(name);
    let mut head = [0; 5];
    let read = File::open(path).and_then(|file| file.take(5).read(&mut head));
    let length = read.map_err(|e| Failed(Some(format!("Cannot open file {name}: {}", words(&e)))))?;
    if path.extension().is_some_and(|extension| extension == "manifest") || head[..length] == *b"file " {
        return check_all(path, task);
    }
    println!("Start checking Old-Style AOF");
    match check_part(&Part { path: path.to_owned(), name: name.to_owned(), last: true }, task)? {
        Found::Empty => println!("AOF {name} is empty"),
        Found::Valid => println!("AOF {name} is valid"),
        Found::Truncated => {}
    }
    Ok(())
}

/// A file to check.
struct Part {
    path: PathBuf,
    /// As it is shown.
    name: String,
    /// Only the last file may be cut.
    last: bool,
}

fn check_all(path: &Path, task: Task) -> Result<(), Failed> {
    println!("Start checking Multi Part AOF");
    let bytes = fs::read(path)
        .map_err(|e| Failed(Some(format!("Cannot open file {}: {}", path.display(), words(&e)))))?;
    let manifest = Manifest::parse(&bytes)
        .map_err(|e| Failed(Some(format!("*** FATAL AOF MANIFEST FILE ERROR ***\n{e}"))))?;
    let count = manifest.parts().count();
    for (n, part) in manifest.parts().enumerate() {
        let is_base = n == 0 && manifest.base.is_some();
        let file =
            Part { path: path.with_file_name(&part.name), name: part.name.clone(), last: n + 1 == count };
        if is_base {
            let format = if starts_as_rdb(&file.path) { "RDB" } else { "AOF" };
            println!("Start to check BASE AOF ({format} format).");
        } else if n == usize::from(manifest.base.is_some()) {
            println!("Start to check INCR files.");
        }
        let kind = if is_base { "BASE" } else { "INCR" };
        match check_part(&file, task)? {
            Found::Empty => println!("{kind} AOF {} is empty", file.name),
            Found::Valid => println!("{kind} AOF {} is valid", file.name),
            Found::Truncated => {}
        }
    }
    println!("All AOF files and manifest are valid");
    Ok(())
}

fn starts_as_rdb(path: &Path) -> bool {
    let mut head = [0; 6];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && (head.starts_with(b"REDIS") || head == *b"VALKEY")
}

fn check_part(part: &Part, task: Task) -> Result<Found, Failed> {
    let unreadable = |e: io::Error| {
        Failed(Some(format!("Cannot open file {}: {}, aborting...", part.path.display(), words(&e))))
    };
    let mut file = File::open(&part.path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if size == 0 {
        return Ok(Found::Empty);
    }
    let mut commands = if starts_as_rdb(&part.path) {
        file.rewind().map_err(unreadable)?;
        let Ok((file, ahead, offset)) = rdb::read(&part.name, file) else {
            return failed("RDB preamble of AOF file is not sane, aborting.");
        };
        println!("RDB preamble is OK, proceeding with AOF tail...");
        Commands::new(file, ahead, offset).of_size(size)
    } else {
        Commands::new(file, Vec::new(), 0).of_size(size)
    };
    let walked = walk(part, &mut commands, task)?;
    if let Task::Until(second) = task {
        if let Some(offset) = walked.late {
            return truncate_to(part, second, offset);
        }
        if walked.whole == size {
            println!("Truncate nothing in AOF {} to timestamp {second}", part.name);
            return Ok(Found::Valid);
        }
    }
    println!(
        "AOF analyzed: filename={}, size={size}, ok_up_to={}, ok_up_to_line={}, diff={}",
        part.name,
        walked.whole,
        walked.line,
        size - walked.whole
    );
    match size - walked.whole {
        0 => Ok(Found::Valid),
        _ if task == Task::Fix => fix(part, size, walked.whole),
        _ => failed(format!("AOF {} is not valid. Use the --fix option to try fixing it.", part.name)),
    }
}

/// What a walk through the commands found.
struct Walked {
    /// Up to where it is sound, and no transaction is open.
    whole: u64,
    /// The line after it, counted from 1; annotations are none.
    line: u64,
    /// Where what was written after the wanted second begins.
    late: Option<u64>,
}

fn walk<R: Read>(part: &Part, commands: &mut Commands<R>, task: Task) -> Result<Walked, Failed> {
    let mut walked = Walked { whole: commands.offset(), line: 1, late: None };
    let (mut in_multi, mut lines) = (false, 1);
    loop {
        let offset = commands.offset();
        match commands.next_item() {
            Ok(None) => break,
            Ok(Some(Item::Command(argv))) => {
                let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
                if is("multi") && std::mem::replace(&mut in_multi, true) {
                    println!("0x{offset:16x}: Unexpected MULTI in AOF {}", part.name);
                    break;
                }
                if is("exec") && !std::mem::replace(&mut in_multi, false) {
                    println!("0x{offset:16x}: Unexpected EXEC in AOF {}", part.name);
                    break;
                }
                lines += 1 + 2 * argv.len() as u64;
            }
            Ok(Some(Item::Timestamp(second))) => {
                if matches!(task, Task::Until(until) if second > until) {
                    walked.late = Some(offset);
                    return Ok(walked);
                }
            }
            Ok(Some(Item::Annotation)) => {}
            Err(e) => {
                if let Problem::Io(e) = &e.problem {
                    return failed(format!(
                        "Failed to read from AOF {}, aborting...: {}",
                        part.name,
                        words(e)
                    ));
                }
                println!("AOF {} format error: {e}", part.name);
                break;
            }
        }
        if !in_multi {
            (walked.whole, walked.line) = (commands.offset(), lines);
        }
    }
    if in_multi {
        println!("Reached EOF before reading EXEC for MULTI");
    }
    Ok(walked)
}

fn truncate_to(part: &Part, second: i64, offset: u64) -> Result<Found, Failed> {
    if offset == 0 {
        return failed(format!(
            "AOF {} has nothing before timestamp {second}, aborting...",
            part.path.display()
        ));
    }
    if !part.last {
        return failed(format!(
            "Failed to truncate AOF {} to timestamp {second} to offset {offset} because it is not the last file.\n\
             If you insist, please delete all files after this file according to the manifest file and delete the \
             corresponding records in manifest file manually. Then re-run keystead-check-aof.",
            part.name
        ));
    }
    cut(part, offset).map_err(|e| {
        Failed(Some(format!("Failed to truncate AOF {} to timestamp {second}: {}", part.name, words(&e))))
    })?;
    println!("Successfully truncated AOF {} to timestamp {second}", part.name);
    Ok(Found::Truncated)
}

fn fix(part: &Part, size: u64, whole: u64) -> Result<Found, Failed> {
    if !part.last {
        return failed(format!("Failed to truncate AOF {} because it is not the last file", part.name));
    }
    println!(
        "This will shrink the AOF {} from {size} bytes, with {} bytes, to {whole} bytes",
        part.name,
        size - whole
    );
    print!("Continue? [y/N]: ");
    let mut answer = String::new();
    // Without an answer it is no.
    let _ = io::stdout().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    if !answer.trim_start().starts_with(['y', 'Y']) {
        return failed("Aborting...");
    }
    cut(part, whole)
        .map_err(|e| Failed(Some(format!("Failed to truncate AOF {}: {}", part.name, words(&e)))))?;
    println!("Successfully truncated AOF {}", part.name);
    Ok(Found::Truncated)
}

fn cut(part: &Part, offset: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(&part.path)?;
    file.set_len(offset)?;
    file.sync_all()
}
