//! Level 2: Lua. An [`Engine`] is the interpreter of one thread; it runs scripts against [`Calls`], and knows
//! nothing of commands or keys. What threads share is in the [`Store`].
//!
//! A script is compiled once a thread, when that thread first runs it. A library is run once a thread, so what it
//! keeps in local variables beside its functions is kept once a thread.
//!
//! | file | concept |
//! |---|---|
//! | `store` | what threads share: texts, libraries, and which of them run |
//! | `known`, `library` | what one thread keeps of them, compiled |
//! | `shebang`, `proof` | what a text says of itself, and what shows that it keeps to its keys |
//! | `entry`, `raise` | the way into the interpreter; errors and protected calls |
//! | `call`, `convert`, `number` | `redis.call`; values of Lua as replies and back; numbers as C prints them |
//! | `redis`, `libs` | the table `redis`; cjson, cmsgpack, bit and struct |
//! | `sandbox`, `basics` | the globals that a script can reach; functions of Lua's own that are replaced |
//! | `random` | `math.random` |
//! | `patterns`, `matcher`, `load` | patterns and `loadstring`, such that they can be stopped |
//! | `watch` | what ends a script from outside |

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use mlua::{Lua, RegistryKey, Table};

use crate::resp::Reply;

mod basics;
mod call;
mod convert;
mod entry;
mod known;
mod library;
pub mod libs;
mod load;
mod matcher;
mod number;
mod patterns;
pub mod proof;
mod raise;
mod random;
mod redis;
mod sandbox;
pub mod shebang;
pub mod store;
#[cfg(test)]
mod tests;
mod watch;

use entry::{Entry, Job, Passed, Result as Entered};
use known::Kept;
pub use known::Known;
use sandbox::Sandbox;
pub use shebang::Flags;
pub use store::{Function, Libraries, Library, Running, Script, Store, sha1_hex};

/// The memory of an interpreter is published again when it has changed by so many bytes.
const TOLD_FROM: u64 = 16 * 1024;

/// Why a script is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody has killed it.
    Killed,
    /// It is to run again, with more locks.
    Again,
    /// A library takes too long to load.
    TooLong,
}

/// What a script asks of whoever runs it.
pub trait Calls {
    /// Runs a command; its reply is in `resp3` or not.
    fn call(&mut self, args: &[&[u8]], resp3: bool, reply: &mut Reply) -> Result<(), Stop>;

    /// A line for the log of the server; levels are those of `redis.LOG_*`.
    fn log(&mut self, level: u8, text: &str);

    /// Whether what follows is propagated to files, and to replicas.
    fn set_propagated(&mut self, files: bool, links: bool);

    /// Whether the user may run this command; `None`: it is none.
    fn allows(&mut self, args: &[&[u8]]) -> Option<bool>;

    /// Is called every now and then. Returns how long the run has taken so far, in nanoseconds.
    fn look(&mut self) -> Result<u64, Stop>;
}

/// What a script is given.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// What the script sees as KEYS.
    pub keys: &'a [&'a [u8]],
    /// What the script sees as ARGV.
    pub args: &'a [&'a [u8]],
}

/// An error that ended a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error reply, code included.
    pub text: String,
    /// It is a command's, which was counted as failed.
    pub counted: bool,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, counted: false }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The reply is written.
    Returned,
    /// The reply is written; it is this error.
    ReturnedError(Failure),
    /// What the script raised, whole.
    Failed(Failure),
    /// To be run again.
    Again,
}

/// What belongs to the run under way.
#[derive(Default)]
struct State {
    /// Set exactly while [`Engine::run`] is below on the stack.
    calls: Cell<Option<NonNull<dyn Calls>>>,
    resp3: Cell<bool>,
    stop: Cell<Option<Stop>>,
    /// See [`watch`]: steps that functions may take before the next look, when the last one was in nanoseconds of the
    /// run, and whether it was late.
    steps_left: Cell<usize>,
    looked_at: Cell<u64>,
    was_late: Cell<bool>,
    /// The script may have set up the collector of garbage.
    tuned: Cell<bool>,
    /// A function of Lua's is below on the stack, also while `calls` is in use.
    running: Cell<bool>,
    answers: call::Answers,
    /// Kept for its memory: the numbers among the words of a command.
    digits: Cell<Vec<u8>>,
}

impl State {
    /// Gives what the script runs against to `f`. `None` where nothing runs (a library is being loaded).
    fn with<R>(&self, f: impl FnOnce(&mut dyn Calls) -> R) -> Option<R> {
        let mut calls = self.calls.take()?;
        // SAFETY: `run` puts in what it borrows mutably, and takes it out before the borrow ends. It is taken
        // out of the cell while it is used here, so that there is no second reference.
        let result = f(unsafe { calls.as_mut() });
        self.calls.set(Some(calls));
        Some(result)
    }
}

/// The interpreter of one thread.
pub struct Engine {
    lua: Lua,
    sandbox: Sandbox,
    /// Behind the interpreter, whose functions point to it.
    state: Rc<State>,
    entry: Entry,
    kept: RefCell<Kept>,
    /// Of each library, by its number, the functions by their names in lower case.
    libraries: RefCell<HashMap<u64, HashMap<String, RegistryKey>>>,
    load_globals: Table,
    /// What was last told to [`Store::interpreters`].
    told_bytes: Cell<u64>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

thread_local! {
    static ENGINE: Option<Rc<Engine>> = Engine::new().map(Rc::new).map_err(|e| tracing::error!("Lua: {e}")).ok();
}

/// The engine of this thread, which is made now if there is none.
pub fn engine() -> Option<Rc<Engine>> {
    ENGINE.with(Clone::clone)
}

impl Engine {
    fn new() -> mlua::Result<Self> {
        let lua = sandbox::interpreter()?;
        let sandbox = Sandbox::new(&lua)?;
        let state = Rc::<State>::default();
        watch::set_state(&lua, &state)?;
        for (name, library) in [
            ("bit", libs::bit::library(&lua)?),
            ("cjson", libs::cjson::library(&lua)?),
            ("cmsgpack", libs::cmsgpack::library(&lua)?),
            ("struct", libs::structs::library(&lua)?),
            ("redis", redis::api(&lua, &state)?),
        ] {
            sandbox.shared.raw_set(name, library)?;
        }
        let load_globals = library::load_globals(&lua, &sandbox.shared.raw_get("redis")?)?;
        sandbox.close(&lua)?;
        let entry = Entry::new(&lua, &sandbox.eval_own)?;
        Ok(Self {
            lua,
            sandbox,
            state,
            entry,
            kept: RefCell::default(),
            libraries: RefCell::default(),
            load_globals,
            told_bytes: Cell::new(0),
        })
    }

    /// Whether a script runs on this thread at this moment.
    pub fn is_running(&self) -> bool {
        self.state.running.get()
    }

    /// Compiles a script, unless this thread has done it. The error is whole.
    pub fn compile(&self, script: &Known) -> Result<(), String> {
        self.function_of(script).map(|_| ())
    }

    /// The place of a script's function in the registry.
    fn function_of(&self, known: &Known) -> Result<std::ffi::c_int, String> {
        if let Some(function) = known.compiled.get() {
            return Ok(function.id());
        }
        let failed = |text: String| format!("ERR Error compiling script (new function): {text}");
        let function =
            self.compiled(&known.script.body, "@user_script", &self.sandbox.eval).map_err(failed)?;
        let key = self.lua.create_registry_value(function).map_err(|e| failed(e.to_string()))?;
        Ok(known.compiled.get_or_init(|| key).id())
    }

    fn compiled(&self, code: &[u8], name: &str, globals: &Table) -> Result<mlua::Function, String> {
        let chunk = self.lua.load(code).set_name(name).set_mode(mlua::ChunkMode::Text);
        chunk.set_environment(globals.clone()).into_function().map_err(|e| match e {
            mlua::Error::SyntaxError { message, .. } => message,
            e => e.to_string(),
        })
    }

    /// Runs one of EVAL's scripts. `Err`: it cannot be compiled; the error is whole.
    pub fn run_script(
        &self,
        script: &Known,
        given: Given<'_>,
        calls: &mut dyn Calls,
        reply: &mut Reply,
    ) -> Result<Ended, String> {
        let function = self.function_of(script)?;
        Ok(self.run(&script.script.sha, function, Passed::Globals(given), calls, reply))
    }

    /// Runs a function of a library.
    pub fn run_function(
        &self,
        store: &Store,
        library: &Library,
        name: &str,
        given: Given<'_>,
        calls: &mut dyn Calls,
        reply: &mut Reply,
    ) -> Ended {
        match self.function(store, library, name) {
            Ok(function) => self.run(name, function, Passed::Arguments(given), calls, reply),
            Err(text) => Ended::Failed(text.into()),
        }
    }

    fn run(
        &self,
        name: &str,
        function: std::ffi::c_int,
        passed: Passed<'_>,
        calls: &mut dyn Calls,
        reply: &mut Reply,
    ) -> Ended {
        let mark = reply.len();
        let (result, stop) = self.call(function, passed, calls, Some(&mut *reply));
        if result.is_err() || stop.is_some() {
            reply.truncate(mark);
        }
        match (result, stop) {
            (_, Some(Stop::Again)) => Ended::Again,
            (Ok(None), None) => Ended::Returned,
            (Ok(Some(error)), None) => {
                Ended::ReturnedError(Failure { text: error.text, counted: error.counted })
            }
            (Ok(_), Some(_)) => Ended::Failed(KILLED.to_owned().into()),
            (Err(raised), stop) => {
                let counted = raised.counted && stop.is_none();
                Ended::Failed(Failure { text: raised.whole(name, stop), counted })
            }
        }
    }

    /// Calls a function of Lua's, at this place in the registry: how that ended, and whether it was stopped.
    fn call(
        &self,
        function: std::ffi::c_int,
        passed: Passed<'_>,
        calls: &mut dyn Calls,
        reply: Option<&mut Reply>,
    ) -> (Entered, Option<Stop>) {
        let state = &self.state;
        state.restart();
        state.resp3.set(false);
        state.answers.free_all();
        let calls = NonNull::from(calls);
        // SAFETY: only the lifetime changes; the pointer is taken out again before the borrow ends.
        let calls =
            unsafe { std::mem::transmute::<NonNull<dyn Calls + '_>, NonNull<dyn Calls + 'static>>(calls) };
        state.calls.set(Some(calls));
        state.running.set(true);
        let result = self.entry.enter(Job::new(function, passed, reply, &state.resp3));
        state.running.set(false);
        state.calls.set(None);
        if state.tuned.take() {
            self.lua.gc_restart();
            self.lua.gc_set_pause(sandbox::PAUSE);
            self.lua.gc_set_step_multiplier(sandbox::STEP);
        }
        if self.lua.used_memory() > sandbox::MEMORY / 4 {
            // An error leaves much garbage behind; the next script must not run out of memory because of it.
            let _ = self.lua.gc_collect();
        }
        (result, state.stop.take())
    }

    /// Adds what this interpreter has allocated to what all have.
    pub fn tell_memory(&self, store: &Store) {
        let now = self.lua.used_memory() as u64;
        // Not every script's: threads would contend for the counter.
        if now.abs_diff(self.told_bytes.get()) >= TOLD_FROM {
            let before = self.told_bytes.replace(now);
            store.interpreters.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }
}

/// The field of an error table that says that the error is counted.
const COUNTED: &str = "ignore_error_stats_update";

const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";
