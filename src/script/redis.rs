//! The table `redis` that scripts see.
//! Source: "Lua API reference".

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::raise::{self, Answer, Raise, one};
use super::store::sha1_hex;
use super::{State, number};

/// The version of Redis whose behaviour scripts find.
const VERSION: (u32, u32, u32) = (7, 4, 1);

const LEVELS: [(&str, u8); 4] = [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];
/// Bits that say who is told of changes.
const AOF: i64 = 1;
const REPLICA: i64 = 2;
const TARGETS: [(&str, u8); 5] =
    [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)];

/// How the names begin of what is there while a library is loaded.
pub const WHILE_LOADING: [&str; 3] = ["log", "LOG_", "REDIS_VERSION"];

pub fn api(lua: &Lua, state: &Rc<State>) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    for (name, n) in LEVELS.into_iter().chain(TARGETS) {
        redis.raw_set(name, f64::from(n))?;
    }
    let (major, minor, patch) = VERSION;
    redis.raw_set("REDIS_VERSION", format!("{major}.{minor}.{patch}"))?;
    redis.raw_set("REDIS_VERSION_NUM", f64::from(major << 16 | minor << 8 | patch))?;
    let define = |name: &str, f: fn(&State, &Lua, MultiValue) -> Answer| {
        let state = Rc::clone(state);
        redis.raw_set(name, raise::function(lua, move |lua, args| f(&state, lua, args))?)
    };
    redis.raw_set("call", super::call::function::<true>(lua, state)?)?;
    redis.raw_set("pcall", super::call::function::<false>(lua, state)?)?;
    define("acl_check_cmd", acl_check)?;
    define("error_reply", |_, lua, args| single(lua, &args, "err"))?;
    define("status_reply", |_, lua, args| single(lua, &args, "ok"))?;
    define("sha1hex", sha1hex)?;
    define("log", log)?;
    define("setresp", setresp)?;
    define("set_repl", set_repl)?;
    define("replicate_commands", |_, lua, _| one(lua, true))?;
    define("breakpoint", |_, lua, _| one(lua, false))?;
    define("debug", |_, _, _| Ok(MultiValue::new()))?;
    Ok(redis)
}

/// An error without a position in front.
fn plain(lua: &Lua, text: &str) -> Raise {
    match uncounted(lua, text) {
        Ok(table) => Raise::Value(Value::Table(table)),
        Err(e) => Raise::Lua(e),
    }
}

/// The table of an error that is no command's.
fn uncounted(lua: &Lua, text: &str) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 3)?;
    table.raw_set("err", text)?;
    Ok(table)
}

/// The words of a command. `None`: something else is among them.
fn words(args: &MultiValue) -> Option<Vec<Vec<u8>>> {
    let number = |x: f64| {
        let mut text = Vec::new();
        number::write_argument(x, &mut text);
        text
    };
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Number(x) => Some(number(*x)),
        Value::Integer(n) => Some(number(*n as f64)),
        _ => None,
    };
    args.iter().map(word).collect()
}

fn acl_check(state: &State, lua: &Lua, args: MultiValue) -> Answer {
    if args.is_empty() {
        return Err(plain(lua, "ERR Please specify at least one argument for this redis lib call"));
    }
    let Some(words) = words(&args) else {
        return Err(plain(lua, "ERR redis.acl_check_cmd() require a command name or arguments as string"));
    };
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    match state.with(|calls| calls.allows(&words)).flatten() {
        Some(allowed) => one(lua, allowed),
        None => Err(plain(lua, "ERR Invalid command passed to redis.acl_check_cmd()")),
    }
}

/// `error_reply` and `status_reply`: a table with one field.
fn single(lua: &Lua, args: &MultiValue, field: &str) -> Answer {
    let [Value::String(text)] = args.iter().collect::<Vec<_>>()[..] else {
        return one(lua, uncounted(lua, "ERR wrong number or type of arguments")?);
    };
    let text = text.as_bytes().to_vec();
    let text = if field == "err" { with_code(text) } else { text };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(field, lua.create_string(text)?)?;
    one(lua, table)
}

/// An error without a code gets the general one; a hyphen in front goes.
fn with_code(text: Vec<u8>) -> Vec<u8> {
    let text = text.strip_prefix(b"-").map_or(text.clone(), <[u8]>::to_vec);
    if text.contains(&b' ') { text } else { [b"ERR ", text.as_slice()].concat() }
}

fn sha1hex(_: &State, lua: &Lua, args: MultiValue) -> Answer {
    if args.len() != 1 {
        return Err(plain(lua, "ERR wrong number of arguments"));
    }
    let text = words(&args).and_then(|mut words| words.pop()).unwrap_or_default();
    one(lua, sha1_hex(&text))
}

/// Bytes of a text that `redis.log` looks at.
const LONGEST_LINE: usize = 1024;

fn log(state: &State, lua: &Lua, args: MultiValue) -> Answer {
    if args.len() < 2 {
        return Err(plain(lua, "ERR redis.log() requires two arguments or more."));
    }
    let level = match args.front() {
        Some(Value::Number(x)) => *x as i64,
        Some(Value::Integer(n)) => *n,
        _ => return Err(plain(lua, "ERR First argument must be a number (log level).")),
    };
    let level = u8::try_from(level).ok().filter(|level| *level <= 3);
    let Some(level) = level else { return Err(plain(lua, "ERR Invalid log level.")) };
    let (mut texts, mut len) = (Vec::new(), 0);
    for value in args.iter().skip(1) {
        // Redis cuts a line after 1 KiB.
        if len > LONGEST_LINE {
            break;
        }
        if let Some(text) = lua.coerce_string(value.clone())? {
            let text = text.as_bytes();
            len += text.len();
            texts.push(String::from_utf8_lossy(&text[..text.len().min(LONGEST_LINE)]).into_owned());
        }
    }
    state.with(|calls| calls.log(level, &texts.join(" ")));
    Ok(MultiValue::new())
}

fn integer(args: &MultiValue) -> Option<i64> {
    match args.front() {
        Some(Value::Number(x)) => Some(*x as i64),
        Some(Value::Integer(n)) => Some(*n),
        _ => None,
    }
}

fn setresp(state: &State, lua: &Lua, args: MultiValue) -> Answer {
    if args.len() != 1 {
        return Err(plain(lua, "ERR redis.setresp() requires one argument."));
    }
    match integer(&args) {
        Some(version @ 2..=3) => state.resp3.set(version == 3),
        _ => return Err(plain(lua, "ERR RESP version must be 2 or 3.")),
    }
    Ok(MultiValue::new())
}

fn set_repl(state: &State, lua: &Lua, args: MultiValue) -> Answer {
    if args.len() != 1 {
        return Err(plain(lua, "ERR redis.set_repl() requires one argument."));
    }
    let Some(targets @ 0..=3) = integer(&args) else {
        let text = "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.";
        return Err(plain(lua, text));
    };
    state.with(|calls| calls.set_propagated(targets & AOF != 0, targets & REPLICA != 0));
    Ok(MultiValue::new())
}
