//! The words of ACL SETUSER: what each does to a user.
//! Source: the page of ACL SETUSER.

use std::borrow::Cow;

use super::catalog::{Catalog, find_full};
use super::category;
use super::password::Hash;
use super::selector::{Access, READ, Selector, WRITE};
use super::user::User;

/// Why a rule is refused, in Redis's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of the error tells")]
pub enum RuleError {
    #[error("Unknown command or category name in ACL")]
    Unknown,
    #[error("Syntax error")]
    Syntax,
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AllKeys,
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AllChannels,
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    BadHash,
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgOfSub,
}

/// What rules are read with.
#[derive(Clone, Copy)]
pub struct Rules<'c> {
    /// The commands that rules may name.
    pub catalog: &'c dyn Catalog,
    /// New users may use every channel (`acl-pubsub-default`).
    pub all_channels: bool,
}

impl Rules<'_> {
    /// A new user.
    pub fn new_user(&self, name: &str) -> User {
        User::new(name, self.catalog, self.all_channels)
    }

    /// Applies one rule. After an error the user is to be thrown away.
    pub fn apply(&self, user: &mut User, rule: &[u8]) -> Result<(), RuleError> {
        let word = keyword(rule);
        match word.as_slice() {
            b"" => {}
            b"on" => user.enabled = true,
            b"off" => user.enabled = false,
            b"sanitize-payload" => user.sanitizes = true,
            b"skip-sanitize-payload" => user.sanitizes = false,
            b"nopass" => {
                user.nopass = true;
                user.passwords.clear();
            }
            b"resetpass" => {
                user.nopass = false;
                user.passwords.clear();
            }
            b"clearselectors" => user.selectors.clear(),
            b"reset" => *user = self.new_user(&user.name),
            _ => return self.apply_value(user, rule),
        }
        Ok(())
    }

    /// Rules that begin with a sign, and those of selectors.
    fn apply_value(&self, user: &mut User, rule: &[u8]) -> Result<(), RuleError> {
        match rule.split_first() {
            Some((b'>', password)) => add_password(user, Hash::of(password)),
            Some((b'#', hash)) => add_password(user, Hash::parse(hash).ok_or(RuleError::BadHash)?),
            Some((b'<', password)) => remove_password(user, Hash::of(password))?,
            Some((b'!', hash)) => remove_password(user, Hash::parse(hash).ok_or(RuleError::BadHash)?)?,
            Some((b'(', inner)) => {
                let inner = inner.strip_suffix(b")").ok_or(RuleError::Syntax)?;
                let mut selector = Selector::new(self.catalog, false);
                for word in inner.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                    // Written back it would end the selector.
                    if word.ends_with(b")") {
                        return Err(RuleError::Syntax);
                    }
                    self.apply_to_selector(&mut selector, word)?;
                }
                user.selectors.push(selector);
            }
            _ => self.apply_to_selector(&mut user.root, rule)?,
        }
        Ok(())
    }

    fn apply_to_selector(&self, selector: &mut Selector, rule: &[u8]) -> Result<(), RuleError> {
        let word = keyword(rule);
        match word.as_slice() {
            b"allkeys" | b"~*" => selector.set_all_keys(true),
            b"resetkeys" => selector.set_all_keys(false),
            b"allchannels" | b"&*" => selector.set_all_channels(true),
            b"resetchannels" => selector.set_all_channels(false),
            b"allcommands" | b"+@all" => selector.commands.set_all(self.catalog, true),
            b"nocommands" | b"-@all" => selector.commands.set_all(self.catalog, false),
            _ => match rule.split_first() {
                Some((b'~' | b'%', _)) => add_keys(selector, rule)?,
                Some((b'&', pattern)) => add_channels(selector, pattern)?,
                Some((sign @ (b'+' | b'-'), name)) => self.set_commands(selector, *sign == b'+', name)?,
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn set_commands(&self, selector: &mut Selector, allow: bool, name: &[u8]) -> Result<(), RuleError> {
        let catalog = self.catalog;
        if let Some(name) = name.strip_prefix(b"@") {
            let bit = category::find(name).ok_or(RuleError::Unknown)?;
            let name = category::names(bit).next().unwrap_or_default();
            selector.commands.set_category(catalog, bit, name, allow);
            return Ok(());
        }
        if allow && let Some(bar) = name.iter().rposition(|b| *b == b'|') {
            return self.allow_part(selector, &name[..bar], &name[bar + 1..]);
        }
        let id = find_full(catalog, name).ok_or(RuleError::Unknown)?;
        selector.commands.set_command(catalog, id, allow);
        Ok(())
    }

    /// `+command|part`: a subcommand, or a first argument of a command that has none.
    fn allow_part(&self, selector: &mut Selector, command: &[u8], part: &[u8]) -> Result<(), RuleError> {
        let catalog = self.catalog;
        let id = find_full(catalog, command).ok_or(RuleError::Unknown)?;
        if command.contains(&b'|') {
            return Err(RuleError::FirstArgOfSub);
        }
        // What cannot be written back is not taken either.
        let part =
            std::str::from_utf8(part).ok().filter(|part| !part.is_empty() && !has_blanks(part.as_bytes()));
        let part = part.ok_or(RuleError::Syntax)?;
        if catalog.subcommands(id).is_empty() {
            selector.commands.add_first_arg(catalog, id, part);
        } else {
            let sub = catalog.find_sub(id, part.as_bytes()).ok_or(RuleError::Unknown)?;
            selector.commands.set_command(catalog, sub, true);
        }
        Ok(())
    }
}

/// A rule in lower case, in which those are compared that are single words; `?`, which none is, for one that is longer
/// than they: a password may have any length.
fn keyword(rule: &[u8]) -> Vec<u8> {
    const LONGEST: usize = "skip-sanitize-payload".len();
    if rule.len() > LONGEST { vec![b'?'] } else { rule.to_ascii_lowercase() }
}

fn add_password(user: &mut User, hash: Hash) {
    user.passwords.entry(hash, || ());
    user.nopass = false;
}

fn remove_password(user: &mut User, hash: Hash) -> Result<(), RuleError> {
    if user.passwords.remove(&hash) { Ok(()) } else { Err(RuleError::NoSuchPassword) }
}

/// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`.
fn add_keys(selector: &mut Selector, rule: &[u8]) -> Result<(), RuleError> {
    if selector.has_all_keys() {
        return Err(RuleError::AllKeys);
    }
    let (access, pattern) = match rule {
        [b'~', pattern @ ..] => (READ | WRITE, pattern),
        [_, rest @ ..] => read_access(rest).ok_or(RuleError::Syntax)?,
        [] => return Err(RuleError::Syntax),
    };
    if has_blanks(pattern) {
        return Err(RuleError::Syntax);
    }
    selector.add_keys(pattern, access);
    Ok(())
}

/// What stands behind `%`: each letter once, and then the pattern, of which Redis forgives that it is missing.
fn read_access(rest: &[u8]) -> Option<(Access, &[u8])> {
    let mut access = 0;
    for (at, byte) in rest.iter().enumerate() {
        let letter = match byte.to_ascii_uppercase() {
            b'R' => READ,
            b'W' => WRITE,
            b'~' if access != 0 => return Some((access, &rest[at + 1..])),
            _ => return None,
        };
        if access & letter != 0 {
            return None;
        }
        access |= letter;
    }
    (access != 0).then_some((access, &[]))
}

fn add_channels(selector: &mut Selector, pattern: &[u8]) -> Result<(), RuleError> {
    if selector.has_all_channels() {
        return Err(RuleError::AllChannels);
    }
    if has_blanks(pattern) {
        return Err(RuleError::Syntax);
    }
    selector.add_channels(pattern);
    Ok(())
}

/// Whether text could not be told from several words in a file.
pub fn has_blanks(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, 0 | b' ' | b'\t'..=b'\r'))
}

/// Puts selectors that came as several words together. The error is the word at which one begins that does
/// not end.
pub fn merge_selectors<'a>(words: &[&'a [u8]]) -> Result<Vec<Cow<'a, [u8]>>, &'a [u8]> {
    let mut merged = Vec::with_capacity(words.len());
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for word in words {
        if let Some((_, text)) = &mut open {
            text.push(b' ');
            text.extend_from_slice(word);
        } else if word.starts_with(b"(") && !word.ends_with(b")") {
            open = Some((*word, word.to_vec()));
            continue;
        } else {
            merged.push(Cow::Borrowed(*word));
            continue;
        }
        if word.ends_with(b")") {
            merged.extend(open.take().map(|(_, text)| Cow::Owned(text)));
        }
    }
    match open {
        Some((begin, _)) => Err(begin),
        None => Ok(merged),
    }
}
