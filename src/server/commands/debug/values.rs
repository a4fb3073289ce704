//! How keys and values are kept, digests of what they hold, and keys made up to be looked at.

use std::fmt::Write as _;

use super::is_on;
use crate::base::size_class::size_class;
use crate::command::family::object::{encoding_of, references};
use crate::command::{CommandError, Ctx, DONE, Result, is, non_negative};
use crate::encoding::Item;
use crate::keyspace::db::SetExpire;
use crate::keyspace::{Db, event};
use crate::persist::rdb::{Options, payload};
use crate::server::commands::node;
use crate::value::digest::Digest;
use crate::value::{ValueRef, list};

pub fn object(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let config = node(ctx).config.load();
    let keyspace = ctx.db.keyspace();
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let value = entry.value();
    let fast = args.get(3).is_some_and(|word| is(word, "fast"));
    let mut text = format!(
        "Value at:{:p} refcount:{} encoding:{}",
        entry.key().as_ptr(),
        references(entry, keyspace.usage.tracks_each_value()),
        encoding_of(entry),
    );
    // A String takes everything.
    if !fast {
        let mut saved = Vec::new();
        payload::dump(&mut saved, value, Options { compress: config.rdbcompression });
        let _ = write!(text, " serializedlength:{}", saved.len() - payload::FRAME);
    }
    let (access, idle) = (entry.access(), keyspace.usage.idle_seconds(entry.access()));
    let _ = write!(text, " lru:{access} lru_seconds_idle:{idle}");
    if let ValueRef::List(list) = value
        && list.encoding_name() == "quicklist"
    {
        let nodes = list.nodes().len();
        let _ = write!(
            text,
            " ql_nodes:{nodes} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{}",
            list.len() as f64 / nodes as f64,
            config.list_max_listpack_size,
            u8::from(list.compresses()),
        );
        if !fast {
            let bytes: usize = list.nodes().map(|node| node.bytes()).sum();
            let _ = write!(text, " ql_uncompressed_size:{bytes}");
        }
    }
    ctx.reply.simple(&text);
    DONE
}

/// Keys and strings have no free room here, and lie in one allocation with what is known of them.
pub fn sds_length(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let ValueRef::String(value) = entry.value() else {
        return Err(CommandError::text("ERR Not an sds encoded string."));
    };
    if encoding_of(entry) == "int" {
        return Err(CommandError::text("ERR Not an sds encoded string."));
    }
    let (key, value) = (args[2].len(), value.len());
    ctx.reply.simple(&format!(
        "key_sds_len:{key}, key_sds_avail:0, key_zmalloc: {}, val_sds_len:{value}, val_sds_avail:0, val_zmalloc: {}",
        size_class(key),
        size_class(value),
    ));
    DONE
}

pub fn listpack(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let value = entry.value();
    if value.encoding_name() != "listpack" {
        return Err(CommandError::text("ERR Not a listpack encoded object."));
    }
    let entries: Vec<String> = match value {
        ValueRef::List(list) => {
            let mut entries = Vec::new();
            list.for_each(|item| entries.push(shown(item)));
            entries
        }
        ValueRef::Set(set) => set.iter().map(shown).collect(),
        ValueRef::Hash(hash) => hash.iter().flat_map(|(field, value)| [shown(field), shown(value)]).collect(),
        ValueRef::SortedSet(set) => {
            set.iter().flat_map(|(member, score)| [shown(member), score.to_string()]).collect()
        }
        ValueRef::String(_) | ValueRef::Stream(_) => vec![],
    };
    println!("{{listpack of {} entries}}", entries.len());
    for (index, entry) in entries.iter().enumerate() {
        println!("{{index {index}, {entry}}}");
    }
    ctx.reply.simple("Listpack structure printed on stdout");
    DONE
}

fn shown(item: Item<'_>) -> String {
    match item {
        Item::Bytes(bytes) => format!("string {:?}", String::from_utf8_lossy(bytes)),
        Item::Int(n) => format!("integer {n}"),
    }
}

pub fn quicklist(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let ValueRef::List(list) = entry.value() else {
        return Err(CommandError::text("ERR Not a quicklist encoded object."));
    };
    if list.encoding_name() != "quicklist" {
        return Err(CommandError::text("ERR Not a quicklist encoded object."));
    }
    println!("{{quicklist of {} entries in {} nodes}}", list.len(), list.nodes().len());
    for (index, node) in list.nodes().enumerate() {
        let form = if node.is_plain() { "plain" } else { "listpack" };
        let compressed = match node {
            list::Node::Compressed(c) => format!(", {} bytes compressed", c.lzf().len()),
            _ => String::new(),
        };
        println!("{{node {index}, {form}, {} bytes{compressed}}}", node.bytes());
    }
    if args.get(3).is_some_and(|level| is_on(level)) {
        let mut index = 0;
        list.for_each(|item| {
            println!("{{index {index}, {}}}", shown(item));
            index += 1;
        });
    }
    ctx.reply.simple("Quicklist structure printed on stdout");
    DONE
}

pub fn digest(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let digest = digest_all(ctx.db);
    ctx.reply.simple(&digest.to_string());
    DONE
}

pub fn digest_value(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    ctx.reply.array(args.len() - 2);
    for key in &args[2..] {
        let mut digest = Digest::default();
        if let Some(entry) = ctx.db.peek(key) {
            digest.add_value(entry.value(), entry.expire().is_some());
        }
        ctx.reply.simple(&digest.to_string());
    }
    DONE
}

/// Every database's keys and values; all shards are locked.
fn digest_all(db: &mut Db<'_, '_>) -> Digest {
    let mut digest = Digest::default();
    let selected = db.index();
    for index in 0..db.keyspace().databases() as u16 {
        if db.keyspace().is_empty(index) {
            continue;
        }
        db.select(index);
        digest.begin_database(u32::from(index));
        db.for_each(|entry| digest.add_key(entry.key(), entry.value(), entry.expire().is_some()));
    }
    db.select(selected);
    digest
}

pub fn populate(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = non_negative(args[2])?;
    let prefix = args.get(3).copied().unwrap_or(b"key");
    let size = args.get(4).map(|size| non_negative(size)).transpose()?.unwrap_or(0);
    let db = &mut *ctx.db;
    for i in 0..count {
        let key = [prefix, b":", i.to_string().as_bytes()].concat();
        if db.exists(&key) {
            continue;
        }
        let mut value = format!("value:{i}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        db.set_string(&key, &value, SetExpire::Clear);
        db.changed(&key, event::MADE);
    }
    // Redis does not tell replicas of them either.
    db.record_nothing();
    ctx.reply.ok();
    DONE
}
