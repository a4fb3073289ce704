//! `string.find`, `match`, `gmatch` and `gsub` with a matcher of our own: Lua's cannot be stopped where it backtracks
//! without end, and goes down the C stack once for each item of a pattern without a limit.
//!
//! They own nothing that must be dropped, because Lua may leave them by `longjmp`.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use mlua::{Function, Lua, Table, ffi, lua_State};

use super::convert::{push_text, text_at};
use super::matcher::{Captured, Fault, Matcher};
use super::watch::{raise_stopped, spend, state_of};

const ESCAPE: u8 = b'%';

/// Characters that make a text more than itself.
const SPECIAL: &[u8] = b"^$*+?.([%-";

/// Puts the functions in the place of Lua's.
pub(super) fn replace(lua: &Lua, library: &Table) -> mlua::Result<()> {
    let functions: [(&str, ffi::lua_CFunction); 5] =
        [("find", find), ("match", first_match), ("gmatch", gmatch), ("gfind", gmatch), ("gsub", gsub)];
    for (name, function) in functions {
        // SAFETY: the functions keep Lua's protocol of C functions.
        let function: Function = unsafe { lua.create_c_function(function)? };
        library.raw_set(name, function)?;
    }
    Ok(())
}

/// A text argument, or a number as one.
///
/// # Safety
/// A valid state, inside a protected call.
pub(super) unsafe fn text_argument<'a>(l: *mut lua_State, at: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: of the caller. The text stays where it is as long as it is on the stack.
    unsafe {
        let text = ffi::luaL_checklstring(l, at, &raw mut len);
        std::slice::from_raw_parts(text.cast(), len)
    }
}

/// A matcher for this interpreter.
macro_rules! matcher {
    ($l:expr, $source:expr, $pattern:expr) => {{
        let state = state_of($l);
        Matcher::new($source, $pattern, move |steps| state.spend(steps))
    }};
}

/// Raises what ended a match.
unsafe fn raise(l: *mut lua_State, fault: Fault) -> ! {
    // SAFETY: of the caller, who owns nothing.
    unsafe {
        match fault {
            Fault::Pattern(text) => {
                ffi::luaL_where(l, 1);
                ffi::lua_pushstring(l, text.as_ptr());
                ffi::lua_concat(l, 2);
                ffi::lua_error(l)
            }
            Fault::Stopped => raise_stopped(l),
        }
    }
}

unsafe extern "C-unwind" fn find(l: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state.
    unsafe { search::<true>(l) }
}

unsafe extern "C-unwind" fn first_match(l: *mut lua_State) -> c_int {
    // SAFETY: as in `find`.
    unsafe { search::<false>(l) }
}

/// Where the search begins that the third argument tells, counted from 0; negative ones count from the end.
unsafe fn beginning(l: *mut lua_State, len: usize) -> usize {
    // SAFETY: of the caller.
    let told = unsafe { ffi::luaL_optinteger(l, 3, 1) };
    let from = if told < 0 { told.saturating_add(len as ffi::lua_Integer + 1) } else { told };
    usize::try_from(from.saturating_sub(1)).unwrap_or(0).min(len)
}

/// The pattern without the anchor in front.
fn anchored(pattern: &[u8]) -> (&[u8], bool) {
    pattern.strip_prefix(b"^").map_or((pattern, false), |rest| (rest, true))
}

/// The part of a pattern that C sees.
fn up_to_nul(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(0, text).unwrap_or(text.len())]
}

unsafe fn search<const FIND: bool>(l: *mut lua_State) -> c_int {
    // SAFETY: of the caller; there is room for LUA_MINSTACK values, and `push_captures` makes more.
    unsafe {
        let (source, pattern) = (text_argument(l, 1), text_argument(l, 2));
        let from = beginning(l, source.len());
        let is_plain = |pattern: &[u8]| up_to_nul(pattern).iter().all(|c| !SPECIAL.contains(c));
        if FIND && (ffi::lua_toboolean(l, 4) != 0 || is_plain(pattern)) {
            spend(l, (source.len() - from) / 64);
            let Some(found) = memchr::memmem::find(&source[from..], pattern) else {
                ffi::lua_pushnil(l);
                return 1;
            };
            ffi::lua_pushinteger(l, (from + found + 1) as ffi::lua_Integer);
            ffi::lua_pushinteger(l, (from + found + pattern.len()) as ffi::lua_Integer);
            return 2;
        }
        let (pattern, is_anchored) = anchored(pattern);
        let mut matcher = matcher!(l, source, pattern);
        match matcher.first(from, if is_anchored { from } else { source.len() }) {
            Ok(None) => {
                ffi::lua_pushnil(l);
                1
            }
            Ok(Some((start, end))) if FIND => {
                ffi::lua_pushinteger(l, start as ffi::lua_Integer + 1);
                ffi::lua_pushinteger(l, end as ffi::lua_Integer);
                push_captures(l, &matcher, matcher.count(), start, end) + 2
            }
            Ok(Some((start, end))) => push_captures(l, &matcher, matcher.count().max(1), start, end),
            Err(fault) => raise(l, fault),
        }
    }
}

/// Pushes so many captures, and returns their number.
unsafe fn push_captures<S: FnMut(usize) -> bool>(
    l: *mut lua_State,
    matcher: &Matcher<'_, S>,
    count: usize,
    start: usize,
    end: usize,
) -> c_int {
    const TEXT: &CStr = c"too many captures";
    // SAFETY: of the caller.
    unsafe {
        ffi::luaL_checkstack_(l, count as c_int, TEXT.as_ptr());
        for number in 0..count {
            push_capture(l, matcher, number, start, end);
        }
    }
    count as c_int
}

unsafe fn push_capture<S: FnMut(usize) -> bool>(
    l: *mut lua_State,
    matcher: &Matcher<'_, S>,
    number: usize,
    start: usize,
    end: usize,
) {
    // SAFETY: of the caller, who has room for a value.
    unsafe {
        match matcher.capture(number, start, end) {
            Ok(Captured::Text(text)) => push_text(l, text),
            Ok(Captured::Position(at)) => ffi::lua_pushinteger(l, at as ffi::lua_Integer),
            Err(fault) => raise(l, fault),
        }
    }
}

/// Upvalues of [`next_match`]: the text, the pattern, and where to go on.
const SOURCE: c_int = 1;
const PATTERN: c_int = 2;
const NEXT: c_int = 3;

unsafe extern "C-unwind" fn gmatch(l: *mut lua_State) -> c_int {
    // SAFETY: as in `find`.
    unsafe {
        text_argument(l, 1);
        text_argument(l, 2);
        ffi::lua_settop(l, 2);
        ffi::lua_pushinteger(l, 0);
        ffi::lua_pushcclosure(l, next_match, NEXT);
        1
    }
}

unsafe extern "C-unwind" fn next_match(l: *mut lua_State) -> c_int {
    // SAFETY: as in `find`; the upvalues are of `gmatch`.
    unsafe {
        let source = text_at(l, ffi::lua_upvalueindex(SOURCE));
        let pattern = text_at(l, ffi::lua_upvalueindex(PATTERN));
        let from = usize::try_from(ffi::lua_tointeger(l, ffi::lua_upvalueindex(NEXT))).unwrap_or(0);
        let mut matcher = matcher!(l, source, pattern);
        match matcher.first(from, source.len()) {
            Ok(None) => 0,
            Ok(Some((start, end))) => {
                // Behind a match of nothing the next character is passed over.
                let next = end + usize::from(end == start);
                ffi::lua_pushinteger(l, next as ffi::lua_Integer);
                ffi::lua_replace(l, ffi::lua_upvalueindex(NEXT));
                push_captures(l, &matcher, matcher.count().max(1), start, end)
            }
            Err(fault) => raise(l, fault),
        }
    }
}

/// What the third argument of `gsub` puts in the place of a match.
const REPLACEMENT: c_int = 3;

unsafe extern "C-unwind" fn gsub(l: *mut lua_State) -> c_int {
    const EXPECTED: &CStr = c"string/function/table expected";
    // SAFETY: as in `find`. The buffer is Lua's, which keeps what is in it on the stack.
    unsafe {
        let (source, pattern) = (text_argument(l, 1), text_argument(l, 2));
        let kind = ffi::lua_type(l, REPLACEMENT);
        let most = ffi::luaL_optinteger(l, 4, source.len() as ffi::lua_Integer + 1) as c_int;
        if !matches!(kind, ffi::LUA_TNUMBER | ffi::LUA_TSTRING | ffi::LUA_TFUNCTION | ffi::LUA_TTABLE) {
            ffi::luaL_argerror(l, REPLACEMENT, EXPECTED.as_ptr());
        }
        let (pattern, is_anchored) = anchored(pattern);
        let mut buffer = MaybeUninit::<ffi::luaL_Buffer>::uninit();
        let out = buffer.as_mut_ptr();
        ffi::luaL_buffinit(l, out);
        let mut matcher = matcher!(l, source, pattern);
        // What is not replaced is taken over in one piece, from `kept` on.
        let (mut count, mut at, mut kept) = (0, 0, 0);
        while count < most {
            let end = match matcher.match_at(at) {
                Ok(end) => end,
                Err(fault) => raise(l, fault),
            };
            if let Some(end) = end {
                count += 1;
                add(out, &source[kept..at]);
                add_replacement(l, out, kind, &matcher, source, at, end);
                kept = end;
            }
            match end {
                Some(end) if end > at => at = end,
                _ if at < source.len() => at += 1,
                _ => break,
            }
            if is_anchored {
                break;
            }
        }
        add(out, &source[kept..]);
        ffi::luaL_pushresult(out);
        ffi::lua_pushinteger(l, ffi::lua_Integer::from(count));
        2
    }
}

unsafe fn add(out: *mut ffi::luaL_Buffer, text: &[u8]) {
    // SAFETY: of the caller.
    unsafe { ffi::luaL_addlstring(out, text.as_ptr().cast(), text.len()) };
}

unsafe fn add_replacement<S: FnMut(usize) -> bool>(
    l: *mut lua_State,
    out: *mut ffi::luaL_Buffer,
    kind: c_int,
    matcher: &Matcher<'_, S>,
    source: &[u8],
    start: usize,
    end: usize,
) {
    const INVALID: &CStr = c"invalid replacement value (a %s)";
    // SAFETY: of the caller. A buffer leaves room for LUA_MINSTACK values less its own.
    unsafe {
        match kind {
            ffi::LUA_TFUNCTION => {
                ffi::lua_pushvalue(l, REPLACEMENT);
                let count = push_captures(l, matcher, matcher.count().max(1), start, end);
                ffi::lua_call(l, count, 1);
            }
            ffi::LUA_TTABLE => {
                push_capture(l, matcher, 0, start, end);
                ffi::lua_gettable(l, REPLACEMENT);
            }
            _ => return add_template(l, out, matcher, source, start, end),
        }
        if ffi::lua_toboolean(l, -1) == 0 {
            ffi::lua_settop(l, -2);
            push_text(l, &source[start..end]);
        } else if ffi::lua_isstring(l, -1) == 0 {
            let kind = ffi::lua_typename(l, ffi::lua_type(l, -1));
            ffi::luaL_error(l, INVALID.as_ptr(), kind);
        }
        ffi::luaL_addvalue(out);
    }
}

/// A replacement text, in which `%` and a digit stands for a capture.
unsafe fn add_template<S: FnMut(usize) -> bool>(
    l: *mut lua_State,
    out: *mut ffi::luaL_Buffer,
    matcher: &Matcher<'_, S>,
    source: &[u8],
    start: usize,
    end: usize,
) {
    // SAFETY: of the caller. A number that is the template becomes a text on the stack, where it stays.
    unsafe {
        let mut len = 0;
        let text = ffi::lua_tolstring(l, REPLACEMENT, &raw mut len);
        let mut rest = std::slice::from_raw_parts(text.cast::<u8>(), len);
        while let Some(at) = memchr::memchr(ESCAPE, rest) {
            spend(l, 1 + at / 64);
            add(out, &rest[..at]);
            // Behind an escape at the end there is Lua's NUL.
            match rest.get(at + 1).copied().unwrap_or(0) {
                b'0' => add(out, &source[start..end]),
                digit @ b'1'..=b'9' => {
                    push_capture(l, matcher, usize::from(digit - b'1'), start, end);
                    ffi::luaL_addvalue(out);
                }
                other => add(out, &[other]),
            }
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        add(out, rest);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use mlua::{Function, Lua, Table};

    use super::super::{State, raise, sandbox, watch};
    use crate::base::rng::Rng;

    /// An interpreter that knows a state, and its library of texts in which only the functions here are ours.
    fn interpreter(state: &Rc<State>) -> (Lua, Table) {
        let lua = sandbox::interpreter().expect("an interpreter");
        watch::set_state(&lua, state).expect("memory");
        let ours = lua.create_table().expect("memory");
        super::replace(&lua, &ours).expect("functions");
        // Lua's own has no room for many results.
        lua.globals().raw_set("pcall", raise::pcall(&lua).expect("a function")).expect("memory");
        (lua, ours)
    }

    const PIECES: [&[u8]; 44] = [
        b"a", b"b", b"c", b".", b"%a", b"%d", b"%s", b"%w", b"%x", b"%p", b"%u", b"%z", b"%W", b"%S",
        b"[ab]", b"[^a]", b"[a-c]", b"[%a_]", b"[^%d]", b"[]]", b"[^]a]", b"[a-]", b"%b()", b"%bab",
        b"%f[%a]", b"%f[^a]", b"%1", b"%2", b"()", b"%%", b"%.", b"\0", b"$", b"^", b"%", b"[", b"]", b"%f",
        b"%b", b"%0", b"-", b" ", b"[%]-a]", b"1",
    ];
    const SUBJECT: &[u8] = b"aaabbc ()1_.A%\0]-^$";

    /// A pattern that repeats at most four items, so that Lua's own matcher ends.
    fn pattern(rng: &mut Rng) -> Vec<u8> {
        let (mut out, mut open, mut repeated) = (Vec::new(), 0, 0);
        if rng.below(8) == 0 {
            out.push(b'^');
        }
        for _ in 0..rng.below(8) {
            match rng.below(8) {
                0 if open < 4 => {
                    out.push(b'(');
                    open += 1;
                    continue;
                }
                1 if open > 0 => {
                    out.push(b')');
                    open -= 1;
                    continue;
                }
                _ => out.extend_from_slice(PIECES[rng.below(PIECES.len() as u64) as usize]),
            }
            if repeated < 4 && rng.below(2) == 0 {
                out.push(b"*+-?"[rng.below(4) as usize]);
                repeated += 1;
            }
        }
        // Now and then one stays open.
        for _ in 0..open {
            if rng.below(12) > 0 {
                out.push(b')');
            }
        }
        if rng.below(8) == 0 {
            out.push(b'$');
        }
        out
    }

    fn subject(rng: &mut Rng) -> Vec<u8> {
        (0..rng.below(24)).map(|_| SUBJECT[rng.below(SUBJECT.len() as u64) as usize]).collect()
    }

    /// Each call with Lua's function and with ours: what they return, or raise, is the same.
    const COMPARE: &str = r"
        local theirs, ours = ...
        local pcall, select, type, tostring, concat = pcall, select, type, tostring, table.concat
        local function shown(...)
            local all = {}
            for at = 1, select('#', ...) do
                local value = select(at, ...)
                all[at] = type(value) .. ':' .. tostring(value)
            end
            return concat(all, ' | ')
        end
        local values = {a = 'X', b = 1, [1] = 'first', ab = false}
        local odd = setmetatable({}, {__index = function(_, key) if key == 'c' then return {} end return key end})
        local function doubled(first, second) return second and first .. second end
        local function all(find, subject, pattern)
            local found = {}
            for first, second in find(subject, pattern) do
                found[#found + 1] = shown(first, second)
                if #found > 100 then return 'no end' end
            end
            return concat(found, ' / ')
        end
        return function(subject, pattern, template, from)
            local told = ''
            local function same(what, a, b)
                if a ~= b then told = told .. what .. ':\n  ' .. a .. '\n  ' .. b .. '\n' end
            end
            local function try(name, ...)
                same(name, shown(pcall(theirs[name], ...)), shown(pcall(ours[name], ...)))
            end
            for _, name in ipairs({'find', 'match'}) do
                try(name, subject, pattern)
                try(name, subject, pattern, from)
                try(name, subject, pattern, from, true)
            end
            for _, by in ipairs({template, values, odd, doubled, 7}) do
                try('gsub', subject, pattern, by)
                try('gsub', subject, pattern, by, from)
            end
            same('gmatch', shown(pcall(all, theirs.gmatch, subject, pattern)),
                shown(pcall(all, ours.gmatch, subject, pattern)))
            return told
        end";

    /// Compares so many random patterns from one seed.
    fn compare(seed: u64, count: usize) {
        const TEMPLATES: [&[u8]; 9] = [b"", b"x", b"%0", b"<%1>", b"%2%1", b"%%", b"%", b"%a%9", b"\0%0\0"];
        let (lua, ours) = interpreter(&Rc::default());
        let theirs: Table = lua.globals().raw_get("string").expect("a library");
        let same: Function = lua.load(COMPARE).call((theirs, ours)).expect("good code");
        let mut rng = Rng::new(seed);
        for _ in 0..count {
            let (pattern, subject) = (pattern(&mut rng), subject(&mut rng));
            let template = TEMPLATES[rng.below(TEMPLATES.len() as u64) as usize];
            let from = rng.below(60) as i64 - 30;
            let [s, p, t] =
                [&subject[..], &pattern, template].map(|text| lua.create_string(text).expect("memory"));
            let told: String = same.call((s, p, t, from)).expect("no error");
            assert!(
                told.is_empty(),
                "{told} b\"{}\" b\"{}\" b\"{}\" {from}",
                subject.escape_ascii(),
                pattern.escape_ascii(),
                template.escape_ascii()
            );
        }
    }

    /// Twenty calls each of ours and of Lua's.
    #[test]
    fn random_patterns_match_as_lua_matches_them() {
        let count = std::env::var("KEYSTEAD_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
        compare(1, count);
    }

    /// What random patterns seldom come to.
    #[test]
    fn odd_patterns_match_as_lua_matches_them() {
        let (lua, ours) = interpreter(&Rc::default());
        let theirs: Table = lua.globals().raw_get("string").expect("a library");
        let same: Function = lua.load(COMPARE).call((theirs, ours)).expect("good code");
        let (many, too_many) = ("()".repeat(32), "()".repeat(33));
        let classes: Vec<String> = "acdlpsuwxzg"
            .chars()
            .flat_map(|c| [c, c.to_ascii_uppercase()])
            .map(|c| format!("[%{c}]+()"))
            .collect();
        let patterns =
            [&many, &too_many, "(a*(.)%w(%s*))", "^^a", "a$$", "%f[\\0]", "(()(()))", "((a)", "a)", "%1(a)"];
        let every: Vec<u8> = (0..=255).collect();
        for pattern in patterns.into_iter().chain(classes.iter().map(String::as_str)) {
            for subject in [&b"aab ab$"[..], b"", &every] {
                let subject = lua.create_string(subject).expect("memory");
                let told: String = same.call((subject, pattern, "%1", -3)).expect("no error");
                assert_eq!(told, "", "{pattern}");
            }
        }
    }

    #[test]
    fn a_pattern_is_too_complex_before_the_stack_ends() {
        let (lua, ours) = interpreter(&Rc::default());
        for (pattern, fits) in [("a?".repeat(900), true), ("a?".repeat(200_000), false)] {
            let code = "local lib, pattern = ... return pcall(lib.find, ('a'):rep(300000), pattern)";
            let (found, told): (bool, String) =
                lua.load(code).call((ours.clone(), pattern)).expect("no more than an error");
            assert_eq!(
                (found, told.as_str()),
                if fits { (true, "1") } else { (false, "pattern too complex") }
            );
        }
    }
}
