//! Functions of Lua's own libraries that would reach past the sandbox: what they must not touch is refused, and for
//! the rest Lua's own code runs in their place, so that its errors name them as ever.

use std::ffi::{c_int, c_void};

use mlua::{Function, Lua, Table, ffi, lua_State};

use super::raise;

/// Puts the checks in front of what scripts are given.
pub(super) fn guard(lua: &Lua, globals: &Table) -> mlua::Result<()> {
    let table: Table = globals.raw_get("table")?;
    for (library, name, check) in
        [(&table, "insert", insert as ffi::lua_CFunction), (globals, "setfenv", set_environment)]
    {
        let function: Function = library.raw_get(name)?;
        // SAFETY: the closure looks at the one value on the stack and leaves one in its place.
        let checked: Function = unsafe {
            lua.exec_raw(function, |state| {
                if let Some(code) = ffi::lua_tocfunction(state, 1) {
                    ffi::lua_pop(state, 1);
                    ffi::lua_pushlightuserdata(state, code as *mut c_void);
                    ffi::lua_pushcclosure(state, check, 1);
                }
            })?
        };
        library.raw_set(name, checked)?;
    }
    // SAFETY: the function keeps Lua's protocol of C functions.
    globals.raw_set("newproxy", unsafe { lua.create_c_function(new_proxy)? })
}

/// Runs Lua's own code for the function that is running.
unsafe fn run_own(state: *mut lua_State) -> c_int {
    // SAFETY: the upvalue is of `guard`, a function of Lua's that has no upvalues itself.
    unsafe {
        let code = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1));
        std::mem::transmute::<*mut c_void, ffi::lua_CFunction>(code)(state)
    }
}

/// `table.insert`, which writes past metatables. (`table.remove` and `table.sort` find the guards empty.)
unsafe extern "C-unwind" fn insert(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and room for LUA_MINSTACK values.
    unsafe {
        let count = ffi::lua_gettop(state);
        let complete = count == 2 || count == 3 && ffi::lua_isnumber(state, 2) != 0;
        if complete && raise::is_guarded(state, 1) {
            raise::refuse_to_write(state);
        }
        run_own(state)
    }
}

/// `setfenv`, but not for level 0: the thread's environment is that of all scripts to come.
unsafe extern "C-unwind" fn set_environment(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        if ffi::lua_isnumber(state, 1) != 0 && ffi::lua_tonumber(state, 1) == 0.0 {
            ffi::luaL_checktype(state, 2, ffi::LUA_TTABLE);
            ffi::luaL_error(state, c"'setfenv' cannot change environment of given object".as_ptr());
        }
        run_own(state)
    }
}

/// Under this key the metatable of a proxy says that it is one.
static PROXY: u8 = 0;

/// `newproxy`, whose metatables take no `__gc`: Lua runs finalizers without hooks, so nothing could stop one.
unsafe extern "C-unwind" fn new_proxy(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        ffi::lua_settop(state, 1);
        ffi::lua_newuserdata(state, 0);
        if ffi::lua_toboolean(state, 1) == 0 {
            return 1;
        }
        let key = (&raw const PROXY).cast_mut().cast::<c_void>();
        if ffi::lua_type(state, 1) == ffi::LUA_TBOOLEAN {
            push_metatable(state);
            ffi::lua_pushlightuserdata(state, key);
            ffi::lua_pushboolean(state, 1);
            ffi::lua_rawset(state, 3);
        } else {
            let has_metatable = ffi::lua_getmetatable(state, 1) != 0;
            if has_metatable {
                ffi::lua_pushlightuserdata(state, key);
                ffi::lua_rawget(state, 3);
            }
            if !has_metatable || ffi::lua_toboolean(state, -1) == 0 {
                ffi::luaL_argerror(state, 1, c"boolean or proxy expected".as_ptr());
            }
            ffi::lua_settop(state, 3);
        }
        ffi::lua_setmetatable(state, 2);
        1
    }
}

/// Pushes a new metatable. What scripts are given in its place is a table in front of it.
unsafe fn push_metatable(state: *mut lua_State) {
    // SAFETY: of the caller, who has room for four values.
    unsafe {
        ffi::lua_createtable(state, 0, 2);
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_createtable(state, 0, 3);
        ffi::lua_pushvalue(state, -3);
        ffi::lua_setfield(state, -2, c"__index".as_ptr());
        ffi::lua_pushvalue(state, -3);
        ffi::lua_pushcclosure(state, set_metamethod, 1);
        ffi::lua_setfield(state, -2, c"__newindex".as_ptr());
        ffi::lua_pushboolean(state, 0);
        ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
        ffi::lua_setmetatable(state, -2);
        ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
    }
}

/// Writes to the metatable in the upvalue.
unsafe extern "C-unwind" fn set_metamethod(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`; Lua calls with the table, a name and a value.
    unsafe {
        ffi::lua_settop(state, 3);
        ffi::lua_pushstring(state, c"__gc".as_ptr());
        if ffi::lua_rawequal(state, 2, -1) != 0 {
            ffi::luaL_error(state, c"finalizers are not supported".as_ptr());
        }
        ffi::lua_settop(state, 3);
        ffi::lua_rawset(state, ffi::lua_upvalueindex(1));
        0
    }
}
