//! Replacements for functions of Lua's libraries that would reach past the sandbox, or run for long without a chance
//! to stop them. They refuse what a script must not touch, count long work, and otherwise run Lua's own function, so
//! that its error messages are unchanged.
//!
//! They own nothing that must be dropped, because Lua may leave them by `longjmp`.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;

use mlua::{Function, Lua, Table, ffi, lua_State};

use super::watch::{raise_stopped, spend, state_of};
use super::{convert, patterns, raise, random};

/// Puts the checks in front of what scripts are given.
pub(super) fn guard(lua: &Lua, globals: &Table) -> mlua::Result<()> {
    let (table, string): (Table, Table) = (globals.raw_get("table")?, globals.raw_get("string")?);
    let checked: [(&Table, &str, ffi::lua_CFunction); 8] = [
        (&table, "insert", insert),
        (&table, "remove", remove),
        (&table, "sort", sort),
        (&table, "foreach", for_each),
        (&table, "foreachi", for_each),
        (globals, "setfenv", set_environment),
        (globals, "setmetatable", set_metatable),
        (globals, "collectgarbage", collect_garbage),
    ];
    for (library, name, check) in checked {
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
    random::replace(lua, &globals.raw_get("math")?)?;
    let replaced: [(&Table, &str, ffi::lua_CFunction); 3] =
        [(&table, "concat", concat), (&string, "rep", repeat), (globals, "newproxy", new_proxy)];
    for (library, name, function) in replaced {
        // SAFETY: the functions keep Lua's protocol of C functions.
        library.raw_set(name, unsafe { lua.create_c_function(function)? })?;
    }
    Ok(())
}

/// Runs Lua's own code for the function that is running.
unsafe fn run_own(state: *mut lua_State) -> c_int {
    // SAFETY: the upvalue is of `guard`, a function of Lua's that has no upvalues itself.
    unsafe {
        let code = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1));
        std::mem::transmute::<*mut c_void, ffi::lua_CFunction>(code)(state)
    }
}

/// Items of the table in the first argument; 0 if it is none.
unsafe fn items(state: *mut lua_State) -> usize {
    // SAFETY: of the caller.
    unsafe { if ffi::lua_type(state, 1) == ffi::LUA_TTABLE { ffi::lua_objlen(state, 1) } else { 0 } }
}

/// `table.insert`, which writes past metatables. (`table.remove` and `table.sort` find the guards empty.) In front of
/// other items it moves them, two thousand million for a place that is far below 1.
unsafe extern "C-unwind" fn insert(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and room for LUA_MINSTACK values.
    unsafe {
        let count = ffi::lua_gettop(state);
        let complete = count == 2 || count == 3 && ffi::lua_isnumber(state, 2) != 0;
        if complete && raise::is_guarded(state, 1) {
            raise::refuse_to_write(state);
        }
        if count == 2 || !complete || ffi::lua_type(state, 1) != ffi::LUA_TTABLE {
            return run_own(state);
        }
        let place = ffi::lua_tointeger(state, 2) as c_int;
        let watch = state_of(state);
        let mut to = (ffi::lua_objlen(state, 1) as c_int + 1).max(place);
        while to > place {
            if watch.spend(1) {
                raise_stopped(state);
            }
            ffi::lua_rawgeti_(state, 1, to - 1);
            ffi::lua_rawseti_(state, 1, to);
            to -= 1;
        }
        ffi::lua_rawseti_(state, 1, place);
        0
    }
}

/// `table.remove` moves all items behind the place.
unsafe extern "C-unwind" fn remove(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        if ffi::lua_gettop(state) > 1 {
            spend(state, items(state) / 4);
        }
        run_own(state)
    }
}

/// A list of so many items is sorted in a moment.
const MANY: usize = 10_000;

/// `table.sort`, where comparisons that are no functions of Lua's are counted if there are many.
unsafe extern "C-unwind" fn sort(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        if items(state) > MANY {
            ffi::lua_settop(state, 2);
            if ffi::lua_type(state, 2) == ffi::LUA_TNIL {
                ffi::lua_pushcfunction(state, is_less);
                ffi::lua_replace(state, 2);
            }
            count_calls(state);
        }
        run_own(state)
    }
}

/// `table.foreach` and `foreachi`, where calls of what is no function of Lua's are counted.
unsafe extern "C-unwind" fn for_each(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        count_calls(state);
        run_own(state)
    }
}

unsafe extern "C-unwind" fn is_less(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        let less = ffi::lua_lessthan(state, 1, 2);
        ffi::lua_pushboolean(state, less);
        1
    }
}

/// Puts [`counted`] in front of a C function that is the second argument: in one of Lua's the script can be stopped.
unsafe fn count_calls(state: *mut lua_State) {
    // SAFETY: of the caller, who has room for a value.
    unsafe {
        if ffi::lua_iscfunction(state, 2) != 0 {
            ffi::lua_pushvalue(state, 2);
            ffi::lua_pushcclosure(state, counted, 1);
            ffi::lua_replace(state, 2);
        }
    }
}

unsafe extern "C-unwind" fn counted(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        spend(state, 8);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, ffi::lua_gettop(state) - 1, ffi::LUA_MULTRET);
        ffi::lua_gettop(state)
    }
}

/// `table.concat`.
unsafe extern "C-unwind" fn concat(state: *mut lua_State) -> c_int {
    const INVALID: &CStr = c"invalid value (%s) at index %d in table for 'concat'";
    // SAFETY: as in `insert`. The buffer is Lua's, which keeps what is in it on the stack.
    unsafe {
        let mut len = 0;
        let between = ffi::luaL_optlstring(state, 2, c"".as_ptr(), &raw mut len);
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        let first = ffi::luaL_optinteger(state, 3, 1) as c_int;
        let last = match ffi::lua_type(state, 4) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => ffi::lua_objlen(state, 1) as c_int,
            _ => ffi::luaL_checkinteger(state, 4) as c_int,
        };
        let watch = state_of(state);
        let mut buffer = MaybeUninit::<ffi::luaL_Buffer>::uninit();
        let out = buffer.as_mut_ptr();
        ffi::luaL_buffinit(state, out);
        for at in first..=last {
            if watch.spend(1) {
                raise_stopped(state);
            }
            ffi::lua_rawgeti_(state, 1, at);
            if ffi::lua_isstring(state, -1) == 0 {
                let kind = ffi::lua_typename(state, ffi::lua_type(state, -1));
                ffi::luaL_error(state, INVALID.as_ptr(), kind, at);
            }
            ffi::luaL_addvalue(out);
            if at != last && len > 0 {
                ffi::luaL_addlstring(out, between, len);
            }
        }
        ffi::luaL_pushresult(out);
        1
    }
}

/// A result that fits into so many bytes is made on the stack.
const SMALL: usize = 1024;

/// `string.rep`. Lua's goes round once for each repetition, also of nothing.
unsafe extern "C-unwind" fn repeat(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`. Lua's memory for the result is garbage afterwards, and stays while it is on the stack.
    unsafe {
        let text = patterns::text_argument(state, 1);
        let count = usize::try_from(ffi::luaL_checkinteger(state, 2) as c_int).unwrap_or(0);
        let len = text.len().saturating_mul(count);
        spend(state, len / 256);
        let mut small = MaybeUninit::<[u8; SMALL]>::uninit();
        let out = if len <= SMALL {
            small.as_mut_ptr().cast::<u8>()
        } else {
            ffi::lua_newuserdata(state, len).cast::<u8>()
        };
        // What is there is copied behind itself, twice as much each time.
        let mut done = text.len().min(len);
        out.copy_from_nonoverlapping(text.as_ptr(), done);
        while done < len {
            let more = done.min(len - done);
            out.add(done).copy_from_nonoverlapping(out, more);
            done += more;
        }
        convert::push_text(state, std::slice::from_raw_parts(out, len));
        1
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

/// `setmetatable`, which tells what scripts share in Redis's words.
unsafe extern "C-unwind" fn set_metatable(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        let complete = matches!(ffi::lua_type(state, 2), ffi::LUA_TNIL | ffi::LUA_TTABLE);
        if complete && raise::is_guarded(state, 1) {
            raise::refuse_to_write(state);
        }
        run_own(state)
    }
}

/// `collectgarbage`, which takes the longer the more there is, and may leave the collector otherwise than the next
/// script expects it.
unsafe extern "C-unwind" fn collect_garbage(state: *mut lua_State) -> c_int {
    // SAFETY: as in `insert`.
    unsafe {
        let watch = state_of(state);
        watch.tuned.set(true);
        if watch.spend(ffi::lua_gc(state, ffi::LUA_GCCOUNT, 0).unsigned_abs() as usize / 8) {
            raise_stopped(state);
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
