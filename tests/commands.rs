//! COMMAND and COMMAND DOCS tell of every command what Redis 7.4.1 tells (`facts/`), and each command is run by
//! some test. INFO has the fields that Redis has, in their order.

#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::client::Reply;
use common::server::Server;
use serde_json::{Map, Value, json};

/// Where a command differs from Redis 7.4.1 on purpose: its name, the part that differs, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// What was seen on Redis 7.4.1, by command.
fn facts(file: &str) -> BTreeMap<String, Map<String, Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/facts").join(file);
    let text = fs::read_to_string(path).expect("read the facts");
    let row = |line: &str| {
        let Value::Object(mut row) = serde_json::from_str(line).expect("a line of JSON") else {
            panic!("an object a line")
        };
        (take_text(&mut row, "name"), row)
    };
    text.lines().map(row).map(|(name, row)| (name, without_words(row))).collect()
}

/// Of what Redis recommends instead of a command only that it does.
fn without_words(mut row: Map<String, Value>) -> Map<String, Value> {
    if let Some(words) = row.get_mut("replaced_by") {
        *words = json!(true);
    }
    row
}

fn take_text(row: &mut Map<String, Value>, field: &str) -> String {
    match row.remove(field) {
        Some(Value::String(text)) => text,
        other => panic!("{field} is a text, not {other:?}"),
    }
}

fn number(reply: &Reply) -> Value {
    json!(reply.int())
}

/// Names in a set, sorted as the facts have them.
fn names(reply: &Reply) -> Value {
    let mut names: Vec<String> = reply.items().iter().map(Reply::text).collect();
    names.sort();
    json!(names)
}

fn object(reply: &Reply, mut value: impl FnMut(&str, &Reply) -> Option<Value>) -> Map<String, Value> {
    let Reply::Map(pairs) = reply else { panic!("a map, not {reply}") };
    pairs.iter().filter_map(|(name, v)| Some((name.text(), value(&name.text(), v)?))).collect()
}

/// The parts of COMMAND by their names in the facts.
fn told(command: &Reply, out: &mut BTreeMap<String, Map<String, Value>>) {
    let [name, arity, flags, first, last, step, categories, tips, keys, subcommands] = command.items() else {
        panic!("ten parts: {command}")
    };
    let tips: Vec<String> = tips.items().iter().map(Reply::text).collect();
    let subs: Vec<String> = subcommands.items().iter().map(|sub| sub.items()[0].text()).collect();
    let Value::Object(mut row) = json!({
        "arity": number(arity), "flags": names(flags), "first": number(first), "last": number(last),
        "step": number(step), "acl_categories": names(categories), "tips": tips, "subcommands": subs,
    }) else {
        unreachable!()
    };
    row.insert("key_specs".into(), keys.items().iter().map(key_spec).collect());
    out.insert(name.text(), row);
    subcommands.items().iter().for_each(|sub| told(sub, out));
}

fn key_spec(spec: &Reply) -> Value {
    let part =
        |_: &str, v: &Reply| Some(if matches!(v, Reply::Int(_)) { number(v) } else { json!(v.text()) });
    let mut has_notes = false;
    if let Reply::Map(pairs) = spec {
        has_notes = pairs.iter().any(|(name, _)| name.text() == "notes");
    }
    let mut row = object(spec, |name, value| match name {
        "notes" => None,
        "flags" => Some(names(value)),
        _ => Some(Value::Object(object(value, |name, value| match name {
            "spec" => Some(Value::Object(object(value, part))),
            _ => Some(json!(value.text())),
        }))),
    });
    if has_notes {
        row.insert("has_notes".into(), json!(true));
    }
    Value::Object(row)
}

/// The parts of COMMAND DOCS by their names in the facts: without texts that are our own.
fn documented(name: &str, docs: &Reply, out: &mut BTreeMap<String, Map<String, Value>>) {
    let row = object(docs, |field, value| match field {
        "summary" | "complexity" => None,
        "subcommands" => {
            let Reply::Map(subs) = value else { panic!("a map of subcommands") };
            for (sub, docs) in subs {
                documented(&sub.text(), docs, out);
            }
            None
        }
        "arguments" => Some(arguments(value)),
        "doc_flags" => Some(names(value)),
        // The words are our own.
        "replaced_by" => Some(json!(!value.text().is_empty())),
        "history" => Some(value.items().iter().map(|entry| json!(entry.items()[0].text())).collect()),
        _ => Some(json!(value.text())),
    });
    out.insert(name.to_owned(), row);
}

fn arguments(list: &Reply) -> Value {
    let one = |argument: &Reply| {
        let mut row = object(argument, |field, value| match field {
            "arguments" => Some(arguments(value)),
            "flags" => Some(names(value)),
            "key_spec_index" => Some(number(value)),
            _ => Some(json!(value.text())),
        });
        // The facts have it where it differs from the name.
        if row.get("display_text") == row.get("name") {
            row.remove("display_text");
        }
        Value::Object(row)
    };
    list.items().iter().map(one).collect()
}

/// What differs, a line each.
fn differences(
    ours: &BTreeMap<String, Map<String, Value>>,
    theirs: &BTreeMap<String, Map<String, Value>>,
) -> Vec<String> {
    let mut out = Vec::new();
    let excepted = |name: &str, part: &str| EXCEPTIONS.iter().any(|(n, p, _)| (*n, *p) == (name, part));
    let missing = theirs.keys().filter(|name| !ours.contains_key(*name) && !excepted(name, ""));
    out.extend(missing.map(|name| format!("{name} is missing")));
    for (name, row) in ours {
        let Some(fact) = theirs.get(name) else {
            if !excepted(name, "") {
                out.push(format!("{name} is not known to Redis"));
            }
            continue;
        };
        let parts: BTreeSet<&String> = row.keys().chain(fact.keys()).collect();
        for part in parts {
            let (our, their) = (row.get(part), fact.get(part));
            // Subcommands have rows of their own, and no order.
            if part != "subcommands" && our != their && !excepted(name, part) {
                let show = |value: Option<&Value>| value.map_or("nothing".into(), ToString::to_string);
                out.push(format!("{name} {part}:\n  ours   {}\n  theirs {}", show(our), show(their)));
            }
        }
    }
    out
}

/// Rows that no test names, each with the reason.
const NOT_EXERCISED: &[(&str, &str)] = &[];

/// Everything that tests say to a server: lines of sessions, templates of the differential run, and texts of
/// tests, in lower case and with single spaces.
fn said() -> String {
    let mut said = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list tests") {
            let path = entry.expect("an entry").path();
            let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if kind == "session" {
                let text = fs::read_to_string(&path).expect("read a session");
                said.extend(
                    text.lines().filter_map(|l| l.split_once("> ")).map(|(_, words)| format!("\n{words} ")),
                );
            } else if kind == "rs" && !path.ends_with("commands.rs") {
                let text = fs::read_to_string(&path).expect("read a test");
                said.extend(text.split('"').skip(1).step_by(2).map(|words| format!("\n{words} ")));
            }
        }
    }
    said.to_ascii_lowercase()
}

#[test]
fn every_row_is_exercised() {
    let said = said();
    let server = Server::subject();
    let listed = server.connect().run("COMMAND LIST");
    let names: Vec<String> = listed.items().iter().map(Reply::text).collect();
    let runs = |name: &str| {
        let words = name.replace('|', " ");
        // A container is exercised by its subcommands; words of one call may stand in texts of their own.
        let in_line =
            [format!("\n{words} "), format!("{{ {words} ")].iter().any(|w| said.contains(w.as_str()));
        in_line || said.contains(&format!("\n{}", words.replace(' ', " \n, \n")))
    };
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !runs(name))
        .filter(|name| !NOT_EXERCISED.iter().any(|(known, _)| known == name))
        .collect();
    assert!(names.len() > 200 && missing.is_empty(), "no test runs {missing:?}");
    for (name, _) in NOT_EXERCISED {
        assert!(!runs(name), "{name} is exercised");
    }
}

#[test]
fn command_tells_of_each_command_what_redis_tells() {
    let server = Server::subject();
    let mut client = server.connect();
    client.run("HELLO 3");
    let mut ours = BTreeMap::new();
    client.run("COMMAND").items().iter().for_each(|command| told(command, &mut ours));
    assert!(ours.len() > 200, "COMMAND lists {} commands", ours.len());
    let differ = differences(&ours, &facts("command-info-redis-7.4.1.jsonl"));
    assert!(differ.is_empty(), "{} differences:\n{}", differ.len(), differ.join("\n"));
}

#[test]
fn command_docs_tells_of_each_command_what_redis_tells() {
    let server = Server::subject();
    let mut client = server.connect();
    client.run("HELLO 3");
    let mut ours = BTreeMap::new();
    let Reply::Map(all) = client.run("COMMAND DOCS") else { panic!("a map of commands") };
    for (name, docs) in &all {
        documented(&name.text(), docs, &mut ours);
    }
    let differ = differences(&ours, &facts("command-args-redis-7.4.1.jsonl"));
    assert!(differ.is_empty(), "{} differences:\n{}", differ.len(), differ.join("\n"));
}

#[test]
fn info_has_the_fields_of_redis_in_their_order() {
    /// Fields that Redis always shows, whose subject is not there.
    const MISSING: &[(&str, &str)] =
        &[("mem_overhead_db_hashtable_rehashing", "slot tables grow bucket by bucket: none is copied")];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/facts/info-fields-redis-7.4.1.tsv");
    let facts = fs::read_to_string(path).expect("read the facts");
    let theirs: Vec<(&str, &str)> = facts
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|row| {
            row.last() == Some(&"all") && !matches!(row[0], "Commandstats" | "Errorstats" | "Keyspace")
        })
        .map(|row| (row[0], row[1]))
        .filter(|(section, field)| {
            *section != "Latencystats" && !MISSING.iter().any(|(missing, _)| missing == field)
        })
        .collect();
    assert!(theirs.len() > 150, "{} fields", theirs.len());
    let server = Server::subject();
    let text = server.connect().run("INFO everything").text();
    let mut section = "";
    let mut ours = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title;
        } else if let Some((field, _)) = line.split_once(':') {
            ours.push((section, field));
        }
    }
    for (section, _) in &theirs {
        let of = |fields: &[(&str, &str)]| -> Vec<String> {
            fields.iter().filter(|(s, _)| s == section).map(|(_, field)| (*field).to_owned()).collect()
        };
        let wanted = of(&theirs);
        let got: Vec<String> = of(&ours).into_iter().filter(|field| wanted.contains(field)).collect();
        assert_eq!(got, wanted, "fields of {section}");
    }
}
