//! Rules and checks against a small catalogue. Texts are those of Redis 7.4, as `tests/sessions/acl.session`
//! has them; what stands here is what a session cannot show, or shows in too many words.

use std::ops::Range;

use proptest::prelude::*;

use crate::base::glob;

use super::category::{self, ADMIN, Categories, FAST, READ, SLOW, WRITE};
use super::check::{Demand, KeyUse, Keys};
use super::rule::{Rules, merge_selectors};
use super::selector;
use super::{Accounts, Catalog, Denial, User, file};

/// Names, categories and subcommands.
struct Small(Vec<(&'static str, Categories, Vec<usize>)>);

fn small() -> Small {
    Small(vec![
        ("get", READ | FAST, vec![]),
        ("set", WRITE | SLOW, vec![]),
        ("select", FAST, vec![]),
        ("config", SLOW, vec![4, 5]),
        ("config|get", ADMIN | SLOW, vec![]),
        ("config|set", ADMIN | SLOW, vec![]),
        ("copy", WRITE | SLOW, vec![]),
        ("publish", FAST, vec![]),
        ("auth", FAST, vec![]),
    ])
}

impl Catalog for Small {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn find(&self, name: &[u8]) -> Option<usize> {
        let is = |known: &str| !known.contains('|') && name.eq_ignore_ascii_case(known.as_bytes());
        self.0.iter().position(|(known, ..)| is(known))
    }
    fn find_sub(&self, container: usize, word: &[u8]) -> Option<usize> {
        let name = [self.name(container).as_bytes(), b"|", word].concat();
        self.0.iter().position(|(known, ..)| name.eq_ignore_ascii_case(known.as_bytes()))
    }
    fn subcommands(&self, id: usize) -> &[usize] {
        &self.0[id].2
    }
    fn name(&self, id: usize) -> &str {
        self.0[id].0
    }
    fn categories(&self, id: usize) -> Categories {
        self.0[id].1
    }
}

/// A call: words, and a letter for each argument: `r`ead, `w`ritten, `b`oth, `c`hannel, `p`attern of channels.
struct Call<'a>(&'a Small, Vec<&'a [u8]>, &'a [u8]);

impl Demand for Call<'_> {
    fn command(&self) -> usize {
        let top = self.0.find(self.1[0]).unwrap();
        if self.0.subcommands(top).is_empty() { top } else { self.0.find_sub(top, self.1[1]).unwrap() }
    }
    fn is_free(&self) -> bool {
        self.1[0] == b"auth"
    }
    fn first_arg(&self) -> Option<&[u8]> {
        self.1.get(1).copied()
    }
    fn arg(&self, at: usize) -> &[u8] {
        self.1[at]
    }
    fn keys(&self) -> Keys {
        let access = |letter: &u8| match letter {
            b'r' => Some(selector::READ),
            b'w' => Some(selector::WRITE),
            b'b' => Some(selector::READ | selector::WRITE),
            _ => None,
        };
        let one = |(at, letter)| access(letter).map(|access| KeyUse { at: at + 1, access });
        self.2.iter().enumerate().filter_map(one).collect()
    }
    fn channels(&self) -> (Range<usize>, bool) {
        let is_channel = self.2.iter().any(|letter| b"cp".contains(letter));
        (if is_channel { 1..self.1.len() } else { 0..0 }, self.2.contains(&b'p'))
    }
}

fn user(text: &str) -> Result<User, String> {
    let catalog = small();
    let rules = Rules { catalog: &catalog, all_channels: false };
    let mut user = rules.new_user("u");
    for rule in merge_selectors(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>()).unwrap() {
        rules.apply(&mut user, &rule).map_err(|e| e.to_string())?;
    }
    Ok(user)
}

fn rules_of(text: &str) -> String {
    String::from_utf8(user(text).unwrap().rules()).unwrap()
}

#[test]
fn a_later_rule_replaces_earlier_ones_about_the_same() {
    for (rules, text) in [
        ("+GET +set", "-@all +get +set"),
        ("+get +set -get", "-@all +set -get"),
        ("+config|get +config|set +config", "-@all +config"),
        ("+config -config|set", "-@all +config -config|set"),
        ("+select|0 +SELECT|1", "-@all +select|0 +select|1"),
        ("+select|0 +select", "-@all +select"),
        ("+get +@all -set", "+@all -set"),
        ("allcommands nocommands +@FAST", "-@all +@fast"),
    ] {
        let shown = rules_of(rules);
        assert_eq!(shown, format!("off sanitize-payload resetchannels {text}"), "{rules}");
        // What is written back means the same.
        assert_eq!(rules_of(&shown), shown);
    }
}

#[test]
fn a_call_needs_one_selector_that_allows_all_of_it() {
    let catalog = small();
    for (rules, words, uses, answer) in [
        ("+get ~a*", "get a1", "r", Ok(())),
        ("+get ~a*", "get b1", "r", Err(Denial::Key(1))),
        ("+get ~a*", "set a1", "w", Err(Denial::Command)),
        ("+get %R~a*", "get a", "r", Ok(())),
        ("+@all %R~a*", "set a", "w", Err(Denial::Key(1))),
        ("+@all %R~a* %W~a*", "set a", "b", Ok(())),
        // Two patterns of which each gives a half are not one that gives both.
        ("+@all %R~a* %W~*a", "set a", "b", Err(Denial::Key(1))),
        ("+@all %R~a %W~b", "copy a b", "rw", Ok(())),
        ("+@all %R~a %W~b", "copy b a", "rw", Err(Denial::Key(1))),
        ("+get ~a (+set ~b)", "set b", "w", Ok(())),
        ("+get ~a (+set ~b)", "set a", "w", Err(Denial::Key(1))),
        // The reason is that of the selector that comes nearest.
        ("+copy ~a (+copy ~c ~b)", "copy c a", "rw", Err(Denial::Key(2))),
        ("+config|get", "config GET", "", Ok(())),
        ("+config|get", "config set", "", Err(Denial::Command)),
        ("+config -config|set", "config set", "", Err(Denial::Command)),
        ("+select|0", "select 0", "", Ok(())),
        ("+select|0", "select 1", "", Err(Denial::Command)),
        ("+select|0 -select", "select 0", "", Err(Denial::Command)),
        ("+publish &ch:*", "publish ch:1", "c", Ok(())),
        ("+publish &ch:*", "publish x", "c", Err(Denial::Channel(1))),
        ("+publish &ch:*", "publish ch:*", "p", Ok(())),
        ("+publish &ch:*", "publish ch:1", "p", Err(Denial::Channel(1))),
        ("-@all", "auth x", "", Ok(())),
        ("+@read allkeys", "get x", "r", Ok(())),
        ("+@all -@read allkeys", "get x", "r", Err(Denial::Command)),
        ("+get ~?[ab]\\*", "get xa*", "r", Ok(())),
        ("+get %R~", "get x", "r", Err(Denial::Key(1))),
    ] {
        let call = Call(&catalog, words.split(' ').map(str::as_bytes).collect(), uses.as_bytes());
        assert_eq!(user(rules).unwrap().check(&call), answer, "{rules}: {words}");
    }
}

#[test]
fn passwords_are_kept_as_hashes_and_only_so() {
    let user = user("on >secret >other").unwrap();
    assert!(user.admits(b"secret") && user.admits(b"other") && !user.admits(b"secre") && !user.admits(b""));
    assert!(!format!("{user:?}").contains("2bb80d") && !format!("{user:?}").contains("secret"));
    let again = super::tests::user(&String::from_utf8(user.rules()).unwrap()).unwrap();
    assert!(again.admits(b"secret"));
    assert!(!super::tests::user("off >secret").unwrap().admits(b"secret"));
    assert!(super::tests::user("on >secret nopass").unwrap().admits(b"whatever"));
}

#[test]
fn who_is_logged_in_follows_the_user() {
    let catalog = small();
    let accounts = Accounts::new(User::unprotected(&catalog));
    let mut anybody = accounts.log_in_as_default();
    assert!(anybody.user().is_unrestricted());
    let mut other = User::unprotected(&catalog);
    other.name = "u".into();
    accounts.put(other);
    let mut login = accounts.log_in(b"u").unwrap();
    assert!(login.user().is_unrestricted());
    accounts.put(user("+get").unwrap());
    assert!(!login.user().is_unrestricted());
    accounts.replace(vec![user("on +set").unwrap()], &catalog);
    assert!(login.user().enabled, "a user that stays is the same one");
    let mut user = User::unprotected(&catalog);
    user.root = super::Selector::new(&catalog, false);
    accounts.put(user);
    assert!(!anybody.user().is_unrestricted());
    accounts.replace(vec![], &catalog);
    assert!(login.user().deleted && anybody.user().is_unrestricted());
    assert_eq!(accounts.all().len(), 1);
}

#[test]
fn a_file_is_read_as_a_whole_or_not_at_all() {
    let catalog = small();
    let rules = Rules { catalog: &catalog, all_channels: false };
    let read = |text: &str| file::read(text.as_bytes(), "f", &rules);
    let users = read("\n  user a on >p ~x  \r\nuser b on (+get ~x) (+set)\n").unwrap();
    let text = file::write(&users);
    assert_eq!(file::write(&file::read(&text, "f", &rules).unwrap()), text);
    assert_eq!(users[1].selectors.len(), 2);
    // As redis-server 7.0.15 tells them.
    for (text, error) in [
        ("# c", "f:1 should start with user keyword followed by the username. "),
        ("\nuser", "f:2 should start with user keyword followed by the username. "),
        ("user a\nuser a", "WARNING: Duplicate user 'a' found on line 2. "),
        (
            "user a +nosuch",
            "f:1: Error in applying operation '+nosuch': Unknown command or category name in ACL. ",
        ),
        ("user a >secret y", "f:1: Syntax error. "),
        ("user a (+get", "f:1: Unmatched parenthesis in selector definition."),
    ] {
        let rest = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        assert_eq!(read(text).unwrap_err(), format!("{error}{rest}"));
    }
}

#[test]
fn many_rules_take_no_longer_than_few() {
    let catalog = small();
    let rules = Rules { catalog: &catalog, all_channels: false };
    let mut user = rules.new_user("u");
    for i in 0..200_000 {
        rules.apply(&mut user, format!("~key:{i}").as_bytes()).unwrap();
        rules.apply(&mut user, format!("+select|{i}").as_bytes()).unwrap();
        rules.apply(&mut user, format!("&ch{i}").as_bytes()).unwrap();
    }
    assert_eq!(user.root.keys().count(), 200_000);
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "on",
        "off",
        "nopass",
        "reset",
        "resetpass",
        "resetkeys",
        "allkeys",
        "allchannels",
        "resetchannels",
        "allcommands",
        "nocommands",
        "clearselectors",
        "+@all",
        "-@all",
        "+get",
        "-get",
        "+config|get",
        "-config|set",
        "+select|0",
        "+config",
        "+@read",
        "-@write",
        ">pw",
        "<pw",
        "~a*",
        "%R~b",
        "%W~*",
        "&c*",
        "~*",
        "&*",
        "sanitize-payload",
        "skip-sanitize-payload",
        "(+get ~a)",
        "(%W~x &y -@all)",
        "()",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    let sign = prop::sample::select(b"+-~%&<>#!@|x".to_vec());
    let noise = (sign, prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(sign, rest)| {
        let mut word = vec![sign];
        word.extend(rest);
        word
    });
    prop_oneof![4 => known, 1 => noise]
}

proptest! {
    /// Whatever the words are: nothing panics, and what is shown of a user is the same user.
    #[test]
    fn what_is_shown_of_a_user_reads_back(words in prop::collection::vec(word(), 0..20)) {
        let catalog = small();
        let rules = Rules { catalog: &catalog, all_channels: false };
        let mut user = rules.new_user("u");
        for word in &words {
            let mut next = user.clone();
            if rules.apply(&mut next, word).is_ok() {
                user = next;
            }
        }
        let line = user.line();
        prop_assert_eq!(file::read(&line, "f", &rules).map(|again| again[0].line()), Ok(line));
        for word in &words {
            let _ = rules.apply(&mut user, &[b"(", word.as_slice(), b")"].concat());
        }
    }
}

#[test]
fn categories_have_one_name_each() {
    for (bit, name) in category::NAMES {
        assert_eq!(category::find(name.to_uppercase().as_bytes()), Some(bit));
        assert_eq!(category::names(bit).collect::<Vec<_>>(), [name]);
    }
    assert_eq!(category::find(b"all"), None);
}

/// The short way for patterns that only ask for a beginning finds what the pattern says.
#[test]
fn prefixes_match_as_their_patterns_do() {
    let texts =
        ["", "a", "b", "key:", "key:1", "kez:1", "1234567", "12345678", "12345679", "123456789", "12345678x"];
    for prefix in texts {
        let pattern = format!("{prefix}*");
        let root = user(&format!("~{pattern}")).unwrap().root.clone();
        for key in texts {
            // `~*` asks no pattern: the empty key is among all keys.
            let matches = prefix.is_empty() || glob::matches(pattern.as_bytes(), key.as_bytes());
            assert_eq!(root.allows_key(key.as_bytes(), || selector::READ), matches, "{pattern} {key}");
        }
    }
    let root = user("%R~r:* %W~w*:* ~b:*").unwrap().root.clone();
    let both = || selector::READ | selector::WRITE;
    for (key, reads, writes, does_both) in [
        ("r:1", true, false, false),
        ("wx:1", false, true, false),
        ("b:1", true, true, true),
        ("x", false, false, false),
    ] {
        let key = key.as_bytes();
        assert_eq!(root.allows_key(key, || selector::READ), reads);
        assert_eq!(root.allows_key(key, || selector::WRITE), writes);
        assert_eq!(root.allows_key(key, both), does_both);
    }
}
