//! A selector: commands, keys and channels that are allowed together.

use super::catalog::Catalog;
use super::commands::Commands;
use super::distinct::Distinct;
use crate::base::glob;

/// What may be done to a key.
pub type Access = u8;
/// `%R`: its value may be read.
pub const READ: Access = 1 << 0;
/// `%W`: it may be changed and deleted.
pub const WRITE: Access = 1 << 1;

/// What belongs to a pattern of keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyRights {
    /// What may be done to keys that match.
    pub access: Access,
    /// If the pattern is plain text with a `*` at its end.
    prefix: Option<Prefix>,
}

/// What a key begins with, prepared so that its first eight bytes are compared at once.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    len: usize,
    head: u64,
    /// The bits of `head` that count.
    mask: u64,
}

impl Prefix {
    /// The prefix that a pattern asks for, if it asks for nothing else.
    fn of(pattern: &[u8]) -> Option<Self> {
        let text =
            pattern.strip_suffix(b"*").filter(|text| !text.iter().any(|byte| b"*?[\\".contains(byte)))?;
        let (mut head, mut mask) = ([0; 8], [0; 8]);
        for (at, byte) in text.iter().take(8).enumerate() {
            (head[at], mask[at]) = (*byte, u8::MAX);
        }
        Some(Self { len: text.len(), head: u64::from_le_bytes(head), mask: u64::from_le_bytes(mask) })
    }

    /// Whether `key` begins as `pattern` does.
    #[inline]
    fn matches(&self, pattern: &[u8], key: &[u8]) -> bool {
        match key.first_chunk() {
            Some(head) if (u64::from_le_bytes(*head) ^ self.head) & self.mask != 0 => false,
            Some(_) if self.len <= 8 => true,
            // As in every pattern, a `*` does not stand for a text that is empty.
            _ => !key.is_empty() && key.starts_with(&pattern[..self.len]),
        }
    }
}

/// What a user may do; a user may have several, and one of them must allow all of a call.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// Those that it allows.
    pub commands: Commands,
    all_keys: bool,
    keys: Distinct<Vec<u8>, KeyRights>,
    all_channels: bool,
    channels: Distinct<Vec<u8>>,
}

impl Selector {
    /// One that allows nothing but, if so, every channel.
    pub fn new(catalog: &dyn Catalog, all_channels: bool) -> Self {
        let mut selector = Self { all_channels, ..Self::default() };
        selector.commands.set_all(catalog, false);
        selector
    }

    /// One that allows everything.
    pub fn everything(catalog: &dyn Catalog) -> Self {
        let mut selector = Self { all_channels: true, all_keys: true, ..Self::default() };
        selector.commands.set_all(catalog, true);
        selector
    }

    /// How many rules there are to be kept.
    pub fn count(&self) -> usize {
        self.commands.count() + self.keys.iter().len() + self.channels.iter().len()
    }

    /// Every command with every key and every channel.
    pub fn is_everything(&self) -> bool {
        self.commands.is_all() && self.all_keys && self.all_channels
    }

    /// Allows every key, or none any more.
    pub fn set_all_keys(&mut self, all: bool) {
        self.all_keys = all;
        self.keys.clear();
    }

    /// `allkeys`.
    pub fn has_all_keys(&self) -> bool {
        self.all_keys
    }

    /// Allows keys that match a pattern; more if it is there already.
    pub fn add_keys(&mut self, pattern: &[u8], access: Access) {
        let prefix = Prefix::of(pattern);
        self.keys.entry(pattern.to_vec(), || KeyRights { access: 0, prefix }).access |= access;
    }

    /// The patterns of keys, in the order in which they were added.
    pub fn keys(&self) -> impl Iterator<Item = (&[u8], Access)> {
        self.keys.iter().map(|(pattern, rights)| (pattern.as_slice(), rights.access))
    }

    /// Whether all of `access` to a key is allowed, by one pattern. The access is asked for only where a pattern allows
    /// less than everything.
    #[inline]
    pub fn allows_key(&self, key: &[u8], access: impl Fn() -> Access) -> bool {
        let matches = |pattern: &[u8], prefix: &Option<Prefix>| match prefix {
            Some(prefix) => prefix.matches(pattern, key),
            None => glob::matches(pattern, key),
        };
        let grants = |granted: Access| granted == READ | WRITE || access() & !granted == 0;
        self.all_keys
            || self
                .keys
                .iter()
                .any(|(pattern, rights)| grants(rights.access) && matches(pattern, &rights.prefix))
    }

    /// Whether any key at all may be read, whatever its name.
    pub fn reads_any_key(&self) -> bool {
        self.all_keys || self.keys().any(|(pattern, access)| pattern == b"*" && access & READ != 0)
    }

    /// Allows every channel, or none any more.
    pub fn set_all_channels(&mut self, all: bool) {
        self.all_channels = all;
        self.channels.clear();
    }

    /// `allchannels`.
    pub fn has_all_channels(&self) -> bool {
        self.all_channels
    }

    /// Allows channels that match a pattern.
    pub fn add_channels(&mut self, pattern: &[u8]) {
        self.channels.entry(pattern.to_vec(), || ());
    }

    /// The patterns of channels, in the order in which they were added.
    pub fn channels(&self) -> impl Iterator<Item = &[u8]> {
        self.channels.iter().map(|(pattern, ())| pattern.as_slice())
    }

    /// Whether a channel is allowed; a pattern that is listened to must be allowed by its own letters.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let allows = |known: &[u8]| if is_pattern { known == channel } else { glob::matches(known, channel) };
        self.all_channels || self.channels().any(allows)
    }
}
