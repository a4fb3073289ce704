//! What all threads share of scripts: their texts, libraries of functions, and which of them run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use sha1::{Digest as _, Sha1};

use super::shebang::{self, Flags};
use crate::base::hex::hex;
use crate::base::time::UnixMs;

/// So many scripts that came with EVAL alone are kept.
const KEPT: usize = 500;

/// What a script or a function showed of the keys that it uses.
#[derive(Debug, Default)]
pub struct Conduct {
    /// Runs that used no key but those declared; [`LEFT`] once one did.
    clean: AtomicU8,
    /// Whether its text shows that it cannot use another: unknown, [`NO`] or [`YES`].
    proven: AtomicU8,
}

const NO: u8 = 1;
const YES: u8 = 2;

/// So many runs show that a script keeps to its declared keys.
const SHOWN: u8 = 3;
const LEFT: u8 = u8::MAX;

impl Conduct {
    /// Whether the text shows that no key but those declared can be used; looked at once, by `prove`.
    pub fn is_proven(&self, prove: impl FnOnce() -> bool) -> bool {
        match self.proven.load(Ordering::Relaxed) {
            0 => {
                let proven = prove();
                self.proven.store(if proven { YES } else { NO }, Ordering::Relaxed);
                proven
            }
            known => known == YES,
        }
    }

    /// Whether the script has kept to its declared keys so far.
    pub fn keeps_to_its_keys(&self) -> bool {
        (SHOWN..LEFT).contains(&self.clean.load(Ordering::Relaxed))
    }

    /// Notes a run; `clean`: it used no key but those declared.
    pub fn note(&self, clean: bool) {
        if !clean {
            self.clean.store(LEFT, Ordering::Relaxed);
        } else if self.clean.load(Ordering::Relaxed) < SHOWN {
            let _ = self
                .clean
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < SHOWN).then_some(n + 1));
        }
    }
}

/// One of EVAL's scripts.
#[derive(Debug)]
pub struct Script {
    /// 40 hexadecimal digits.
    pub sha: String,
    /// The text without the words of its first line.
    pub body: Vec<u8>,
    /// What its first line says.
    pub flags: Flags,
    /// Decides whether only its declared keys are locked.
    pub conduct: Conduct,
    size: usize,
    /// The newest script when it was used last, and its own number.
    used: AtomicU64,
    number: u64,
}

/// A function of a library.
#[derive(Debug)]
pub struct Function {
    /// As it was registered; calls find it in any case of letters.
    pub name: String,
    /// For FUNCTION LIST.
    pub description: Option<Vec<u8>>,
    /// What it was registered with.
    pub flags: Flags,
    /// Decides whether only its declared keys are locked.
    pub conduct: Conduct,
}

/// A library of functions.
#[derive(Debug)]
pub struct Library {
    /// From the first line of its text.
    pub name: String,
    /// The whole text, as it was given.
    pub code: Vec<u8>,
    /// Where in it the part begins that is compiled.
    pub body_at: usize,
    /// By name in lower case.
    pub functions: BTreeMap<String, Arc<Function>>,
    /// No two libraries have the same, also not of one name.
    pub number: u64,
}

impl Library {
    /// The part that is compiled.
    pub fn body(&self) -> &[u8] {
        &self.code[self.body_at..]
    }
}

/// All libraries at one time.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    by_name: BTreeMap<String, Arc<Library>>,
    /// By name in lower case.
    functions: HashMap<String, (Arc<Library>, Arc<Function>)>,
}

impl Libraries {
    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    /// The library of this name, in this case of letters.
    pub fn get(&self, name: &str) -> Option<&Arc<Library>> {
        self.by_name.get(name)
    }

    /// The function of this name, in any case of letters, and its library.
    pub fn function(&self, name: &[u8]) -> Option<&(Arc<Library>, Arc<Function>)> {
        self.functions.get(&String::from_utf8_lossy(name).to_ascii_lowercase())
    }

    /// Number of libraries.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// No libraries.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Functions of all libraries.
    pub fn function_count(&self) -> usize {
        self.functions.len()
    }

    /// Adds a library. Without `replace`, one of that name must not be there; no function may be there twice.
    pub fn add(&mut self, library: Arc<Library>, replace: bool) -> Result<(), String> {
        let old = self.by_name.get(&library.name).cloned();
        if old.is_some() && !replace {
            return Err(format!("Library '{}' already exists", library.name));
        }
        let taken = |name: &str| {
            let other = self.functions.get(name);
            other.is_some_and(|(other, _)| old.as_ref().is_none_or(|old| !Arc::ptr_eq(old, other)))
        };
        if let Some(function) = library.functions.iter().find(|(name, _)| taken(name)) {
            return Err(format!("Function {} already exists", function.1.name));
        }
        self.remove(&library.name);
        for (name, function) in &library.functions {
            self.functions.insert(name.clone(), (Arc::clone(&library), Arc::clone(function)));
        }
        self.by_name.insert(library.name.clone(), library);
        Ok(())
    }

    /// False: there is no such library.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(library) = self.by_name.remove(name) else { return false };
        library.functions.keys().for_each(|name| _ = self.functions.remove(name));
        true
    }
}

/// A script that has run for a while.
#[derive(Debug)]
pub struct Running {
    /// The name of a function; `None` for one of EVAL's scripts.
    pub function: Option<String>,
    /// All words of the call, for FUNCTION STATS and the log.
    pub command: Vec<Vec<u8>>,
    /// The worker that it keeps from its other clients.
    pub worker: usize,
    /// When it began, Unix milliseconds.
    pub since: UnixMs,
    /// Nanoseconds on the clock that commands are timed with.
    pub began: u64,
    /// It has changed something, and cannot be stopped any more.
    pub wrote: AtomicBool,
    /// SCRIPT KILL or FUNCTION KILL reached it: it ends at its next chance.
    pub killed: AtomicBool,
}

impl Running {
    /// Kills it, unless it has written. Of this and [`may_write`](Self::may_write) at the same moment, at least one
    /// sees the other.
    pub fn kill(&self) -> bool {
        self.killed.store(true, Ordering::SeqCst);
        let possible = !self.wrote.load(Ordering::SeqCst);
        if !possible {
            self.killed.store(false, Ordering::SeqCst);
        }
        possible
    }

    /// Notes that it writes now. False: it is killed, and must not.
    pub fn may_write(&self) -> bool {
        self.wrote.store(true, Ordering::SeqCst);
        !self.killed.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Default)]
struct Scripts {
    by_sha: HashMap<String, Arc<Script>>,
    /// Those that came with EVAL alone; one of SCRIPT LOAD stays.
    evictable: Vec<Arc<Script>>,
    /// Bytes of all texts.
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Store {
    scripts: RwLock<Scripts>,
    libraries: RwLock<Arc<Libraries>>,
    running: Mutex<Vec<Arc<Running>>>,
    /// Scripts that were ever kept: the number of the newest.
    newest: AtomicU64,
    /// Raised when scripts are flushed: threads then forget what they compiled.
    pub flushes: AtomicU64,
    /// Raised when a script goes, for whatever reason: threads then look here again.
    pub removals: AtomicU64,
    /// Scripts that came with EVAL alone and were dropped for newer ones.
    pub evicted: AtomicU64,
    /// Bytes that all interpreters have allocated.
    pub interpreters: AtomicU64,
    /// The node ends: what runs is given up, whatever it has done.
    pub ending: AtomicBool,
    /// Scripts may run commands that are forbidden to them (DEBUG SET-DISABLE-DENY-SCRIPTS).
    pub may_run_all: AtomicBool,
    last_number: AtomicU64,
}

/// The name of a script: SHA-1 of its text, in hexadecimal digits.
pub fn sha1_hex(text: &[u8]) -> String {
    hex(&Sha1::digest(text))
}

impl Store {
    /// The script of this name, in any case.
    pub fn script(&self, sha: &[u8]) -> Option<Arc<Script>> {
        let sha = String::from_utf8(sha.to_ascii_lowercase()).ok()?;
        let script = self.scripts.read().by_sha.get(&sha).cloned()?;
        self.touch(&script);
        Some(script)
    }

    /// Notes that a script is used. Those that were used since the same new script count as equally old.
    #[inline]
    pub fn touch(&self, script: &Script) {
        let newest = self.newest.load(Ordering::Relaxed);
        if script.used.load(Ordering::Relaxed) != newest {
            script.used.store(newest, Ordering::Relaxed);
        }
    }

    /// The script with this text, which is kept from now on: for ever if `loaded`, else as long as it is among
    /// the last ones used.
    pub fn keep(&self, code: &[u8], loaded: bool) -> Result<Arc<Script>, String> {
        let sha = sha1_hex(code);
        if !loaded && let Some(script) = self.script(sha.as_bytes()) {
            return Ok(script);
        }
        let (flags, body_at) = shebang::of_script(code)?;
        let mut scripts = self.scripts.write();
        if let Some(script) = scripts.by_sha.get(&sha).cloned() {
            if loaded {
                scripts.stay(&script);
            }
            return Ok(script);
        }
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let script = Arc::new(Script {
            sha: sha.clone(),
            body: code[body_at..].to_vec(),
            flags,
            conduct: Conduct::default(),
            size: code.len(),
            used: AtomicU64::new(number),
            number,
        });
        scripts.bytes += script.size;
        scripts.by_sha.insert(sha, Arc::clone(&script));
        if !loaded {
            scripts.evictable.push(Arc::clone(&script));
        }
        if scripts.evictable.len() > KEPT {
            scripts.evict();
            self.evicted.fetch_add(1, Ordering::Relaxed);
            self.removals.fetch_add(1, Ordering::Release);
        }
        Ok(script)
    }

    /// Forgets a script that turned out not to be one.
    pub fn forget(&self, script: &Script) {
        self.scripts.write().remove(&script.sha);
        self.removals.fetch_add(1, Ordering::Release);
    }

    /// SCRIPT FLUSH: forgets all scripts; libraries stay.
    pub fn flush_scripts(&self) {
        *self.scripts.write() = Scripts::default();
        self.flushes.fetch_add(1, Ordering::Release);
        self.removals.fetch_add(1, Ordering::Release);
    }

    /// Scripts that EVALSHA finds.
    pub fn script_count(&self) -> usize {
        self.scripts.read().by_sha.len()
    }

    /// Bytes of the texts of scripts.
    pub fn script_bytes(&self) -> usize {
        self.scripts.read().bytes
    }

    /// The libraries as they are now; later changes do not show in them.
    pub fn libraries(&self) -> Arc<Libraries> {
        Arc::clone(&self.libraries.read())
    }

    /// Puts other libraries in place of those that are there.
    pub fn set_libraries(&self, libraries: Libraries) {
        *self.libraries.write() = Arc::new(libraries);
    }

    /// A number that no library has.
    pub fn new_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that a script has run for a while.
    pub fn begin(&self, running: Arc<Running>) {
        self.running.lock().push(running);
    }

    /// It has ended.
    pub fn end(&self, running: &Arc<Running>) {
        self.running.lock().retain(|other| !Arc::ptr_eq(other, running));
    }

    /// Stops all scripts because the node ends: with `force` also those that have written, of which nothing is
    /// propagated then.
    pub fn stop_all(&self, force: bool) {
        if force {
            self.ending.store(true, Ordering::Release);
        }
        for running in self.running() {
            let _ = running.kill();
        }
    }

    /// What runs, the oldest first.
    pub fn running(&self) -> Vec<Arc<Running>> {
        self.running.lock().clone()
    }
}

impl Scripts {
    fn stay(&mut self, script: &Arc<Script>) {
        self.evictable.retain(|evictable| !Arc::ptr_eq(evictable, script));
    }

    fn remove(&mut self, sha: &str) {
        if let Some(script) = self.by_sha.remove(sha) {
            self.bytes -= script.size;
            self.stay(&script);
        }
    }

    /// Drops the one that was used the longest ago. Looks at all that may go: a few hundred, and a new text is compiled
    /// besides.
    fn evict(&mut self) {
        let age = |script: &&Arc<Script>| (script.used.load(Ordering::Relaxed), script.number);
        if let Some(oldest) = self.evictable.iter().min_by_key(age).map(|script| script.sha.clone()) {
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_eval_are_dropped_and_loaded_ones_stay() {
        let store = Store::default();
        let loaded = store.keep(b"return 'loaded'", true).unwrap();
        let first = store.keep(b"return 0", false).unwrap();
        for n in 1..KEPT {
            store.keep(format!("return {n}").as_bytes(), false).unwrap();
        }
        assert!(store.script(first.sha.as_bytes()).is_some());
        store.keep(b"return 'one more'", false).unwrap();
        // The first was used since: the second goes.
        assert!(store.script(first.sha.as_bytes()).is_some());
        assert!(store.script(sha1_hex(b"return 1").as_bytes()).is_none());
        assert!(store.script(loaded.sha.to_uppercase().as_bytes()).is_some());
        assert_eq!((store.script_count(), store.evicted.load(Ordering::Relaxed)), (KEPT + 1, 1));
    }

    #[test]
    fn a_script_that_left_its_keys_once_is_never_trusted_again() {
        let conduct = Conduct::default();
        (0..300).for_each(|_| conduct.note(true));
        assert!(conduct.keeps_to_its_keys());
        conduct.note(false);
        (0..300).for_each(|_| conduct.note(true));
        assert!(!conduct.keeps_to_its_keys());
    }
}
