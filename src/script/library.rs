//! Libraries of functions: what registers them, and what is kept of them a thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::c_int;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Lua, MultiValue, RegistryKey, Table, Value};

use super::entry::Passed;
use super::raise::{self, Answer, Raise};
use super::redis::WHILE_LOADING;
use super::shebang::{self, Flags, WRONG_NAME};
use super::store::{Conduct, Function, Library, Store};
use super::{Calls, Engine, Stop, sandbox};
use crate::resp::Reply;

/// Loading a library must not take longer.
const LOAD_TIME: Duration = Duration::from_millis(500);

/// A function that a library has registered.
struct Registered {
    function: Function,
    callback: mlua::Function,
}

thread_local! {
    /// What the library that is being loaded has registered; `None` when none is.
    static REGISTERED: RefCell<Option<Vec<Registered>>> = const { RefCell::new(None) };
}

/// All that a library sees while it is loaded: of `redis` what registers and logs, and no library of Lua's. What it
/// registers sees the rest when it runs.
pub fn load_globals(lua: &Lua, api: &Table) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    for pair in api.pairs::<String, Value>() {
        let (name, value) = pair?;
        if WHILE_LOADING.iter().any(|start| name.starts_with(start)) {
            redis.raw_set(name, value)?;
        }
    }
    redis.raw_set("register_function", raise::function(lua, register)?)?;
    let missing = lua.create_table()?;
    missing.raw_set("__index", raise::function(lua, sandbox::missing_global)?)?;
    redis.set_metatable(Some(missing.clone()))?;
    let globals = lua.create_table()?;
    globals.raw_set("redis", sandbox::guard(lua, &redis, None)?)?;
    globals.set_metatable(Some(missing))?;
    Ok(globals)
}

fn register(lua: &Lua, args: MultiValue) -> Answer {
    let wrong = |text: &str| {
        let table = lua.create_table()?;
        table.raw_set("err", format!("ERR {text}"))?;
        Err(Raise::Value(Value::Table(table)))
    };
    let registered = match args.iter().collect::<Vec<_>>()[..] {
        [Value::Table(named)] => by_name(named),
        [_] => Err("calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).".into()),
        [name, callback] => by_place(lua, name, callback),
        _ => Err("wrong number of arguments to redis.register_function".into()),
    };
    let registered = match registered {
        Ok(registered) => registered,
        Err(text) => return wrong(&text),
    };
    if !shebang::is_name(registered.function.name.as_bytes()) {
        return wrong(WRONG_NAME.trim_start_matches("ERR "));
    }
    REGISTERED.with_borrow_mut(|all| {
        let Some(all) = all else {
            return wrong("redis.register_function can only be called on FUNCTION LOAD command");
        };
        if all.iter().any(|other| other.function.name.eq_ignore_ascii_case(&registered.function.name)) {
            return wrong("Function already exists in the library");
        }
        all.push(registered);
        Ok(MultiValue::new())
    })
}

fn registered(name: &mlua::String, callback: &mlua::Function) -> Registered {
    let function = Function {
        name: name.to_string_lossy(),
        description: None,
        flags: Flags::default(),
        conduct: Conduct::default(),
    };
    Registered { function, callback: callback.clone() }
}

fn by_place(lua: &Lua, name: &Value, callback: &Value) -> Result<Registered, String> {
    let name = match name {
        Value::String(_) | Value::Number(_) | Value::Integer(_) => {
            lua.coerce_string(name.clone()).ok().flatten()
        }
        _ => None,
    };
    let name = name.ok_or("first argument to redis.register_function must be a string")?;
    let Value::Function(callback) = callback else {
        return Err("second argument to redis.register_function must be a function".into());
    };
    Ok(registered(&name, callback))
}

fn by_name(named: &Table) -> Result<Registered, String> {
    let (mut name, mut callback, mut description, mut flags) = (None, None, None, Flags::default());
    for pair in named.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|e| e.to_string())?;
        let Value::String(key) = key else {
            return Err("named argument key given to redis.register_function is not a string".into());
        };
        let not = |what: &str| {
            Err(format!(
                "{} argument given to redis.register_function must be a {what}",
                key.to_string_lossy()
            ))
        };
        match (&*key.as_bytes(), value) {
            (b"function_name", Value::String(text)) => name = Some(text),
            (b"description", Value::String(text)) => description = Some(text.as_bytes().to_vec()),
            (b"function_name" | b"description", _) => return not("string"),
            (b"callback", Value::Function(f)) => callback = Some(f),
            (b"callback", _) => return not("function"),
            (b"flags", Value::Table(list)) => flags = flags_of(&list)?,
            (b"flags", _) => {
                return Err(
                    "flags argument to redis.register_function must be a table representing function flags"
                        .into(),
                );
            }
            _ => return Err("unknown argument given to redis.register_function".into()),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    let mut registered = registered(&name, &callback);
    (registered.function.description, registered.function.flags) = (description, flags);
    Ok(registered)
}

fn flags_of(list: &Table) -> Result<Flags, String> {
    let mut flags = Flags::default();
    for at in 1.. {
        match list.raw_get::<Value>(at) {
            Ok(Value::Nil) => break,
            Ok(Value::String(name)) => flags.add(Flags::named(&name.as_bytes()).ok_or("unknown flag given")?),
            _ => return Err("unknown flag given".into()),
        }
    }
    Ok(flags)
}

/// What a library can do while it is loaded: take its time, up to a limit.
struct Loading(Instant);

impl Calls for Loading {
    fn call(&mut self, _: &[&[u8]], _: bool, reply: &mut Reply) -> Result<(), Stop> {
        reply.error("ERR redis.call/pcall can only be called inside a script invocation");
        Ok(())
    }

    fn log(&mut self, _: u8, text: &str) {
        tracing::info!("{text}");
    }

    fn set_propagated(&mut self, _: bool, _: bool) {}

    fn allows(&mut self, _: &[&[u8]]) -> Option<bool> {
        None
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "nobody who could tell the time waits for a library that loads"
    )]
    fn look(&mut self) -> Result<u64, Stop> {
        let elapsed = self.0.elapsed();
        if elapsed > LOAD_TIME { Err(Stop::TooLong) } else { Ok(elapsed.as_nanos() as u64) }
    }
}

impl Engine {
    /// Runs a library's text to see what it registers. The error is whole. `name` and `body_at` are of
    /// [`shebang::of_library`].
    pub fn load(&self, store: &Store, name: String, code: &[u8], body_at: usize) -> Result<Library, String> {
        let (mut functions, mut callbacks) = (BTreeMap::new(), HashMap::new());
        for one in self.register_all(&code[body_at..])? {
            let name = one.function.name.to_ascii_lowercase();
            callbacks.insert(name.clone(), self.in_registry(one.callback)?);
            functions.insert(name, Arc::new(one.function));
        }
        if functions.is_empty() {
            return Err("ERR No functions registered".into());
        }
        let number = store.new_number();
        self.forget_gone(store);
        self.libraries.borrow_mut().insert(number, callbacks);
        Ok(Library { name, code: code.to_vec(), body_at, functions, number })
    }

    #[expect(clippy::disallowed_methods, reason = "as `look` of `Loading`")]
    fn register_all(&self, body: &[u8]) -> Result<Vec<Registered>, String> {
        let lua_error = |e: mlua::Error| format!("ERR {e}");
        let chunk = self
            .compiled(body, "@user_function", &self.sandbox.functions)
            .map_err(|text| format!("ERR Error compiling function: {text}"))?;
        self.sandbox.show_functions(&self.load_globals).map_err(lua_error)?;
        REGISTERED.set(Some(Vec::new()));
        let chunk = self.lua.create_registry_value(chunk).map_err(lua_error)?;
        let (result, stop) = self.call(chunk.id(), Passed::Nothing, &mut Loading(Instant::now()), None);
        let registered = REGISTERED.take().unwrap_or_default();
        self.sandbox.show_functions(&self.sandbox.functions_own).map_err(lua_error)?;
        if stop.is_some() {
            return Err("ERR Error registering functions: ERR FUNCTION LOAD timeout".into());
        }
        match result {
            Ok(_) => Ok(registered),
            Err(raised) => Err(format!("ERR Error registering functions: {}", raised.text)),
        }
    }

    fn in_registry(&self, function: mlua::Function) -> Result<RegistryKey, String> {
        self.lua.create_registry_value(function).map_err(|e| format!("ERR {e}"))
    }

    /// The place in the registry of a function of a library, which this thread loads if it has not yet.
    pub(super) fn function(&self, store: &Store, library: &Library, name: &str) -> Result<c_int, String> {
        let name = name.to_ascii_lowercase();
        if !self.libraries.borrow().contains_key(&library.number) {
            let mut callbacks = HashMap::new();
            for one in self.register_all(library.body())? {
                callbacks.insert(one.function.name.to_ascii_lowercase(), self.in_registry(one.callback)?);
            }
            self.forget_gone(store);
            self.libraries.borrow_mut().insert(library.number, callbacks);
        }
        let libraries = self.libraries.borrow();
        let function = libraries.get(&library.number).and_then(|callbacks| callbacks.get(&name));
        function.map(RegistryKey::id).ok_or_else(|| "ERR Function not found".into())
    }

    /// Forgets what was compiled of a library that was refused.
    pub fn forget(&self, library: u64) {
        self.libraries.borrow_mut().remove(&library);
    }

    /// Forgets what was compiled of libraries that are gone. Those that are newer than all that are there are about to
    /// be added.
    fn forget_gone(&self, store: &Store) {
        let libraries = store.libraries();
        let mut mine = self.libraries.borrow_mut();
        if mine.len() > libraries.len() {
            let there: BTreeSet<u64> = libraries.iter().map(|library| library.number).collect();
            let newest = there.last().copied().unwrap_or(0);
            mine.retain(|number, _| *number > newest || there.contains(number));
            self.lua.expire_registry_values();
        }
    }
}
