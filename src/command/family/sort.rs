//! SORT and SORT_RO: the elements of a list, set or sorted set in order, by themselves or by other keys, shown
//! themselves or through other keys.
//!
//! Those other keys are not among the arguments. A pattern with a hash tag in front of its `*` reaches keys of that
//! slot only; any other reaches all slots, so that such a command takes all locks ([`reaches_other_slots`]), and
//! a cluster node refuses it.

use std::cmp::Ordering;

use crate::acl::category;
use crate::base::crc16::{key_slot, tagged_slot};
use crate::command::ctx::{Ctx, DONE};
use crate::command::spec::{Begin, Command, Find, Group::Generic, KeySpec, Keyword, flags::*, key, one};
use crate::command::{CommandError, Result, int, is};
use crate::keyspace::event;
use crate::value::{List, Value, ValueRef};

/// Options, with the words that belong to them.
const OPTIONS: &[(&str, usize)] = &[("by", 1), ("get", 1), ("limit", 2), ("store", 1)];

/// The keys that patterns reach, which nobody can tell from the arguments.
const PATTERNS: KeySpec = KeySpec {
    flags: key::RO | key::ACCESS,
    begin: Begin::Unknown,
    find: Find::Range { last: 0, step: 1, limit: 0 },
    notes: "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content \
            of the key we sort",
};

const TARGET: KeySpec = KeySpec {
    begin: Begin::UnknownKeyword(Keyword { word: "store", told_from: 2, from: 2, options: OPTIONS }),
    ..one(0, key::OW | key::UPDATE)
}
.notes("For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array");

pub(super) const COMMANDS: &[Command] = &[
    Command::new("sort", -2, Generic, sort)
        .complexity("O(N+M*log(M))")
        .flags(WRITE | DENYOOM | MOVABLE_KEYS | PATTERN_KEYS)
        .categories(category::SET | category::SORTED_SET | category::LIST | category::DANGEROUS)
        .keys(&[one(1, key::RO | key::ACCESS), PATTERNS, TARGET])
        .doc(
            "1.0.0",
            "key [BY by-pattern~pattern#1] [LIMIT (offset count)] [GET get-pattern~pattern#1 GET...] \
             [order=<ASC | DESC>] [sorting=ALPHA] [STORE destination#2]",
            "Sorts a list, a set or a sorted set, and stores the result if asked to.",
        ),
    Command::new("sort_ro", -2, Generic, sort_ro)
        .complexity("O(N+M*log(M))")
        .flags(READONLY | MOVABLE_KEYS | PATTERN_KEYS)
        .categories(category::SET | category::SORTED_SET | category::LIST | category::DANGEROUS)
        .keys(&[one(1, key::RO | key::ACCESS), PATTERNS])
        .doc(
            "7.0.0",
            "key [BY by-pattern~pattern#1] [LIMIT (offset count)] [GET get-pattern~pattern#1 GET...] \
             [order=<ASC | DESC>] [sorting=ALPHA]",
            "Sorts a list, a set or a sorted set.",
        ),
];

/// Whether a call may look at keys of other slots than that of the key it sorts.
pub fn reaches_other_slots(args: &[&[u8]]) -> bool {
    let Some(key) = args.get(1) else { return false };
    let mut at = 2;
    while at < args.len() {
        let word = args[at];
        if let Some(pattern) = args.get(at + 1)
            && (is(word, "by") || is(word, "get"))
            && leaves_slot(pattern, key)
        {
            return true;
        }
        at += 1 + OPTIONS.iter().find(|(option, _)| is(word, option)).map_or(0, |(_, words)| *words);
    }
    false
}

/// Whether a pattern forms keys outside of the slot of `key`. One without `*` forms none.
fn leaves_slot(pattern: &[u8], key: &[u8]) -> bool {
    let plain = pattern.iter().take_while(|b| !b"*?[\\".contains(b)).count();
    pattern.contains(&b'*') && tagged_slot(&pattern[..plain]) != Some(key_slot(key))
}

#[derive(Default)]
struct Options<'a> {
    descending: bool,
    alpha: bool,
    /// Offset and count as the client gave them.
    limit: Option<(i64, i64)>,
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    target: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(ctx: &mut Ctx<'_, '_, '_>, args: &[&'a [u8]], stores: bool) -> Result<Self> {
        let mut o = Self::default();
        let key = args[1];
        let mut rest = &args[2..];
        while let [word, behind @ ..] = rest {
            let mut words = 1;
            match word {
                w if is(w, "asc") || is(w, "desc") => {
                    o.descending = is(w, "desc");
                    words = 0;
                }
                w if is(w, "alpha") => {
                    o.alpha = true;
                    words = 0;
                }
                w if is(w, "limit") && behind.len() >= 2 => {
                    o.limit = Some((int(behind[0])?, int(behind[1])?));
                    words = 2;
                }
                _ if behind.is_empty() => return Err(CommandError::Syntax),
                w if is(w, "store") && stores => o.target = Some(behind[0]),
                w if is(w, "by") => {
                    if ctx.clustered && leaves_slot(behind[0], key) {
                        return Err(denied("BY"));
                    }
                    // A BY without `*` looks at no key.
                    if behind[0].contains(&b'*') && !ctx.reads_any_key(args) {
                        return Err(lacks_rights("BY"));
                    }
                    o.by = Some(behind[0]);
                }
                w if is(w, "get") => {
                    // What GET shows without a `*` is nothing; Redis refuses it all the same.
                    let own_slot = behind[0] == b"#"
                        || memchr::memchr(b'*', behind[0]).is_none() && key_slot(behind[0]) == key_slot(key)
                        || memchr::memchr(b'*', behind[0]).is_some() && !leaves_slot(behind[0], key);
                    if ctx.clustered && !own_slot {
                        return Err(denied("GET"));
                    }
                    if !ctx.reads_any_key(args) {
                        return Err(lacks_rights("GET"));
                    }
                    o.get.push(behind[0]);
                }
                _ => return Err(CommandError::Syntax),
            }
            rest = &behind[words..];
        }
        Ok(o)
    }

    /// A BY without `*` is the same for all: nothing is sorted.
    fn keeps_order(&self) -> bool {
        self.by.is_some_and(|by| !by.contains(&b'*'))
    }

    /// Which of `len` elements are wanted.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let (offset, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(offset).unwrap_or(0).min(len);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}

fn denied(option: &str) -> CommandError {
    CommandError::owned(format!(
        "ERR {option} option of SORT denied in cluster mode when keys formed by the pattern may be in different slots."
    ))
}

fn lacks_rights(option: &str) -> CommandError {
    CommandError::owned(format!("ERR {option} option of SORT denied due to insufficient ACL permissions."))
}

fn sort(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    sorted(ctx, args, true)
}

fn sort_ro(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    sorted(ctx, args, false)
}

fn sorted(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]], stores: bool) -> Result {
    let mut options = Options::parse(ctx, args, stores)?;
    let elements = elements(ctx, args[1], &mut options)?;
    ctx.db.announce_work(ctx.command.name, elements.len());
    let range = options.range(elements.len());
    let elements = if options.keeps_order() { elements } else { in_order(ctx, elements, &options)? };
    let chosen = &elements[range];
    match options.target {
        Some(target) => store(ctx, target, chosen, &options.get),
        None => {
            show(ctx, chosen, &options.get);
            DONE
        }
    }
}

/// The elements in the order in which the collection has them.
fn elements(ctx: &mut Ctx<'_, '_, '_>, key: &[u8], options: &mut Options<'_>) -> Result<Vec<Vec<u8>>> {
    let backwards = options.keeps_order() && options.descending;
    let mut elements: Vec<Vec<u8>> = match ctx.db.read(key) {
        None => Vec::new(),
        Some(ValueRef::List(list)) => {
            let mut elements = Vec::with_capacity(list.len());
            list.for_each(|item| elements.push(item.to_vec()));
            elements
        }
        Some(ValueRef::SortedSet(set)) => set.iter().map(|(member, _)| member.to_vec()).collect(),
        Some(ValueRef::Set(set)) => {
            // A set has no order that a replica would share, so what is stored of it is sorted anyway.
            if options.keeps_order() && options.target.is_some() {
                options.by = None;
                options.alpha = true;
            }
            return Ok(set.iter().map(|item| item.to_vec()).collect());
        }
        Some(_) => return Err(CommandError::WrongType),
    };
    if backwards {
        elements.reverse();
    }
    Ok(elements)
}

fn in_order(
    ctx: &mut Ctx<'_, '_, '_>,
    elements: Vec<Vec<u8>>,
    options: &Options<'_>,
) -> Result<Vec<Vec<u8>>> {
    let weights: Vec<Option<Vec<u8>>> = match options.by {
        None => Vec::new(),
        Some(by) => elements.iter().map(|element| reach(ctx, by, element)).collect(),
    };
    let weight = |i: usize| options.by.map_or(Some(&elements[i]), |_| weights[i].as_ref());
    let mut order: Vec<usize> = (0..elements.len()).collect();
    let directed = |o: Ordering| if options.descending { o.reverse() } else { o };
    if options.alpha {
        // What is stored must be the same on every replica, whatever its locale.
        let collation = options.target.is_none().then_some(&ctx.limits.collation);
        let compare = |a: &Vec<u8>, b: &Vec<u8>| collation.map_or_else(|| a.cmp(b), |c| c.compare(a, b));
        order.sort_by(|&a, &b| {
            directed(match (weight(a), weight(b)) {
                (Some(a), Some(b)) => compare(a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            })
        });
    } else {
        let number = |i: usize| weight(i).map_or(Some(0.0), |text| leading_number(text));
        let numbers: Option<Vec<f64>> = order.iter().map(|&i| number(i)).collect();
        let wrong = CommandError::text("ERR One or more scores can't be converted into double");
        let numbers = numbers.ok_or(wrong)?;
        // Equal numbers are told apart by their elements, so that the result is always the same.
        let compare = |a: usize, b: usize| {
            numbers[a]
                .partial_cmp(&numbers[b])
                .unwrap_or(Ordering::Equal)
                .then_with(|| elements[a].cmp(&elements[b]))
        };
        order.sort_by(|&a, &b| directed(compare(a, b)));
    }
    let mut elements = elements;
    Ok(order.into_iter().map(|i| std::mem::take(&mut elements[i])).collect())
}

/// A weight as C's `strtod` reads it: white space in front is allowed, nothing at all is 0, a zero byte ends it.
fn leading_number(text: &[u8]) -> Option<f64> {
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    match crate::command::trim_start(text) {
        [] if text.is_empty() => Some(0.0),
        number => crate::base::num::parse_f64(number),
    }
}

/// The value that a pattern reaches for an element: the key with the element in place of `*`, or behind `->` a
/// field of that hash.
fn reach(ctx: &mut Ctx<'_, '_, '_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = memchr::memchr(b'*', pattern)?;
    let behind = &pattern[star + 1..];
    let arrow = memchr::memmem::find(behind, b"->").filter(|at| at + 2 < behind.len());
    let (behind, field) = match arrow {
        Some(at) => (&behind[..at], Some(&behind[at + 2..])),
        None => (behind, None),
    };
    let key = [&pattern[..star], element, behind].concat();
    let now = ctx.db.field_clock();
    match (ctx.db.read(&key)?, field) {
        (ValueRef::Hash(hash), Some(field)) if hash.is_dead(field, now) => None,
        (ValueRef::Hash(hash), Some(field)) => hash.get(field).map(|value| value.to_vec()),
        (ValueRef::String(value), None) => Some(value.to_vec()),
        _ => None,
    }
}

fn show(ctx: &mut Ctx<'_, '_, '_>, elements: &[Vec<u8>], get: &[&[u8]]) {
    ctx.reply.array(elements.len() * get.len().max(1));
    for element in elements {
        if get.is_empty() {
            ctx.reply.bulk(element);
        }
        for pattern in get {
            match reach(ctx, pattern, element) {
                Some(value) => ctx.reply.bulk(&value),
                None => ctx.reply.null(),
            }
        }
    }
}

fn store(ctx: &mut Ctx<'_, '_, '_>, target: &[u8], elements: &[Vec<u8>], get: &[&[u8]]) -> Result {
    let mut list = List::new();
    for element in elements {
        if get.is_empty() {
            list.push_back(element, ctx.limits);
        }
        for pattern in get {
            let value = reach(ctx, pattern, element).unwrap_or_default();
            list.push_back(&value, ctx.limits);
        }
    }
    let len = list.len();
    ctx.store(target, (len > 0).then(|| Value::List(Box::new(list))), event::SORTSTORE);
    ctx.db.count_elements(len);
    ctx.reply.int(len as i64);
    DONE
}
