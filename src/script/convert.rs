//! Values of Lua as replies, and replies as values of Lua.
//! Source: "Lua API reference", "Data type conversion".

use mlua::{Lua, Table, Value};

use super::number::format_g;
use crate::resp::{Reply, decode};

/// How deep what a script returns may be nested.
const DEPTH: usize = 400;

/// Writes what a script returned. `resp3` is the protocol that the script chose.
pub fn reply_of(reply: &mut Reply, value: &Value, resp3: bool) -> mlua::Result<()> {
    write(reply, value, resp3, 0)
}

fn write(reply: &mut Reply, value: &Value, resp3: bool, depth: usize) -> mlua::Result<()> {
    if depth > DEPTH {
        reply.error("ERR reached lua stack limit");
        return Ok(());
    }
    match value {
        Value::String(text) => reply.bulk(&text.as_bytes()),
        Value::Boolean(yes) if resp3 => reply.bool(*yes),
        Value::Boolean(true) => reply.int(1),
        Value::Integer(n) => reply.int(*n),
        Value::Number(x) => reply.int(super::number::integer(*x)),
        Value::Table(table) => write_table(reply, table, resp3, depth)?,
        _ => reply.null(),
    }
    Ok(())
}

fn write_table(reply: &mut Reply, table: &Table, resp3: bool, depth: usize) -> mlua::Result<()> {
    if let Value::String(text) = table.raw_get::<Value>("err")? {
        reply.error_bytes(&text.as_bytes());
        return Ok(());
    }
    if let Value::String(text) = table.raw_get::<Value>("ok")? {
        reply.simple_bytes(&text.as_bytes());
        return Ok(());
    }
    match table.raw_get::<Value>("double")? {
        Value::Number(x) => return write_double(reply, x),
        Value::Integer(n) => return write_double(reply, n as f64),
        _ => {}
    }
    if let Value::Table(map) = table.raw_get::<Value>("map")? {
        let pairs: Vec<(Value, Value)> = map.pairs().collect::<mlua::Result<_>>()?;
        reply.map(pairs.len());
        for (name, value) in &pairs {
            write(reply, name, resp3, depth + 1)?;
            write(reply, value, resp3, depth + 1)?;
        }
        return Ok(());
    }
    if let Value::Table(set) = table.raw_get::<Value>("set")? {
        let pairs: Vec<(Value, Value)> = set.pairs().collect::<mlua::Result<_>>()?;
        reply.set(pairs.len());
        for (member, _) in &pairs {
            write(reply, member, resp3, depth + 1)?;
        }
        return Ok(());
    }
    if let Value::String(digits) = table.raw_get::<Value>("big_number")? {
        reply.big_number(&digits.as_bytes());
        return Ok(());
    }
    if let Value::Table(text) = table.raw_get::<Value>("verbatim_string")?
        && let Value::String(format) = text.raw_get::<Value>("format")?
        && let Value::String(content) = text.raw_get::<Value>("string")?
    {
        reply.verbatim_bytes(&format.as_bytes(), &content.as_bytes());
        return Ok(());
    }
    let mut items = Vec::new();
    loop {
        match table.raw_get::<Value>(items.len() + 1)? {
            Value::Nil => break,
            item => items.push(item),
        }
    }
    reply.array(items.len());
    items.iter().try_for_each(|item| write(reply, item, resp3, depth + 1))
}

fn write_double(reply: &mut Reply, x: f64) -> mlua::Result<()> {
    if x.is_finite() && !reply.is_resp3() {
        reply.bulk(format_g(x, 17).as_bytes());
    } else {
        reply.double(x);
    }
    Ok(())
}

/// What a command answered, as scripts see it.
pub fn value_of(lua: &Lua, reply: decode::Value, resp3: bool) -> mlua::Result<Value> {
    use decode::Value as R;
    let table = |field: &str, value: Value| {
        let table = lua.create_table_with_capacity(0, 1)?;
        table.raw_set(field, value)?;
        Ok(Value::Table(table))
    };
    let text = |bytes: &[u8]| Ok::<_, mlua::Error>(Value::String(lua.create_string(bytes)?));
    match reply {
        R::Int(n) => Ok(Value::Number(n as f64)),
        R::Bulk(bytes) => text(&bytes),
        R::Null => Ok(if resp3 { Value::Nil } else { Value::Boolean(false) }),
        R::Simple(bytes) => table("ok", text(&bytes)?),
        R::Error(bytes) => Ok(Value::Table(error_table(lua, &bytes)?)),
        R::Array(items) | R::Push(items) => {
            let array = lua.create_table_with_capacity(items.len(), 0)?;
            for (at, item) in items.into_iter().enumerate() {
                array.raw_set(at + 1, value_of(lua, item, resp3)?)?;
            }
            Ok(Value::Table(array))
        }
        R::Map(pairs) => {
            let map = lua.create_table()?;
            for (name, value) in pairs {
                let name = value_of(lua, name, resp3)?;
                if !name.is_nil() {
                    map.raw_set(name, value_of(lua, value, resp3)?)?;
                }
            }
            table("map", Value::Table(map))
        }
        R::Set(items) => {
            let set = lua.create_table()?;
            for item in items {
                let item = value_of(lua, item, resp3)?;
                if !item.is_nil() {
                    set.raw_set(item, true)?;
                }
            }
            table("set", Value::Table(set))
        }
        R::Double(x) => table("double", Value::Number(x)),
        R::Bool(yes) => Ok(Value::Boolean(yes)),
        R::BigNumber(digits) => table("big_number", text(&digits)?),
        R::Verbatim { format, text: content } => {
            let parts = lua.create_table()?;
            parts.raw_set("format", text(&format)?)?;
            parts.raw_set("string", text(&content)?)?;
            table("verbatim_string", Value::Table(parts))
        }
    }
}

/// The error of a command, which has counted it.
pub fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(text)?)?;
    table.raw_set(super::COUNTED, true)?;
    Ok(table)
}
