//! A directive that is said to do something is read by the server, not only parsed.

use keystead::config::{Meaning, table};
use std::fs;
use std::path::Path;

/// The text of every source outside src/config.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("src/config") {
                sources(&path, text);
            }
        } else {
            text.push_str(&fs::read_to_string(&path).expect("read a source"));
        }
    }
}

#[test]
fn what_means_something_is_read_somewhere() {
    // Read by the rules of CONFIG SET themselves.
    const READ_IN_CONFIG: [&str; 1] = ["enable-protected-configs"];
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let mut words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    words.sort_unstable();
    let unread: Vec<&str> = table::DIRECTIVES
        .iter()
        .filter(|row| row.meaning == Meaning::Here && !READ_IN_CONFIG.contains(&row.name))
        .filter(|row| words.binary_search(&row.name.replace('-', "_").as_str()).is_err())
        .map(|row| row.name)
        .collect();
    assert!(unread.is_empty(), "the table says that these do something: {unread:?}");
}
