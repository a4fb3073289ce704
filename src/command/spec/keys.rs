//! Where the keys of a command stand among its arguments, and what is done with them.
//! Source: the documentation of "Command key specifications".

use smallvec::SmallVec;

/// What a command does with the keys of a specification.
pub mod key {
    /// Reads the value, and neither changes nor deletes it.
    pub const RO: u16 = 1 << 0;
    /// Changes the value that is there.
    pub const RW: u16 = 1 << 1;
    /// Replaces the value whatever it was.
    pub const OW: u16 = 1 << 2;
    /// Deletes the key.
    pub const RM: u16 = 1 << 3;
    /// Tells something of the value's content, as a reply or as a copy.
    pub const ACCESS: u16 = 1 << 4;
    /// Changes content that is there already.
    pub const UPDATE: u16 = 1 << 5;
    /// Adds content, and changes or deletes none.
    pub const INSERT: u16 = 1 << 6;
    /// Removes content, or the whole value.
    pub const DELETE: u16 = 1 << 7;
    /// Only looks like a key: a channel, routed and locked by its slot.
    pub const NOT_KEY: u16 = 1 << 8;
    /// The specification does not find all keys: clients must ask COMMAND GETKEYS.
    pub const INCOMPLETE: u16 = 1 << 9;
    /// What is done with the key depends on the arguments.
    pub const VARIABLE_FLAGS: u16 = 1 << 10;

    /// Whether the value that is there is changed in place, and not deleted or replaced as a whole.
    pub const fn is_changed(flags: u16) -> bool {
        flags & (RM | OW) == 0
    }

    /// The words of COMMAND, in the order in which it shows them.
    pub const NAMES: &[(u16, &str)] = &[
        (RO, "RO"),
        (RW, "RW"),
        (OW, "OW"),
        (RM, "RM"),
        (ACCESS, "access"),
        (UPDATE, "update"),
        (INSERT, "insert"),
        (DELETE, "delete"),
        (NOT_KEY, "not_key"),
        (INCOMPLETE, "incomplete"),
        (VARIABLE_FLAGS, "variable_flags"),
    ];
}

/// Where the keys of a specification begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// At this argument, unless the keyword is there (MIGRATE with KEYS). Shown as an index.
    IndexUnless(usize, Keyword),
    /// Behind this word.
    Keyword(Keyword),
    /// Behind this word wherever it stands; shown as a keyword, spelled so.
    EachKeyword(Keyword, &'static str),
    /// Behind the word, if it is there; where it stands more than once, the last one counts. Nothing is told of it.
    UnknownKeyword(Keyword),
    /// Keys that no argument names.
    Unknown,
}

/// A word in front of keys. It is found exactly where the handler finds it: the locks depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Keyword {
    /// Lower case.
    pub word: &'static str,
    /// Where COMMAND says that the search begins; from the end when negative.
    pub told_from: i32,
    /// Where it begins.
    pub from: usize,
    /// Options in front of it, with the number of words that belong to each: those may be anything.
    pub options: &'static [(&'static str, usize)],
}

impl Keyword {
    /// Where the word stands first.
    pub fn find(&self, args: &[&[u8]]) -> Option<usize> {
        self.places(args).next()
    }

    /// Where the word stands. Once it is one of the options, it may stand there again.
    fn places<'a>(&'a self, args: &'a [&'a [u8]]) -> impl Iterator<Item = usize> + 'a {
        let is = |at: usize, word: &str| args[at].eq_ignore_ascii_case(word.as_bytes());
        let mut at = self.from;
        std::iter::from_fn(move || {
            while at < args.len() {
                let here = at;
                at += 1 + self.options.iter().find(|(word, _)| is(at, word)).map_or(0, |(_, words)| *words);
                if is(here, self.word) {
                    return Some(here);
                }
            }
            None
        })
    }
}

/// Which arguments from there on are keys.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each variant tells what its fields are")]
pub enum Find {
    /// Up to `last` (counted from the begin; negative: from the end), every `step`, and with
    /// `limit` above 1 only the first `1 / limit` of what is left.
    Range { last: i32, step: usize, limit: usize },
    /// As many as the argument `count` says, from `first` on, both counted from the begin.
    Count { count: usize, first: usize, step: usize },
}

/// One key specification.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Bits of [`key`].
    pub flags: u16,
    /// Which argument the search starts from.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
    /// What flags cannot say, for COMMAND INFO; empty for nothing.
    pub notes: &'static str,
}

/// Positions of key arguments.
pub type KeyPositions = SmallVec<[usize; 8]>;

impl KeySpec {
    /// Says what flags cannot.
    pub const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    /// Whether the keys and the words that belong to them, as many of each, do not match in number
    /// (`XREAD STREAMS a b 0`): the handler refuses it, and no node is asked for by keys.
    pub fn is_unbalanced(&self, args: &[&[u8]]) -> bool {
        match (self.begin, self.find) {
            (Begin::Keyword(keyword), Find::Range { limit, .. }) if limit > 1 => {
                keyword.find(args).is_some_and(|at| !(args.len() - at - 1).is_multiple_of(limit))
            }
            _ => false,
        }
    }

    /// Appends the positions of the keys in `args` (the command's name is argument 0). Stops where
    /// the arguments end. False when a key count is not a number, 0, or too large.
    pub fn positions(&self, args: &[&[u8]], out: &mut KeyPositions) -> bool {
        let begin = match self.begin {
            Begin::Index(at) => at,
            Begin::IndexUnless(_, keyword) if keyword.find(args).is_some() => return true,
            Begin::IndexUnless(at, _) => at,
            Begin::Keyword(keyword) => match keyword.find(args) {
                Some(at) => at + 1,
                None => return true,
            },
            Begin::EachKeyword(keyword, _) => {
                out.extend(keyword.places(args).map(|at| at + 1).filter(|at| *at < args.len()));
                return true;
            }
            Begin::UnknownKeyword(keyword) => {
                out.extend(keyword.places(args).map(|at| at + 1).filter(|at| *at < args.len()).last());
                return true;
            }
            Begin::Unknown => return true,
        };
        match self.find {
            Find::Range { last, step, limit } => {
                let mut end = if last >= 0 {
                    begin + last as usize
                } else {
                    args.len().saturating_sub(last.unsigned_abs() as usize)
                };
                if last < 0 && limit > 1 && args.len() > begin {
                    end = begin + (args.len() - begin) / limit - 1;
                }
                let mut at = begin;
                while at <= end && at < args.len() {
                    out.push(at);
                    at += step;
                }
                true
            }
            Find::Count { count, first, step } => {
                let Some(text) = args.get(begin + count) else { return true };
                let Some(n) = crate::base::num::parse_i64(text).and_then(|n| usize::try_from(n).ok()) else {
                    return false;
                };
                let first = begin + first;
                if n == 0 || n > args.len().saturating_sub(first).div_ceil(step) {
                    return false;
                }
                out.extend((0..n).map(|i| first + i * step));
                true
            }
        }
    }
}

/// One key at `at`.
pub const fn one(at: usize, flags: u16) -> KeySpec {
    KeySpec { flags, begin: Begin::Index(at), find: Find::Range { last: 0, step: 1, limit: 0 }, notes: "" }
}

/// Keys from `at` on, every `step`, up to the one that stands `last` behind it (negative: from the end).
pub const fn range(at: usize, last: i32, step: usize, flags: u16) -> KeySpec {
    KeySpec { flags, begin: Begin::Index(at), find: Find::Range { last, step, limit: 0 }, notes: "" }
}

/// A count at `at`, and that many keys behind it.
pub const fn counted(at: usize, flags: u16) -> KeySpec {
    KeySpec { flags, begin: Begin::Index(at), find: Find::Count { count: 0, first: 1, step: 1 }, notes: "" }
}

/// Keys behind a word: half of what is left when `limit` is 2 (XREAD).
pub const fn behind(keyword: Keyword, limit: usize, flags: u16) -> KeySpec {
    KeySpec {
        flags,
        begin: Begin::Keyword(keyword),
        find: Find::Range { last: -1, step: 1, limit },
        notes: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(spec: KeySpec, line: &str) -> Vec<usize> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = KeyPositions::new();
        spec.positions(&args, &mut out);
        out.to_vec()
    }

    #[test]
    fn specifications_find_their_keys() {
        assert_eq!(keys(one(1, key::RO), "get a"), [1]);
        assert_eq!(keys(range(1, -1, 2, key::OW), "mset a 1 b 2"), [1, 3]);
        assert_eq!(keys(range(1, -2, 1, key::RW), "blpop a b 0"), [1, 2]);
        assert_eq!(keys(range(1, 1, 1, key::RW), "rename a b"), [1, 2]);
        assert_eq!(keys(counted(2, key::RO), "zunionstore d 2 a b weights 1 2"), [3, 4]);
        assert_eq!(keys(counted(1, key::RO), "zunion 5 a"), [] as [usize; 0]);
    }

    #[test]
    fn a_value_that_looks_like_the_keyword_is_passed_over() {
        let streams =
            Keyword { word: "streams", told_from: 4, from: 1, options: &[("group", 2), ("count", 1)] };
        let read = |line| keys(behind(streams, 2, key::RO), line);
        assert_eq!(read("xreadgroup count 2 group g c streams a b 0 0"), [7, 8]);
        assert_eq!(read("xreadgroup count 2 group streams streams streams a 0"), [7]);
        let word = Keyword { word: "keys", told_from: -2, from: 6, options: &[("auth", 1)] };
        let migrate = |line| {
            let first = KeySpec { begin: Begin::IndexUnless(3, word), ..one(3, key::RW) };
            [keys(first, line), keys(behind(word, 0, key::RW), line)].concat()
        };
        assert_eq!(migrate("migrate h p  0 5 copy keys a keys b"), [8, 9, 10]);
        assert_eq!(migrate("migrate h p  0 5 auth keys keys a"), [9]);
        assert_eq!(migrate("migrate h p  0 5 copy"), [3]);
    }
}
