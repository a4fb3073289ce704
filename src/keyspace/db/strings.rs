//! Strings: a short one stands within its entry and is overwritten there.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Db, Expiring, SetExpire};
use crate::base::time::UnixMs;
use crate::keyspace::Hashed;
use crate::keyspace::entry::{Body, Entry, EntryRef, INLINE_MAX};
use crate::keyspace::table::Place;
use crate::value::{Value, ValueMut, ValueRef};

impl Db<'_, '_> {
    /// Sets a string, whatever the key held before.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8], expire: SetExpire) {
        let h = self.hashed(key);
        if let SetExpire::At(at) = expire {
            self.note_own(key, Some(at));
        }
        match self.table(h.slot).find_entry(h.hash, key) {
            Some((place, entry)) => {
                let old = entry.expire();
                self.overwrite(h, place, old, key, bytes, expire);
            }
            None => self.add_string(h, key, bytes, expire),
        }
    }

    /// Sets a key to the string that `new` makes of its value, with one look-up; its expiry stays.
    /// An error of `new` changes nothing.
    #[inline]
    pub fn update_string<B: AsRef<[u8]>, E>(
        &mut self,
        key: &[u8],
        new: impl FnOnce(Option<ValueRef<'_>>) -> std::result::Result<B, E>,
    ) -> std::result::Result<(), E> {
        let located = self.locate(key);
        let entry = located.map(|(h, place)| self.table(h.slot).get(place));
        let old = entry.and_then(EntryRef::expire);
        let bytes = match new(entry.map(EntryRef::value)) {
            Ok(bytes) => bytes,
            Err(refusal) => {
                located.into_iter().for_each(|(h, place)| self.stamp(h, place));
                return Err(refusal);
            }
        };
        match located {
            Some((h, place)) => self.overwrite(h, place, old, key, bytes.as_ref(), SetExpire::Keep),
            // Not `add_string`: a replica may hold the key, dead and hidden.
            None => self.set_string(key, bytes.as_ref(), SetExpire::Keep),
        }
        Ok(())
    }

    #[inline]
    pub(super) fn add_string(&mut self, h: Hashed, key: &[u8], bytes: &[u8], expire: SetExpire) {
        let at = if let SetExpire::At(at) = expire { Some(at) } else { None };
        self.add(h, Entry::new(key, Body::string(bytes), at));
    }

    /// Gives a string other bytes. `old`: the expiry that it has.
    #[inline(always)]
    pub(super) fn overwrite(
        &mut self,
        h: Hashed,
        place: Place,
        old: Option<UnixMs>,
        key: &[u8],
        bytes: &[u8],
        expire: SetExpire,
    ) {
        if self.is_dead(old) {
            self.expire_now(h, place);
            return self.add_string(h, key, bytes, expire);
        }
        self.before_removal(h, place);
        let access = self.used(h, place);
        // Where expired keys count as missing, KEEPTTL finds no time to keep.
        let (now, sees_dead) = (self.now, self.expiring == Expiring::Ignore);
        let entry = self.table_mut(h.slot).get_mut(place);
        let at = match expire {
            SetExpire::Clear => None,
            SetExpire::Keep => old.filter(|at| sees_dead || now <= *at),
            SetExpire::At(at) => Some(at),
        };
        if at == old {
            entry.set_access(access);
            if entry.overwrite_inline(bytes) {
                return;
            }
        }
        self.swap_entry(h, place, Entry::new(key, Body::string(bytes), at), old, access);
    }

    /// Changes a string that exists by giving it other bytes; its expiry stays. `raw` marks a
    /// string that APPEND or SETRANGE built.
    pub fn replace_string(&mut self, key: &[u8], bytes: Vec<u8>, raw: bool) {
        if bytes.len() > INLINE_MAX {
            let expire = self.expire_of(key).flatten();
            self.insert(key, Value::String(Arc::new(bytes)), expire);
            return;
        }
        self.set_string(key, &bytes, SetExpire::Keep);
        if raw && let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
    }

    /// Changes the string under `key`, in place where that is possible; it is made, empty, when the key is missing.
    /// Its expiry stays. The key must hold no other type.
    pub fn edit_string<T>(&mut self, key: &[u8], change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let Ok(result) = self.edit_string_if(key, |_| Ok::<(), Infallible>(()), change);
        result
    }

    /// As [`Db::edit_string`], once `check` has agreed to what is there, if something is; it refuses other types.
    pub fn edit_string_if<T, E>(
        &mut self,
        key: &[u8],
        check: impl FnOnce(ValueRef<'_>) -> std::result::Result<(), E>,
        change: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> std::result::Result<T, E> {
        let Some((h, place)) = self.locate(key) else {
            let mut bytes = Vec::new();
            let result = change(&mut bytes);
            self.replace_string(key, bytes, true);
            return Ok(result);
        };
        let entry = self.table(h.slot).get(place);
        if let Err(refusal) = check(entry.value()) {
            self.stamp(h, place);
            return Err(refusal);
        }
        let old = entry.expire();
        let mut bytes = match entry.value() {
            ValueRef::String(bytes) if entry.object().is_none() => bytes.to_vec(),
            _ => match self.open(h, place) {
                Some(ValueMut::String(shared)) => return Ok(change(Arc::make_mut(shared))),
                _ => unreachable!("somebody has looked at the type"),
            },
        };
        let result = change(&mut bytes);
        if bytes.len() > INLINE_MAX {
            self.replace_string(key, bytes, true);
        } else {
            self.overwrite(h, place, old, key, &bytes, SetExpire::Keep);
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
        Ok(result)
    }

    /// Marks a string as one that APPEND or SETRANGE built (it moved here from another key).
    pub fn mark_raw(&mut self, key: &[u8]) {
        if let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_raw(true);
        }
    }

    /// Marks a string as one that INCRBYFLOAT computed.
    pub fn mark_text(&mut self, key: &[u8]) {
        if let Some((h, place)) = self.locate(key) {
            self.table_mut(h.slot).get_mut(place).set_text();
        }
    }
}
