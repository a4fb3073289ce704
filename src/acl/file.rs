//! The file of users (`aclfile`): a line for each, as ACL LIST shows it.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::rule::{RuleError, Rules, has_blanks, merge_selectors};
use super::user::User;

/// Reads a file: all its users, or all that is wrong with it in one text. No rule is told in it but names of
/// commands that are not there: others may hold passwords.
pub fn read(text: &[u8], path: &str, rules: &Rules<'_>) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut names = HashSet::new();
    let mut errors = String::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match read_line(line, &format!("{path}:{}", index + 1), rules) {
            Ok(user) if names.insert(user.name.clone()) => users.push(user),
            Ok(user) => {
                let (name, line) = (&user.name, index + 1);
                let _ = write!(errors, "WARNING: Duplicate user '{name}' found on line {line}. ");
            }
            Err(error) => errors += &error,
        }
    }
    if errors.is_empty() {
        return Ok(users);
    }
    errors += "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
    Err(errors)
}

/// `place`: the file and the number of the line.
fn read_line(line: &[u8], place: &str, rules: &Rules<'_>) -> Result<User, String> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(b"user"), Some(name)) = (words.next(), words.next()) else {
        return Err(format!("{place} should start with user keyword followed by the username. "));
    };
    let Some(name) = user_name(name) else {
        let name = String::from_utf8_lossy(name);
        return Err(format!("'{place}: username '{name}' contains invalid characters. "));
    };
    let words: Vec<&[u8]> = words.collect();
    let Ok(words) = merge_selectors(&words) else {
        return Err(format!("{place}: Unmatched parenthesis in selector definition."));
    };
    let mut user = rules.new_user(name);
    let mut errors = String::new();
    let mut told = false;
    for word in &words {
        match rules.apply(&mut user, word) {
            Ok(()) => {}
            Err(error @ RuleError::Unknown) => {
                let word = String::from_utf8_lossy(word);
                // A String takes everything.
                let _ = write!(errors, "{place}: Error in applying operation '{word}': {error}. ");
            }
            Err(error) if !told => {
                told = true;
                let _ = write!(errors, "{place}: {error}. ");
            }
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(user) } else { Err(errors) }
}

/// A name that a user may have: text without blanks.
pub fn user_name(name: &[u8]) -> Option<&str> {
    if has_blanks(name) { None } else { std::str::from_utf8(name).ok() }
}

/// The file that states these users.
pub fn write<'u>(users: impl IntoIterator<Item = &'u User>) -> Vec<u8> {
    let mut text = Vec::new();
    for user in users {
        text.extend(user.line());
        text.push(b'\n');
    }
    text
}
