//! The scripts that a thread has run, so that nearly every call finds its script without a lock or a search that other
//! threads take part in.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlua::{Lua, RegistryKey};

use super::Engine;
use super::store::{Script, Store, sha1_hex};

/// Digits of a script's name.
const DIGITS: usize = 40;

/// A longer text is not compared with that of the last EVAL.
const LONG_TEXT: usize = 64 * 1024;

/// A script, and what one thread has made of it.
#[derive(Debug)]
pub struct Known {
    /// As all threads have it.
    pub script: Arc<Script>,
    pub(super) compiled: OnceCell<RegistryKey>,
    /// [`Store::removals`] when the script was last seen in the store.
    seen: Cell<u64>,
}

/// What a thread keeps of scripts.
#[derive(Default)]
pub(super) struct Kept {
    by_sha: HashMap<[u8; DIGITS], Rc<Known>, foldhash::fast::RandomState>,
    /// The last text of an EVAL.
    last: Option<(Vec<u8>, Rc<Known>)>,
    /// [`Store::flushes`] when this was last looked at.
    flushes: u64,
}

impl Kept {
    /// Takes over what the store has said of a script. `seen`: the removals before it said so.
    fn note(
        &mut self,
        lua: &Lua,
        store: &Store,
        sha: [u8; DIGITS],
        script: Arc<Script>,
        seen: u64,
    ) -> Rc<Known> {
        let flushes = store.flushes.load(Ordering::Acquire);
        if let Some(known) = self.by_sha.get(&sha).filter(|known| Arc::ptr_eq(&known.script, &script)) {
            known.seen.set(seen);
            return Rc::clone(known);
        }
        // What was evicted from the store is here still.
        if self.flushes != flushes || self.by_sha.len() > 2 * store.script_count() + 100 {
            *self = Self { flushes, ..Self::default() };
            lua.expire_registry_values();
        }
        let known = Rc::new(Known { script, compiled: OnceCell::new(), seen: Cell::new(seen) });
        self.by_sha.insert(sha, Rc::clone(&known));
        known
    }
}

/// The name in lower case; `None`: it is none.
fn name_of(sha: &[u8]) -> Option<[u8; DIGITS]> {
    let mut name: [u8; DIGITS] = sha.try_into().ok()?;
    name.make_ascii_lowercase();
    Some(name)
}

impl Engine {
    /// The script of this name, in any case.
    pub fn script(&self, store: &Store, sha: &[u8]) -> Option<Rc<Known>> {
        let name = name_of(sha)?;
        let removals = store.removals.load(Ordering::Acquire);
        let mut kept = self.kept.borrow_mut();
        if let Some(known) = kept.by_sha.get(&name)
            && known.seen.get() == removals
        {
            store.touch(&known.script);
            return Some(Rc::clone(known));
        }
        let script = store.script(&name)?;
        Some(kept.note(&self.lua, store, name, script, removals))
    }

    /// The script with this text, if the store has it.
    pub fn script_of(&self, store: &Store, code: &[u8]) -> Option<Rc<Known>> {
        if let Some((text, known)) = &self.kept.borrow().last
            && text == code
            && known.seen.get() == store.removals.load(Ordering::Acquire)
        {
            store.touch(&known.script);
            return Some(Rc::clone(known));
        }
        let known = self.script(store, sha1_hex(code).as_bytes())?;
        if code.len() <= LONG_TEXT {
            self.kept.borrow_mut().last = Some((code.to_vec(), Rc::clone(&known)));
        }
        Some(known)
    }

    /// As [`Store::keep`].
    pub fn keep(&self, store: &Store, code: &[u8], loaded: bool) -> Result<Rc<Known>, String> {
        if !loaded && let Some(known) = self.script_of(store, code) {
            return Ok(known);
        }
        let removals = store.removals.load(Ordering::Acquire);
        let script = store.keep(code, loaded)?;
        let name = name_of(script.sha.as_bytes()).expect("a name of the store's");
        Ok(self.kept.borrow_mut().note(&self.lua, store, name, script, removals))
    }
}
