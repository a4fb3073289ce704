//! What a script can reach: the globals that Redis allows, none of which it can change.
//!
//! Tables that all scripts share are given to them as guards: empty tables that look things up in what they
//! guard, and refuse to be written to.

use mlua::{Lua, LuaOptions, MultiValue, StdLib, Table, Value};

use super::raise::{self, Answer, Raise, one};

/// The globals that scripts may use.
const GLOBALS: &[&str] = &[
    "_VERSION",
    "assert",
    "collectgarbage",
    "coroutine",
    "error",
    "gcinfo",
    "getfenv",
    "getmetatable",
    "ipairs",
    "math",
    "next",
    "os",
    "rawequal",
    "rawget",
    "select",
    "setfenv",
    "setmetatable",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
    "unpack",
];

/// What an interpreter may allocate, in bytes.
pub const MEMORY: usize = 1 << 30;

/// How Lua sets up the collector of garbage by itself.
pub const PAUSE: std::ffi::c_int = 200;
pub const STEP: std::ffi::c_int = 200;

pub const READ_ONLY: &str = "Attempt to modify a readonly table";

/// The environments of scripts in one interpreter.
#[derive(Debug)]
pub struct Sandbox {
    /// What all of them share, unguarded.
    pub shared: Table,
    /// The globals of EVAL's scripts, and what they have of their own (KEYS, ARGV).
    pub eval: Table,
    pub eval_own: Table,
    /// The globals of functions, and what they have of their own.
    pub functions: Table,
    pub functions_own: Table,
}

/// Starts an interpreter.
pub fn interpreter() -> mlua::Result<Lua> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
    let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))?;
    lua.set_memory_limit(MEMORY)?;
    Ok(lua)
}

impl Sandbox {
    /// Takes the globals of a fresh interpreter away and gives back what is allowed.
    pub fn new(lua: &Lua) -> mlua::Result<Self> {
        let all = lua.globals();
        let shared = lua.create_table()?;
        for name in GLOBALS {
            shared.raw_set(*name, all.raw_get::<Value>(*name)?)?;
        }
        super::patterns::replace(lua, &shared.raw_get("string")?)?;
        super::basics::guard(lua, &shared)?;
        let os: Table = all.raw_get("os")?;
        let clock = lua.create_table()?;
        clock.raw_set("clock", os.raw_get::<Value>("clock")?)?;
        shared.raw_set("os", clock)?;
        shared.raw_set("pairs", raise::pairs(lua, all.raw_get("next")?)?)?;
        shared.raw_set("rawset", raise::rawset(lua)?)?;
        shared.raw_set("pcall", raise::pcall(lua)?)?;
        shared.raw_set("xpcall", raise::xpcall(lua)?)?;
        shared.raw_set("__redis__err__handler", raise::function(lua, |_, args| Ok(args))?)?;
        // `getfenv` of a C function would show its environment, so that is emptied.
        let names: Vec<Value> =
            all.pairs::<Value, Value>().map(|pair| Ok(pair?.0)).collect::<mlua::Result<_>>()?;
        for name in names {
            all.raw_set(name, Value::Nil)?;
        }
        let (eval, eval_own) = globals(lua, &shared)?;
        let (functions, functions_own) = globals(lua, &shared)?;
        lua.set_globals(eval.clone())?;
        super::load::replace(lua, &shared)?;
        let missing = raise::function(lua, missing_global)?;
        let of_shared = lua.create_table()?;
        of_shared.raw_set("__index", missing)?;
        shared.set_metatable(Some(of_shared))?;
        Ok(Self { shared, eval, eval_own, functions, functions_own })
    }

    /// What functions, and libraries that are loaded, find from now on.
    pub fn show_functions(&self, globals: &Table) -> mlua::Result<()> {
        let metatable = self.functions.metatable().expect("a guard has one");
        metatable.raw_set("__index", globals)
    }

    /// Puts guards in front of all libraries, once they are complete.
    pub fn close(&self, lua: &Lua) -> mlua::Result<()> {
        let tables: Vec<(Value, Table)> = self
            .shared
            .pairs::<Value, Value>()
            .filter_map(|pair| match pair {
                Ok((name, Value::Table(table))) => Some(Ok((name, table))),
                Ok(_) => None,
                Err(e) => Some(Err(e)),
            })
            .collect::<mlua::Result<_>>()?;
        for (name, table) in tables {
            self.shared.raw_set(name, guard(lua, &table, None)?)?;
        }
        // Where they are found with one look less.
        for pair in self.shared.pairs::<Value, Value>() {
            let (name, value) = pair?;
            self.eval_own.raw_set(&name, &value)?;
            self.functions_own.raw_set(name, value)?;
        }
        // Strings find their methods in the library itself; their metatable is nobody's to change.
        let text: Table = lua.load("return getmetatable('')").set_environment(self.eval.clone()).eval()?;
        text.raw_set("__metatable", false)
    }
}

/// The guard of an environment, and what it has of its own in front of what all share.
fn globals(lua: &Lua, shared: &Table) -> mlua::Result<(Table, Table)> {
    let own = lua.create_table()?;
    let metatable = lua.create_table()?;
    metatable.raw_set("__index", shared.clone())?;
    own.set_metatable(Some(metatable))?;
    let guard = guard(lua, &own, Some(shared))?;
    own.raw_set("_G", guard.clone())?;
    Ok((guard, own))
}

/// An empty table that looks things up in `table`, and cannot be written to. `more` is what a walk sees besides.
pub fn guard(lua: &Lua, table: &Table, more: Option<&Table>) -> mlua::Result<Table> {
    let metatable = lua.create_table()?;
    metatable.raw_set("__index", table.clone())?;
    metatable.raw_set("__newindex", raise::function(lua, |_, _| Err(Raise::Here(READ_ONLY.into())))?)?;
    metatable.raw_set("__metatable", false)?;
    let (content, more) = (table.clone(), more.cloned());
    let copy = raise::function(lua, move |lua, _| {
        let copy = lua.create_table()?;
        for table in more.iter().chain([&content]) {
            for pair in table.pairs::<Value, Value>() {
                let (name, value) = pair?;
                copy.raw_set(name, value)?;
            }
        }
        one(lua, copy)
    })?;
    raise::set_copier(&metatable, copy)?;
    let guard = lua.create_table()?;
    guard.set_metatable(Some(metatable))?;
    Ok(guard)
}

/// The text about a name that is not there.
pub fn missing_global(_: &Lua, args: MultiValue) -> Answer {
    let name = args.get(1).and_then(|name| name.to_string().ok()).unwrap_or_default();
    Err(Raise::Here(format!("Script attempted to access nonexistent global variable '{name}'")))
}
