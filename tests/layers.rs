//! Keeps the layers: a module of src/ imports only from lines above its own in the table of lib.rs. So do the rooms of
//! the server, by the table of server/mod.rs. Tables that say what a folder holds name what is there.
//!
//! The table itself is read, so that it cannot say one thing while the code does another. Imports are
//! found as text (`crate::name`), which needs no compiler and sees code of every configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The level of each top-level module.
type Levels = BTreeMap<String, u32>;

/// Reads the rows `| level | [`a`], [`b`] | ... |` of the table in lib.rs.
fn levels(lib: &str) -> Levels {
    let mut levels = Levels::new();
    for line in lib.lines() {
        let Some(row) = line.strip_prefix("//! | ") else { continue };
        let mut cells = row.split('|');
        let Some(Ok(level)) = cells.next().map(|cell| cell.trim().parse()) else { continue };
        for name in cells.next().unwrap_or_default().split('`').skip(1).step_by(2) {
            levels.insert(name.to_owned(), level);
        }
    }
    levels
}

/// Code without comments and without the content of texts, line by line.
fn code(source: &str) -> Vec<String> {
    let strip = |line: &str| {
        let mut out = String::new();
        let mut quoted = false;
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if quoted => {
                    chars.next();
                }
                // A quotation mark as a character is not the start of a text.
                '\'' if !quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                }
                '"' => quoted = !quoted,
                '/' if !quoted && chars.peek() == Some(&'/') => break,
                c if !quoted => out.push(c),
                _ => {}
            }
        }
        out
    };
    source.lines().map(strip).collect()
}

/// The first column of the table `| file | ... |` at the head of a `mod.rs`; `None` if it has none.
fn listed_files(source: &str) -> Option<BTreeSet<String>> {
    let mut rows = source.lines().skip_while(|line| !line.starts_with("//! | file |")).skip(2).peekable();
    rows.peek()?;
    let rows = rows.map_while(|line| line.strip_prefix("//! | ")?.split('|').next());
    Some(rows.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect())
}

/// The modules beside a `mod.rs`, but for its tests.
fn files_beside(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path.parent().expect("a folder")).expect("list the folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let stems = paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    stems.filter(|stem| stem != "mod" && stem != "tests").collect()
}

#[test]
fn tables_of_folders_name_their_files() {
    let mut tables = 0;
    each_source(Path::new("src"), &mut |path, source| {
        if let Some(listed) = listed_files(&source) {
            tables += 1;
            assert_eq!(listed, files_beside(path), "{}", path.display());
        }
    });
    assert!(tables > 15, "{tables} tables");
}

/// The top-level modules that a source names, with their line numbers. Knows `crate::a::b`,
/// `use crate::{a::b, c}` over several lines, and `keystead::a`.
fn imports(source: &str) -> Vec<(usize, String)> {
    let code = code(source);
    let mut found = Vec::new();
    // Inside `crate::{ ... }`: how deep the braces are.
    let mut depth = 0_u32;
    for (index, line) in code.iter().enumerate() {
        let mut rest = line.as_str();
        loop {
            if depth > 0 {
                // Names at the first depth of the list are top-level modules.
                let mut name = String::new();
                let mut after_path = false;
                let mut end = rest.len();
                for (at, c) in rest.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ':' => after_path = true,
                        ',' => after_path = false,
                        c if depth == 1 && !after_path && (c.is_alphanumeric() || c == '_') => name.push(c),
                        _ => {}
                    }
                    let ends = matches!(c, ',' | ':' | '{' | '}' | ' ');
                    if ends && !name.is_empty() {
                        found.push((index + 1, std::mem::take(&mut name)));
                    }
                    if depth == 0 {
                        end = at;
                        break;
                    }
                }
                if !name.is_empty() {
                    found.push((index + 1, name));
                }
                rest = &rest[end..];
            }
            let Some((_, after)) = rest.split_once("crate::").or_else(|| rest.split_once("keystead::"))
            else {
                break;
            };
            if let Some(list) = after.strip_prefix('{') {
                depth = 1;
                rest = list;
            } else {
                let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
                found.push((index + 1, after[..end].to_owned()));
                rest = &after[end..];
            }
        }
    }
    found
}

/// What a source of the module `own` imports although it must not.
fn violations(levels: &Levels, own: &str, file: &str, source: &str) -> Vec<String> {
    let level = levels[own];
    imports(source)
        .into_iter()
        .filter(|(_, name)| name != own && levels.get(name).is_some_and(|other| *other >= level))
        .map(|(line, name)| {
            format!("{file}:{line}: {own} (level {level}) imports {name} (level {})", levels[&name])
        })
        .collect()
}

/// Calls `on_file` with every .rs file below `folder`.
fn each_source(folder: &Path, on_file: &mut impl FnMut(&Path, String)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, on_file);
        } else if path.extension().is_some_and(|e| e == "rs") {
            on_file(&path, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The top-level module that a path below src/ belongs to; `None` for lib.rs and the binaries.
fn module(relative: &Path) -> Option<String> {
    let first = relative.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "bin", "main"].contains(&name)).then(|| name.to_owned())
}

#[test]
fn modules_import_only_from_lower_levels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let levels = levels(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let (mut found, mut files) = (Vec::new(), 0);
    each_source(&root, &mut |path, source| {
        let relative = path.strip_prefix(&root).unwrap();
        let Some(own) = module(relative) else { return };
        assert!(levels.contains_key(&own), "src/{own} has no level in the table of lib.rs");
        found.extend(violations(&levels, &own, &format!("src/{}", relative.display()), &source));
        files += 1;
    });
    assert!(files > 10, "only {files} files were seen");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_module_of_lib_has_a_level_and_a_place_below_what_it_uses() {
    let lib = include_str!("../src/lib.rs");
    let levels = levels(lib);
    let declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut names: Vec<&str> = levels.keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut sorted = declared.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted, "the table of lib.rs and its modules");
    assert!(declared.is_sorted_by_key(|name| levels[*name]), "lib.rs declares lower levels first");
    assert_eq!(levels["base"], 0);
    assert!(levels["server"] > levels["exec"] && levels["exec"] > levels["command"]);
}

/// The rooms of the server in the order of the table in server/mod.rs; several may stand in a row.
fn rooms(table: &str) -> Vec<String> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    let cells = rows.filter_map(|row| row.split('|').next());
    cells
        .flat_map(|cell| cell.split('`').step_by(2).map(str::to_owned))
        .filter(|room| is_name(room))
        .collect()
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// The room that all others may use, and the files of it that name what it is made of.
const SHARED: &str = "node";
const PARTS: [&str; 2] = ["node/mod.rs", "node/threads.rs"];

/// What a file of the server imports from rooms that stand below its own.
fn trespasses(rooms: &[String], file: &str, source: &str) -> Vec<String> {
    let own = file.split(['/', '.']).next().unwrap_or_default();
    let place = |room: &str| rooms.iter().position(|r| r == room);
    let Some(own_place) = place(own).filter(|_| !PARTS.contains(&file)) else { return Vec::new() };
    let mut found = Vec::new();
    for (index, line) in code(source).iter().enumerate() {
        for (_, path) in
            line.match_indices("crate::server::").map(|(at, text)| (at, &line[at + text.len()..]))
        {
            let names: Vec<&str> = match path.strip_prefix('{') {
                Some(list) => list.split([',', '}']).map(str::trim).collect(),
                None => vec![path],
            };
            for name in names {
                let room = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let is_below = place(room).is_some_and(|other| other > own_place);
                if room != SHARED && is_below {
                    found.push(format!("src/server/{file}:{}: {own} imports {room}", index + 1));
                }
            }
        }
    }
    found
}

#[test]
fn rooms_of_the_server_import_only_from_those_above() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server");
    let table = fs::read_to_string(root.join("mod.rs")).unwrap();
    let rooms = rooms(&table);
    let declared: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(rooms, declared, "the table of server/mod.rs and its rooms, in order");
    let mut found = Vec::new();
    each_source(&root, &mut |path, source| {
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        found.extend(trespasses(&rooms, &file, &source));
    });
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_import_of_a_room_below_is_found() {
    let rooms = ["process", "net", "node", "disk", "worker"].map(str::to_owned);
    for (file, source, count) in [
        ("disk/aof/mod.rs", "use crate::server::worker::Worker;", 1),
        ("net/accept.rs", "fn f() {\n    crate::server::disk::read();\n}", 1),
        ("net/accept.rs", "use crate::server::{disk::file, process, worker};", 2),
        ("node/pause.rs", "use crate::server::disk::aof::Aof;", 1),
        ("node/mod.rs", "use crate::server::disk::aof::Aof;", 0),
        ("disk/aof/mod.rs", "use crate::server::node::Node; // crate::server::worker", 0),
        ("net/accept.rs", "use crate::server::node::Node;\nuse crate::server::process::crash;", 0),
    ] {
        let found = trespasses(&rooms, file, source);
        assert_eq!(found.len(), count, "{file}: {source}: {found:?}");
    }
}

/// The check itself: it must fail when a lower layer imports a higher one or one beside it.
#[test]
fn a_planted_import_is_found() {
    let levels: Levels = [("base", 0), ("resp", 1), ("config", 2), ("value", 2), ("server", 7)]
        .map(|(n, l)| (n.to_owned(), l))
        .into();
    let bad = |own, source| violations(&levels, own, "x.rs", source);
    for (own, source, line) in [
        ("base", "use crate::server::start;", 1),
        ("config", "fn f() {\n    crate::value::Limits::default();\n}", 2),
        ("resp", "use crate::{\n    base::num,\n    server,\n};", 3),
        ("resp", "use crate::{base::{num, glob}, config::Config};", 1),
        ("value", "use std::fmt;\npub(crate) use crate::config as c;", 2),
        ("config", "let x = '\"'; use crate::server::a;", 1),
    ] {
        let found = bad(own, source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert!(found[0].starts_with(&format!("x.rs:{line}: {own} ")), "{found:?}");
    }
    for (own, source) in [
        ("server", "use crate::{config, value::{Hash, Set}, base};\nuse crate::resp::Reply;"),
        ("config", "// crate::server decides\nlet text = \"crate::server\"; use crate::base::glob;"),
        ("config", "use crate::config::{set, get}; //! [`crate::server`]"),
        ("resp", "use crate::{base::{num, value}, base::glob};"),
    ] {
        assert!(bad(own, source).is_empty(), "{source}: {:?}", bad(own, source));
    }
}
