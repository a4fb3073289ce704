//! Looking keys up: with what a look counts as (a hit or a miss, a use), or without a trace.

use super::Db;
use super::Expiring;
use crate::base::time::UnixMs;
use crate::keyspace::entry::EntryRef;
use crate::keyspace::table::Place;
use crate::keyspace::{Hashed, event, usage};
use crate::value::{Kind, ValueRef};

impl Db<'_, '_> {
    #[inline(always)]
    pub(super) fn locate_counted(&mut self, key: &[u8]) -> Option<(Hashed, Place)> {
        let found = self.locate(key);
        match found {
            Some(_) => self.effects.hits += 1,
            None => {
                self.effects.misses += 1;
                self.notify(key, event::KEYMISS);
            }
        }
        found
    }

    /// Looks a key up for reading: counts a hit or a miss, tells of a miss, and stamps the access clock.
    #[inline]
    pub fn entry(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate_counted(key)?;
        if self.touch {
            let access = self.used(h, place);
            let entry = self.table_mut(h.slot).get_mut(place);
            entry.set_access(access);
            return Some(entry.as_ref());
        }
        Some(self.table(h.slot).get(place))
    }

    /// As [`Db::entry`], without stamping the access: to ask about a key is not to use it (TTL, TYPE, EXISTS).
    #[inline]
    pub fn glance(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate_counted(key)?;
        Some(self.table(h.slot).get(place))
    }

    /// Looks a key up for its value: counts a hit or a miss and stamps the access.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        self.entry(key).map(EntryRef::value)
    }

    /// The look of a command that goes on to write, which is when the key counts as used. A command that `look` refuses
    /// has used it, too.
    pub fn inspect<T, E>(
        &mut self,
        key: &[u8],
        look: impl FnOnce(Option<ValueRef<'_>>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let located = self.locate(key);
        let found = look(located.map(|(h, place)| self.table(h.slot).get(place).value()));
        if found.is_err()
            && let Some((h, place)) = located
        {
            self.stamp(h, place);
        }
        found
    }

    /// Looks a key up without a trace: no hit, no access (writers that look first).
    #[inline]
    pub fn peek(&mut self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (h, place) = self.locate(key)?;
        Some(self.table(h.slot).get(place))
    }

    /// Looks a key up without changing anything, so that several can be looked at side by side; a
    /// dead one reads as missing.
    pub fn view(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let h = self.hashed(key);
        let (_, entry) = self.table(h.slot).find_entry(h.hash, key)?;
        (self.expiring == Expiring::Ignore || !entry.is_expired(self.now)).then_some(entry)
    }

    /// Whether a key is there, without a trace.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The type of a key's value, without a trace.
    pub fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        self.peek(key).map(EntryRef::kind)
    }

    /// The expiry of a key: `None` for a missing key, `Some(None)` for one that stays.
    pub fn expire_of(&mut self, key: &[u8]) -> Option<Option<UnixMs>> {
        self.peek(key).map(EntryRef::expire)
    }

    /// Overwrites what is remembered of a key's use, as RESTORE or a file tells it: its frequency under an
    /// LFU policy, otherwise the seconds since.
    pub fn set_usage(&mut self, key: &[u8], idle_seconds: Option<u64>, frequency: Option<u8>) {
        let access = match (usage::is_counted(self.access), idle_seconds, frequency) {
            (true, _, Some(frequency)) => self.ks.usage.with_count(frequency),
            // The clock has 24 bits.
            (false, Some(seconds), _) => self.access.wrapping_sub(seconds.min(0xff_ffff) as u32),
            _ => return,
        };
        self.set_access(key, access);
    }

    /// Overwrites what is remembered of a key's use with what [`EntryRef::access`] said of another one.
    pub fn set_access(&mut self, key: &[u8], access: u32) {
        if let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_access(access);
        }
    }

    /// Notes a use of a key that is neither read nor changed in its value (EXPIRE, RENAME). True if it is there.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        let Some((h, place)) = self.locate(key) else { return false };
        self.stamp(h, place);
        true
    }

    /// Notes a use of an entry.
    pub(super) fn stamp(&mut self, h: Hashed, place: Place) {
        let access = self.used(h, place);
        self.table_mut(h.slot).get_mut(place).set_access(access);
    }

    /// What an entry that is used now is stamped with.
    #[inline(always)]
    pub(super) fn used(&mut self, h: Hashed, place: Place) -> u32 {
        if usage::is_counted(self.access) || !self.touch { self.count_use(h, place) } else { self.access }
    }

    /// CLIENT NO-TOUCH leaves what is remembered as it is, whatever the command does to the key.
    #[cold]
    pub(super) fn count_use(&mut self, h: Hashed, place: Place) -> u32 {
        let access = self.table(h.slot).get(place).access();
        if self.touch { self.ks.usage.count(access, &mut self.effects.rng) } else { access }
    }
}
