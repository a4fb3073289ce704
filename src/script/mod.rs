//! Level 2: Lua. An [`Engine`] is the interpreter of one thread; it runs scripts against [`Calls`], and knows
//! nothing of commands or keys. What threads share is in the [`Store`].
//!
//! A script is compiled once a thread, when that thread first runs it. A library is run once a thread, so what it
//! keeps in local variables beside its functions is kept once a thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use mlua::{HookTriggers, Lua, MultiValue, Table, Value, VmState};

use crate::resp::Reply;

pub mod convert;
mod library;
pub mod libs;
mod number;
mod patterns;
pub mod proof;
mod raise;
mod redis;
mod sandbox;
pub mod shebang;
pub mod store;
#[cfg(test)]
mod tests;

use sandbox::Sandbox;
pub use shebang::Flags;
pub use store::{Function, Libraries, Library, Running, Script, Store, sha1_hex};

/// So many instructions of Lua are run between two looks at the time.
const INSTRUCTIONS_PER_LOOK: u32 = 10_000;

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

    /// Whether what follows is propagated.
    fn set_propagated(&mut self, on: bool);

    /// Whether the user may run this command; `None`: it is none.
    fn allows(&mut self, args: &[&[u8]]) -> Option<bool>;

    /// Is called every now and then.
    fn look(&mut self) -> Result<(), Stop>;
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
    /// A function of Lua's is below on the stack, also while `calls` is in use.
    running: Cell<bool>,
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
    state: Rc<State>,
    protected: mlua::Function,
    scripts: RefCell<HashMap<String, mlua::Function>>,
    /// Of each library, by its number, the functions by their names in lower case.
    libraries: RefCell<HashMap<u64, HashMap<String, mlua::Function>>>,
    load_api: Table,
    run_api: Table,
    flushes: Cell<u64>,
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
        for (name, library) in [
            ("bit", libs::bit::library(&lua)?),
            ("cjson", libs::cjson::library(&lua)?),
            ("cmsgpack", libs::cmsgpack::library(&lua)?),
            ("struct", libs::structs::library(&lua)?),
            ("redis", redis::api(&lua, &state)?),
        ] {
            sandbox.shared.raw_set(name, library)?;
        }
        let load_api = library::load_api(&lua, &sandbox.shared.raw_get("redis")?)?;
        sandbox.close(&lua)?;
        let run_api = sandbox.shared.raw_get("redis")?;
        look_every(&lua, &state, INSTRUCTIONS_PER_LOOK)?;
        let protected = raise::protected(&lua)?;
        Ok(Self {
            lua,
            sandbox,
            state,
            protected,
            scripts: RefCell::default(),
            libraries: RefCell::default(),
            load_api,
            run_api,
            flushes: Cell::new(0),
            told_bytes: Cell::new(0),
        })
    }

    /// Whether a script runs on this thread at this moment.
    pub fn is_running(&self) -> bool {
        self.state.running.get()
    }

    /// Compiles a script, unless this thread has done it. The error is whole.
    pub fn compile(&self, store: &Store, script: &Script) -> Result<mlua::Function, String> {
        let flushes = store.flushes.load(Ordering::Acquire);
        if self.flushes.replace(flushes) != flushes {
            self.scripts.borrow_mut().clear();
        }
        if let Some(function) = self.scripts.borrow().get(&script.sha) {
            return Ok(function.clone());
        }
        let function = self
            .compiled(&script.body, "@user_script", &self.sandbox.eval)
            .map_err(|text| format!("ERR Error compiling script (new function): {text}"))?;
        let mut scripts = self.scripts.borrow_mut();
        // What was evicted from the store is here still.
        if scripts.len() > 2 * store.script_count() + 100 {
            scripts.clear();
        }
        scripts.insert(script.sha.clone(), function.clone());
        Ok(function)
    }

    fn compiled(&self, code: &[u8], name: &str, globals: &Table) -> Result<mlua::Function, String> {
        let chunk = self.lua.load(code).set_name(name).set_mode(mlua::ChunkMode::Text);
        chunk.set_environment(globals.clone()).into_function().map_err(|e| match e {
            mlua::Error::SyntaxError { message, .. } => message,
            e => e.to_string(),
        })
    }

    /// Runs one of EVAL's scripts.
    pub fn run_script(
        &self,
        script: &Script,
        function: &mlua::Function,
        given: Given<'_>,
        calls: &mut dyn Calls,
        reply: &mut Reply,
    ) -> Ended {
        let prepared = self.strings(given.keys).and_then(|keys| {
            let own = &self.sandbox.eval_own;
            own.raw_set("KEYS", keys)?;
            own.raw_set("ARGV", self.strings(given.args)?)
        });
        match prepared {
            Ok(()) => self.run(&script.sha, function, MultiValue::new(), calls, reply),
            Err(e) => Ended::Failed(format!("ERR {e}").into()),
        }
    }

    /// Runs a function of a library.
    pub fn run_function(
        &self,
        library: &Library,
        name: &str,
        given: Given<'_>,
        calls: &mut dyn Calls,
        reply: &mut Reply,
    ) -> Ended {
        let function = match self.function(library, name) {
            Ok(function) => function,
            Err(text) => return Ended::Failed(text.into()),
        };
        let args = self.strings(given.keys).and_then(|keys| Ok((keys, self.strings(given.args)?)));
        match args {
            Ok((keys, args)) => {
                let args = MultiValue::from_iter([Value::Table(keys), Value::Table(args)]);
                self.run(name, &function, args, calls, reply)
            }
            Err(e) => Ended::Failed(format!("ERR {e}").into()),
        }
    }

    fn strings(&self, texts: &[&[u8]]) -> mlua::Result<Table> {
        let table = self.lua.create_table_with_capacity(texts.len(), 0)?;
        for (at, text) in texts.iter().enumerate() {
            table.raw_set(at + 1, self.lua.create_string(text)?)?;
        }
        Ok(table)
    }

    fn run(
        &self,
        name: &str,
        function: &mlua::Function,
        args: MultiValue,
        calls: &mut dyn Calls,
        reply: &mut Reply,
    ) -> Ended {
        let (result, stop) = self.call(function, args, Some(calls));
        match (result, stop) {
            (_, Some(Stop::Again)) => Ended::Again,
            (Ok(value), None) => {
                let mark = reply.len();
                match convert::reply_of(reply, &value, self.state.resp3.get()) {
                    Ok(()) => returned(&value),
                    Err(e) => {
                        reply.truncate(mark);
                        Ended::Failed(format!("ERR {e}").into())
                    }
                }
            }
            (Ok(_), Some(_)) => Ended::Failed(KILLED.to_owned().into()),
            (Err(raised), stop) => {
                let counted = raised.counted && stop.is_none();
                Ended::Failed(Failure { text: raised.whole(name, stop), counted })
            }
        }
    }

    /// Calls a function of Lua's; what it returned, or raised, and whether it was stopped.
    fn call(
        &self,
        function: &mlua::Function,
        mut args: MultiValue,
        calls: Option<&mut dyn Calls>,
    ) -> (Result<Value, Raised>, Option<Stop>) {
        args.push_front(Value::Function(function.clone()));
        let state = &self.state;
        state.stop.set(None);
        state.resp3.set(false);
        state.calls.set(calls.map(|calls| {
            let calls = NonNull::from(calls);
            // SAFETY: only the lifetime changes; the pointer is taken out again before the borrow ends.
            unsafe { std::mem::transmute::<NonNull<dyn Calls + '_>, NonNull<dyn Calls + 'static>>(calls) }
        }));
        state.running.set(true);
        let result = self.protected.call::<(bool, Value)>(args);
        state.running.set(false);
        state.calls.set(None);
        if self.lua.used_memory() > sandbox::MEMORY / 4 {
            // The next one is not to fail for what this one has left behind. An error leaves much.
            let _ = self.lua.gc_collect();
        }
        let stop = state.stop.take();
        if stop.is_some() {
            // Otherwise there would be one look an instruction for ever.
            let _ = look_every(&self.lua, state, INSTRUCTIONS_PER_LOOK);
        }
        let result = match result {
            Ok((true, value)) => Ok(value),
            Ok((false, Value::Table(table))) => Err(Raised::of(&table)),
            Ok((false, Value::String(text))) => Err(Raised::text(&text.to_string_lossy())),
            Ok((false, _)) => Err(Raised::text("unknown error")),
            Err(e) => Err(Raised::text(&e.to_string())),
        };
        (result, stop)
    }

    /// Adds what this interpreter has allocated to what all have.
    pub fn tell_memory(&self, store: &Store) {
        let now = self.lua.used_memory() as u64;
        let before = self.told_bytes.replace(now);
        store.interpreters.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// Looks every so many instructions whether the script is to be stopped.
fn look_every(lua: &Lua, state: &Rc<State>, instructions: u32) -> mlua::Result<()> {
    let state = Rc::clone(state);
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(instructions), move |lua, _| {
        if state.stop.get().is_none()
            && let Some(Err(stop)) = state.with(|calls| calls.look())
        {
            state.stop.set(Some(stop));
        }
        if state.stop.get().is_none() {
            return Ok(VmState::Continue);
        }
        // The script may catch the error: it gets the next one at once.
        if instructions > 1 {
            look_every(lua, &state, 1)?;
        }
        Err(stopped())
    })
}

/// The field of an error table that says that the error is counted.
const COUNTED: &str = "ignore_error_stats_update";

const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";

fn stopped() -> mlua::Error {
    mlua::Error::runtime("stopped")
}

/// An error that a script raised.
struct Raised {
    text: String,
    /// The source and line.
    at: Option<(String, i64)>,
    counted: bool,
}

/// What a script that was not stopped returned.
fn returned(value: &Value) -> Ended {
    match value {
        Value::Table(table) => match table.raw_get::<Value>("err") {
            Ok(Value::String(_)) => {
                let Raised { text, counted, .. } = Raised::of(table);
                Ended::ReturnedError(Failure { text, counted })
            }
            _ => Ended::Returned,
        },
        _ => Ended::Returned,
    }
}

impl Raised {
    fn text(text: &str) -> Self {
        Self { text: format!("ERR {text}"), at: None, counted: false }
    }

    fn of(table: &Table) -> Self {
        let field = |name: &str| match table.raw_get::<Value>(name) {
            Ok(Value::String(text)) => Some(text.to_string_lossy()),
            _ => None,
        };
        let line = table.raw_get::<i64>("line").ok();
        Self {
            text: field("err").unwrap_or_else(|| "ERR unknown error".into()),
            at: field("source").zip(line),
            counted: table.raw_get(COUNTED).unwrap_or(false),
        }
    }

    /// The error as clients see it.
    fn whole(self, name: &str, stop: Option<Stop>) -> String {
        let text = if stop.is_some() { KILLED } else { &self.text };
        match self.at {
            Some((source, line)) => format!("{text} script: {name}, on {source}:{line}."),
            None => text.to_owned(),
        }
    }
}
