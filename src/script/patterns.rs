//! Lua's matcher of patterns goes down the C stack once for each item of a pattern that repeats or captures, without
//! a limit: a long enough pattern ends the process (that of Redis, too). Here such patterns are refused, in the words
//! of later versions of Lua.

use std::ffi::c_int;
use std::sync::OnceLock;

use mlua::{Function, Lua, Table, ffi, lua_State};

/// How deep the matcher may go. A level takes less than 200 bytes of a thread's stack.
const DEPTH: usize = 1000;

/// The functions whose second argument is a pattern, and Lua's own code for each.
const NAMES: [&str; 4] = ["find", "match", "gmatch", "gsub"];
static LUAS: [OnceLock<ffi::lua_CFunction>; 4] = [const { OnceLock::new() }; 4];
const GUARDS: [ffi::lua_CFunction; 4] = [guarded::<0>, guarded::<1>, guarded::<2>, guarded::<3>];

/// Puts a check of the pattern in front of the functions of the `string` library.
pub(super) fn guard(lua: &Lua, library: &Table) -> mlua::Result<()> {
    for (at, name) in NAMES.into_iter().enumerate() {
        let function: Function = library.raw_get(name)?;
        // SAFETY: the closure looks at the one value on the stack and leaves one in its place.
        let guard: Function = unsafe {
            lua.exec_raw(function, |state| {
                if let Some(code) = ffi::lua_tocfunction(state, 1) {
                    LUAS[at].get_or_init(|| code);
                    ffi::lua_pop(state, 1);
                    ffi::lua_pushcfunction(state, GUARDS[at]);
                }
            })?
        };
        library.raw_set(name, guard)?;
    }
    Ok(())
}

/// Runs Lua's function `N` of the list in this one's place, so that its errors name it as ever.
unsafe extern "C-unwind" fn guarded<const N: usize>(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state. The text stays on the stack while it is looked at, and nothing here needs
    // to be dropped when an error is raised.
    unsafe {
        if ffi::lua_type(state, 2) == ffi::LUA_TSTRING {
            let mut len = 0;
            let text = ffi::lua_tolstring(state, 2, &raw mut len);
            let pattern = std::slice::from_raw_parts(text.cast::<u8>(), len);
            if len > DEPTH && deep_items(pattern) > DEPTH {
                ffi::lua_pushstring(state, c"pattern too complex".as_ptr());
                ffi::luaL_where(state, 1);
                ffi::lua_insert(state, -2);
                ffi::lua_concat(state, 2);
                ffi::lua_error(state);
            }
        }
        match LUAS[N].get() {
            Some(code) => code(state),
            None => 0,
        }
    }
}

/// Items that may take a level each; what is escaped counts, too.
fn deep_items(pattern: &[u8]) -> usize {
    pattern.iter().filter(|c| matches!(c, b'?' | b'*' | b'+' | b'-' | b'(' | b')')).count()
}
