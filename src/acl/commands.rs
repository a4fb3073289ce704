//! The commands that a selector allows: one bit for each, and the rules that say so.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::Catalog;
use super::category::Categories;

/// Which commands are allowed.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// Every one: nothing was taken away since `+@all`.
    all: bool,
    /// Whether commands that do not exist yet would be allowed: how the text begins.
    future: bool,
    bits: Vec<u64>,
    /// Of commands that are not allowed as such: the first arguments with which they are, in lower case.
    first_args: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    rules: RuleTexts,
}

/// The rules since the last `+@all` or `-@all`, without those that a later one replaced.
#[derive(Clone, Debug, Default)]
struct RuleTexts {
    /// By what they speak of, in lower case: when they were said, and whether they allow it.
    by_name: BTreeMap<String, (u64, bool)>,
    next: u64,
}

impl RuleTexts {
    /// A rule about a command replaces earlier ones about it and its subcommands.
    fn add(&mut self, name: &str, allow: bool) {
        let name = name.to_ascii_lowercase();
        // `}` is the character behind `|`.
        let subs = format!("{name}|")..format!("{name}}}");
        let replaced: Vec<String> = self.by_name.range(subs).map(|(sub, _)| sub.clone()).collect();
        for sub in replaced {
            self.by_name.remove(&sub);
        }
        self.next += 1;
        self.by_name.insert(name, (self.next, allow));
    }

    fn in_order(&self) -> Vec<(&str, bool)> {
        let mut rules: Vec<_> =
            self.by_name.iter().map(|(name, (at, allow))| (*at, name.as_str(), *allow)).collect();
        rules.sort_unstable();
        rules.into_iter().map(|(_, name, allow)| (name, allow)).collect()
    }
}

impl Commands {
    /// `+@all` or `-@all`.
    pub fn set_all(&mut self, catalog: &dyn Catalog, allow: bool) {
        let word = if allow { u64::MAX } else { 0 };
        *self = Self {
            all: allow,
            future: allow,
            bits: vec![word; catalog.count().div_ceil(64)],
            ..Self::default()
        };
    }

    /// `+command` or `-command`; of a container with its subcommands.
    pub fn set_command(&mut self, catalog: &dyn Catalog, id: usize, allow: bool) {
        self.change(catalog, id, allow);
        self.rules.add(catalog.name(id), allow);
    }

    /// `+@category` or `-@category`.
    pub fn set_category(&mut self, catalog: &dyn Catalog, category: Categories, name: &str, allow: bool) {
        for id in (0..catalog.count()).filter(|id| catalog.categories(*id) & category != 0) {
            self.change(catalog, id, allow);
        }
        self.rules.add(&format!("@{name}"), allow);
    }

    /// `+command|argument` of a command without subcommands.
    pub fn add_first_arg(&mut self, catalog: &dyn Catalog, id: usize, arg: &str) {
        self.first_args.entry(id).or_default().insert(arg.to_ascii_lowercase().into_bytes());
        self.rules.add(&format!("{}|{arg}", catalog.name(id)), true);
    }

    fn change(&mut self, catalog: &dyn Catalog, id: usize, allow: bool) {
        self.set_bit(id, allow);
        self.first_args.remove(&id);
        for sub in catalog.subcommands(id) {
            self.set_bit(*sub, allow);
        }
    }

    fn set_bit(&mut self, id: usize, allow: bool) {
        if self.bits.len() <= id / 64 {
            self.bits.resize(id / 64 + 1, 0);
        }
        let bit = 1 << (id % 64);
        if allow {
            self.bits[id / 64] |= bit;
        } else {
            self.bits[id / 64] &= !bit;
            self.all = false;
        }
    }

    /// How many rules there are to be kept.
    pub fn count(&self) -> usize {
        self.rules.by_name.len()
    }

    /// Whether every command is allowed.
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Whether a command is allowed, with this as its first argument.
    #[inline]
    pub fn allows(&self, id: usize, first_arg: Option<&[u8]>) -> bool {
        self.has(id) || self.allows_first_arg(id, first_arg)
    }

    /// Whether a command is allowed with whatever arguments.
    #[inline]
    pub fn has(&self, id: usize) -> bool {
        self.all || self.bits.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 != 0)
    }

    #[cold]
    fn allows_first_arg(&self, id: usize, first_arg: Option<&[u8]>) -> bool {
        let Some((args, arg)) = self.first_args.get(&id).zip(first_arg) else { return false };
        args.contains(&arg.to_ascii_lowercase())
    }

    /// The rules that come to the same, as few as are needed.
    pub fn text(&self) -> String {
        let mut text = String::from(if self.future { "+@all" } else { "-@all" });
        for (name, allow) in self.rules.in_order() {
            text.extend([" ", if allow { "+" } else { "-" }, name]);
        }
        text
    }
}
