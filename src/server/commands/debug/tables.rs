//! DEBUG HTSTATS and HTSTATS-KEY: how full the tables are, in the form that Redis gives. A chain is what has to be
//! looked through for one key: a bucket, which holds several entries, and those chained to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::command::{CommandError, Ctx, DONE, Result, int, is};
use crate::value::ValueRef;

/// How many chains have which length.
#[derive(Default)]
struct Chains(BTreeMap<usize, usize>);

impl Chains {
    fn add(&mut self, length: usize) {
        *self.0.entry(length).or_default() += 1;
    }

    /// Appends the description; `full`: with the distribution of lengths.
    fn describe(&self, full: bool, out: &mut String) {
        let size: usize = self.0.values().sum();
        let elements: usize = self.0.iter().map(|(length, count)| length * count).sum();
        out.push_str("Hash table 0 stats (main hash table):\n");
        if elements == 0 {
            out.push_str("No stats available for empty dictionaries\n");
            return;
        }
        // A String takes everything.
        let _ = write!(out, " table size: {size}\n number of elements: {elements}\n");
        if !full {
            return;
        }
        let used = size - self.0.get(&0).copied().unwrap_or(0);
        let longest = self.0.keys().next_back().copied().unwrap_or(0);
        let average = elements as f64 / used as f64;
        let _ = write!(
            out,
            " different slots: {used}\n max chain length: {longest}\n avg chain length (counted): {average:.2}\n avg chain length (computed): {average:.2}\n Chain length distribution:\n"
        );
        for (length, count) in &self.0 {
            let _ = writeln!(out, "   {length}: {count} ({:.2}%)", *count as f64 * 100.0 / size as f64);
        }
    }
}

/// The word FULL behind the subject. Other words mean nothing there, and are no mistake.
fn wants_all(args: &[&[u8]]) -> bool {
    args.get(3).is_some_and(|word| is(word, "full"))
}

/// A database is one table a slot; they are described together.
pub fn of_database(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let index = int(args[2])?;
    let databases = ctx.db.keyspace().databases();
    let Some(index) = u16::try_from(index).ok().filter(|db| usize::from(*db) < databases) else {
        return Err(CommandError::text("ERR Out of range database"));
    };
    let full = wants_all(args);
    let mut chains = Chains::default();
    ctx.db.for_each_chain(index, &mut |length| chains.add(length));
    let mut text = "[Dictionary HT]\n".to_owned();
    chains.describe(full, &mut text);
    // Expiries stand in an index by time, which has a place for each and no others.
    let mut expiries = Chains::default();
    (0..ctx.db.keyspace().volatile_len(index)).for_each(|_| expiries.add(1));
    text.push_str("[Expires HT]\n");
    expiries.describe(full, &mut text);
    ctx.reply.verbatim("txt", &text);
    DONE
}

/// The table of a large set, hash or sorted set.
pub fn of_key(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let full = wants_all(args);
    let entry = ctx.db.peek(args[2]).ok_or(CommandError::NoSuchKey)?;
    let mut chains = Chains::default();
    let mut add = |length| chains.add(length);
    let is_table = match entry.value() {
        ValueRef::Set(set) => set.for_each_chain(&mut add),
        ValueRef::Hash(hash) => hash.for_each_chain(&mut add),
        ValueRef::SortedSet(set) => set.for_each_chain(&mut add),
        ValueRef::String(_) | ValueRef::List(_) | ValueRef::Stream(_) => false,
    };
    if !is_table {
        return Err(CommandError::text(
            "ERR The value stored at the specified key is not represented using an hash table",
        ));
    }
    let mut text = String::new();
    chains.describe(full, &mut text);
    ctx.reply.verbatim("txt", &text);
    DONE
}
