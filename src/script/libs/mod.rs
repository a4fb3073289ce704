//! The libraries of scripts, in Rust: bounded in depth and size on whatever they are given.

use mlua::{Lua, MultiValue, Table, Value};

use super::raise::{self, Answer, Raise};

pub mod bit;
pub mod cjson;
pub mod cmsgpack;
pub mod structs;

/// A function under its name in a table.
fn define(
    lua: &Lua,
    table: &Table,
    name: &str,
    f: impl Fn(&Lua, MultiValue) -> Answer + 'static,
) -> mlua::Result<()> {
    table.raw_set(name, raise::function(lua, f)?)
}

/// The type of an argument, as Lua's messages say it.
fn type_of(value: Option<&Value>) -> &'static str {
    match value {
        None => "no value",
        Some(Value::Integer(_) | Value::Number(_)) => "number",
        Some(Value::LightUserData(_) | Value::UserData(_) | Value::Error(_)) => "userdata",
        Some(value) => value.type_name(),
    }
}

/// A number, or a text that is one, at a place counted from 1.
fn number(lua: &Lua, args: &MultiValue, at: usize, function: &str) -> Result<f64, Raise> {
    let value = args.get(at - 1);
    let number = match value {
        Some(Value::Number(x)) => Some(*x),
        Some(Value::Integer(n)) => Some(*n as f64),
        Some(text @ Value::String(_)) => lua.coerce_number(text.clone())?,
        _ => None,
    };
    number
        .ok_or_else(|| raise::bad_argument(at, function, &format!("number expected, got {}", type_of(value))))
}

/// A text, or a number as text, at a place counted from 1.
fn text(lua: &Lua, args: &MultiValue, at: usize, function: &str) -> Result<mlua::String, Raise> {
    let value = args.get(at - 1);
    let text = match value {
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Integer(_))) => {
            lua.coerce_string(value.clone())?
        }
        _ => None,
    };
    text.ok_or_else(|| raise::bad_argument(at, function, &format!("string expected, got {}", type_of(value))))
}
