//! Errors as Lua raises them, and protected calls. All that must be done behind mlua's back is here.
//!
//! mlua raises errors of Rust functions as objects of its own; scripts expect texts with a position, or tables.
//! So a function that scripts see is a C function around mlua's: what that returns says whether to raise.
//! A C function that Lua may leave by `longjmp` owns nothing that would have to be dropped.

use std::ffi::{CStr, c_int, c_void};

use mlua::ffi;
use mlua::{Function, IntoLua, Lua, MultiValue, Table, Value, lua_State};

/// Why a function of a library fails.
#[derive(Debug)]
pub enum Raise {
    /// A text, in front of which Lua puts the line of the caller.
    Here(String),
    /// Any value, as it is.
    Value(Value),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Raise {
    fn from(e: mlua::Error) -> Self {
        Self::Lua(e)
    }
}

/// What a function of a library returns.
pub type Answer = Result<MultiValue, Raise>;

/// An error in the words of Lua's own argument check.
pub fn bad_argument(at: usize, function: &str, why: &str) -> Raise {
    Raise::Here(format!("bad argument #{at} to '{function}' ({why})"))
}

/// One value to return.
pub fn one(lua: &Lua, value: impl IntoLua) -> Answer {
    Ok(MultiValue::from_iter([value.into_lua(lua)?]))
}

/// Makes a function of Lua that runs `f`.
pub fn function(lua: &Lua, f: impl Fn(&Lua, MultiValue) -> Answer + 'static) -> mlua::Result<Function> {
    let inner = lua.create_function(move |lua, args: MultiValue| {
        Ok(match f(lua, args) {
            Ok(mut values) => {
                values.push_front(Value::Boolean(true));
                values
            }
            Err(Raise::Here(text)) => {
                let text = Value::String(lua.create_string(text)?);
                MultiValue::from_iter([Value::Boolean(false), text, Value::Boolean(true)])
            }
            Err(Raise::Value(value)) => MultiValue::from_iter([Value::Boolean(false), value]),
            Err(Raise::Lua(e)) => return Err(e),
        })
    })?;
    // SAFETY: the closure takes the one value on the stack and leaves one.
    unsafe { lua.exec_raw(inner, |state| ffi::lua_pushcclosure(state, raising, 1)) }
}

/// Calls the function in its upvalue; raises what that says, or returns what it returned.
unsafe extern "C-unwind" fn raising(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state, and makes room for LUA_MINSTACK values; `lua_call` makes room for
    // what it returns. Nothing here needs to be dropped.
    unsafe {
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, ffi::lua_gettop(state) - 1, ffi::LUA_MULTRET);
        if ffi::lua_toboolean(state, 1) != 0 {
            return ffi::lua_gettop(state) - 1;
        }
        if ffi::lua_toboolean(state, 3) != 0 {
            ffi::luaL_where(state, 1);
            ffi::lua_pushvalue(state, 2);
            ffi::lua_concat(state, 2);
        } else {
            ffi::lua_pushvalue(state, 2);
        }
        ffi::lua_error(state)
    }
}

/// Makes a table of an error: `err`, and where it was raised in `source` and `line`.
pub fn describer(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: the function keeps Lua's protocol of C functions.
    unsafe { lua.create_c_function(describe) }
}

unsafe extern "C-unwind" fn describe(state: *mut lua_State) -> c_int {
    // SAFETY: as in `raising`; `ar` is filled by Lua before it is read.
    unsafe {
        ffi::lua_settop(state, 1);
        if ffi::lua_type(state, 1) != ffi::LUA_TTABLE {
            ffi::lua_createtable(state, 0, 3);
            ffi::lua_pushstring(state, c"ERR ".as_ptr());
            if ffi::lua_isstring(state, 1) != 0 {
                ffi::lua_pushvalue(state, 1);
            } else {
                text_of(state);
            }
            ffi::lua_concat(state, 2);
            ffi::lua_setfield(state, 2, c"err".as_ptr());
        }
        let mut ar: ffi::lua_Debug = std::mem::zeroed();
        for level in 1..=2 {
            if ffi::lua_getstack(state, level, &raw mut ar) == 0 {
                break;
            }
            ffi::lua_getinfo(state, c"Sl".as_ptr(), &raw mut ar);
            if *ar.what != b'C'.cast_signed() {
                let table = ffi::lua_gettop(state);
                ffi::lua_pushstring(state, ar.source);
                ffi::lua_setfield(state, table, c"source".as_ptr());
                ffi::lua_pushinteger(state, ffi::lua_Integer::from(ar.currentline as i32));
                ffi::lua_setfield(state, table, c"line".as_ptr());
                break;
            }
        }
        1
    }
}

/// Pushes the value at 1, which is no string, as `tostring` shows it.
unsafe fn text_of(state: *mut lua_State) {
    // SAFETY: of the caller.
    unsafe {
        if ffi::luaL_callmeta(state, 1, c"__tostring".as_ptr()) != 0 {
            return;
        }
        match ffi::lua_type(state, 1) {
            ffi::LUA_TNIL => ffi::lua_pushstring(state, c"nil".as_ptr()),
            ffi::LUA_TBOOLEAN if ffi::lua_toboolean(state, 1) != 0 => {
                ffi::lua_pushstring(state, c"true".as_ptr())
            }
            ffi::LUA_TBOOLEAN => ffi::lua_pushstring(state, c"false".as_ptr()),
            kind => ffi::lua_pushstring(state, ffi::lua_typename(state, kind)),
        };
    }
}

/// `pcall` as scripts know it: of an error table they are given its text.
pub fn pcall(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: the function keeps Lua's protocol of C functions.
    unsafe { lua.create_c_function(call_caught) }
}

unsafe extern "C-unwind" fn call_caught(state: *mut lua_State) -> c_int {
    // SAFETY: as in `raising`.
    unsafe {
        ffi::luaL_checkany(state, 1);
        // In front from the beginning: behind many results there may be no room for it.
        ffi::lua_pushboolean(state, 1);
        ffi::lua_insert(state, 1);
        let status = ffi::lua_pcall(state, ffi::lua_gettop(state) - 2, ffi::LUA_MULTRET, 0);
        if status != 0 {
            ffi::lua_pushboolean(state, 0);
            ffi::lua_replace(state, 1);
            if ffi::lua_type(state, 2) == ffi::LUA_TTABLE {
                ffi::lua_getfield(state, 2, c"err".as_ptr());
                if ffi::lua_isstring(state, 3) != 0 {
                    ffi::lua_replace(state, 2);
                }
                ffi::lua_settop(state, 2);
            }
        }
        ffi::lua_gettop(state)
    }
}

/// `xpcall`. Lua runs a handler where the error is raised: in a hook, by which a script is stopped, it would run
/// without hooks, and never be stopped itself. Here it runs when the error has left the function.
pub fn xpcall(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: the function keeps Lua's protocol of C functions.
    unsafe { lua.create_c_function(call_handled) }
}

/// How often at most a handler that fails is given its own error.
const HANDLER_ATTEMPTS: usize = 200;

unsafe extern "C-unwind" fn call_handled(state: *mut lua_State) -> c_int {
    const NO_HANDLER: &CStr = c"error in error handling";
    // SAFETY: as in `raising`.
    unsafe {
        ffi::luaL_checkany(state, 2);
        ffi::lua_settop(state, 2);
        ffi::lua_insert(state, 1);
        // The handler stays at 1.
        ffi::lua_pushboolean(state, 1);
        ffi::lua_insert(state, 2);
        let mut status = ffi::lua_pcall(state, 0, ffi::LUA_MULTRET, 0);
        if status == 0 {
            return ffi::lua_gettop(state) - 1;
        }
        ffi::lua_pushboolean(state, 0);
        ffi::lua_replace(state, 2);
        let is_function = ffi::lua_type(state, 1) == ffi::LUA_TFUNCTION;
        for _ in 0..HANDLER_ATTEMPTS {
            // No handler is asked about memory that ran out.
            if status != ffi::LUA_ERRRUN || !is_function {
                break;
            }
            ffi::lua_pushvalue(state, 1);
            ffi::lua_insert(state, 3);
            status = ffi::lua_pcall(state, 1, 1, 0);
        }
        if status == ffi::LUA_ERRRUN {
            ffi::lua_settop(state, 2);
            ffi::lua_pushstring(state, NO_HANDLER.as_ptr());
        }
        2
    }
}

/// Under this key the metatable of a guarded table has a function that gives a copy of what it guards.
static COPY: u8 = 0;

fn copy_key() -> *mut c_void {
    (&raw const COPY).cast_mut().cast()
}

/// Notes in the metatable of a guarded table how to copy what it guards.
pub fn set_copier(metatable: &Table, copier: Function) -> mlua::Result<()> {
    metatable.raw_set(Value::LightUserData(mlua::LightUserData(copy_key())), copier)
}

/// `pairs` that sees the content of guarded tables, as a copy.
pub fn pairs(lua: &Lua, next: Function) -> mlua::Result<Function> {
    // SAFETY: the closure takes the one value on the stack and leaves one.
    unsafe { lua.exec_raw(next, |state| ffi::lua_pushcclosure(state, walk, 1)) }
}

unsafe extern "C-unwind" fn walk(state: *mut lua_State) -> c_int {
    // SAFETY: as in `raising`.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        ffi::lua_settop(state, 1);
        if push_copier(state, 1) {
            ffi::lua_call(state, 0, 1);
            ffi::lua_replace(state, 1);
        }
        ffi::lua_settop(state, 1);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_pushnil(state);
        3
    }
}

/// `rawset` that leaves guarded tables alone.
pub fn rawset(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: the function keeps Lua's protocol of C functions.
    unsafe { lua.create_c_function(set_raw) }
}

unsafe extern "C-unwind" fn set_raw(state: *mut lua_State) -> c_int {
    // SAFETY: as in `raising`.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        ffi::luaL_checkany(state, 2);
        ffi::luaL_checkany(state, 3);
        ffi::lua_settop(state, 3);
        if is_guarded(state, 1) {
            refuse_to_write(state);
        }
        ffi::lua_rawset(state, 1);
        1
    }
}

/// Whether the value at this place is a guarded table.
pub(super) unsafe fn is_guarded(state: *mut lua_State, at: c_int) -> bool {
    // SAFETY: of the caller.
    unsafe {
        let top = ffi::lua_gettop(state);
        let guarded = ffi::lua_type(state, at) == ffi::LUA_TTABLE && push_copier(state, at);
        ffi::lua_settop(state, top);
        guarded
    }
}

/// Raises what a raw write to a guarded table is told, without a position as in Redis.
pub(super) unsafe fn refuse_to_write(state: *mut lua_State) {
    const TEXT: &CStr = c"Attempt to modify a readonly table";
    // SAFETY: of the caller.
    unsafe {
        ffi::lua_pushstring(state, TEXT.as_ptr());
        ffi::lua_error(state);
    }
}

/// Pushes the copier of the table at this place, if it is a guarded one.
unsafe fn push_copier(state: *mut lua_State, at: c_int) -> bool {
    // SAFETY: of the caller.
    unsafe {
        if ffi::lua_getmetatable(state, at) == 0 {
            return false;
        }
        ffi::lua_pushlightuserdata(state, copy_key());
        ffi::lua_rawget(state, -2);
        ffi::lua_type(state, -1) == ffi::LUA_TFUNCTION
    }
}
