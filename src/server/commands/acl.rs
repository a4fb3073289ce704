//! ACL: users and what they may do.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::acl::log::Entry;
use crate::acl::rule::merge_selectors;
use crate::acl::{Catalog, DEFAULT_USER, Selector, User, category, file};
use crate::base::hex::hex;
use crate::base::lossless;
use crate::command::help::help;
use crate::command::rights::Errand;
use crate::command::spec::{EVERYWHERE, Group::Server, KeyPositions, flags::*};
use crate::command::{
    Client, Command, CommandError, CommandTable, Ctx, DONE, Outcome, Result, int, is, shown, wrong_arguments,
};
use crate::resp::Reply;
use crate::server::commands::node;
use crate::server::disk::config_file;
use crate::server::net::mailbox::Mail;
use crate::server::node::logins::rules;
use crate::server::node::{Node, unix_ms};
use crate::server::process::os_error::words;
use crate::server::process::priority::go_behind;

pub const COMMANDS: &[Command] =
    &[Command::container("acl", Server, ACL).doc("6.0.0", "", "Commands about users.").modes(EVERYWHERE)];

const ANYBODY: Flags = NOSCRIPT | LOADING | STALE;
/// Rules that are so many take a millisecond.
const MANY_WORDS: usize = 1_000;
/// The same in bytes.
const MUCH_TEXT: usize = 16 * 1024;

const ADMINISTER: Flags = ADMIN | NOSCRIPT | LOADING | STALE;
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const ACL: &[Command] = &[
    Command::new("cat", -2, Server, cat)
        .flags(ANYBODY)
        .complexity("O(1), as there are so many categories and commands and no more")
        .doc("6.0.0", "[category]", "Lists the categories, or the commands of one."),
    Command::new("deluser", -3, Server, deluser)
        .flags(ADMINISTER)
        .tips(ALL_NODES)
        .secrets(all_arguments)
        .complexity("O(1) a user, and O(N) where N is the number of clients")
        .doc("6.0.0", "username ...", "Deletes users, and closes their connections."),
    Command::new("dryrun", -4, Server, dryrun).flags(ADMINISTER).complexity("O(1)").doc(
        "7.0.0",
        "username command [arg ...]",
        "Tells whether a user may run a command, without running it.",
    ),
    Command::new("genpass", -2, Server, genpass).flags(ANYBODY).complexity("O(1)").doc(
        "6.0.0",
        "[bits:integer]",
        "Makes a password that nobody can guess.",
    ),
    Command::new("getuser", 3, Server, getuser)
        .flags(ADMINISTER)
        .secrets(all_arguments)
        .complexity("O(N) where N is the number of passwords, rules and patterns of the user")
        .history(&[
            ("6.2.0", "The channels."),
            ("7.0.0", "The selectors; keys and channels in the form of rules."),
        ])
        .doc("6.0.0", "username", "Describes a user."),
    Command::new("help", 2, Server, acl_help).flags(LOADING | STALE).complexity("O(1)").doc(
        "6.0.0",
        "",
        "Lists the subcommands.",
    ),
    Command::new("list", 2, Server, list)
        .flags(ADMINISTER)
        .complexity("O(N) where N is the number of users")
        .doc("6.0.0", "", "Lists all users with their rules."),
    Command::new("load", 2, Server, load)
        .flags(ADMINISTER)
        .complexity("O(N) where N is the number of users")
        .doc("6.0.0", "", "Reads the file of users again."),
    Command::new("log", -2, Server, log)
        .flags(ADMINISTER)
        .complexity("O(N) where N is the number of entries returned")
        .history(&[("7.2.0", "Number and times of each entry.")])
        .doc("6.0.0", "[operation=<count:integer | RESET>]", "Lists what was refused lately, or forgets it."),
    Command::new("save", 2, Server, save)
        .flags(ADMINISTER)
        .tips(ALL_NODES)
        .complexity("O(N) where N is the number of users")
        .doc("6.0.0", "", "Writes the users to their file."),
    Command::new("setuser", -3, Server, setuser)
        .flags(ADMINISTER)
        .tips(ALL_NODES)
        .secrets(all_arguments)
        .complexity("O(N) where N is the number of rules")
        .history(&[
            ("6.2.0", "Patterns of channels."),
            ("7.0.0", "Selectors, and keys that may be read only or written only."),
        ])
        .doc("6.0.0", "username [rule ...]", "Makes a user, or changes one."),
    Command::new("users", 2, Server, users)
        .flags(ADMINISTER)
        .complexity("O(N) where N is the number of users")
        .doc("6.0.0", "", "Lists the names of all users."),
    Command::new("whoami", 2, Server, whoami).flags(ANYBODY).complexity("O(1)").doc(
        "6.0.0",
        "",
        "Returns the name of the connection's user.",
    ),
];

/// Names and rules of users are nobody else's business.
fn all_arguments(args: &[&[u8]]) -> KeyPositions {
    (2..args.len()).collect()
}

fn acl_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    help(ctx.reply, "acl", ACL);
    DONE
}

fn whoami(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.bulk_str(ctx.client.user_name());
    DONE
}

fn users(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let users = node(ctx).people.accounts.all();
    ctx.reply.array(users.len());
    users.iter().for_each(|user| ctx.reply.bulk_str(&user.name));
    DONE
}

fn list(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let users = node(ctx).people.accounts.all();
    ctx.reply.array(users.len());
    users.iter().for_each(|user| ctx.reply.bulk(&user.line()));
    DONE
}

fn getuser(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let user = node(ctx).people.accounts.get(args[2]);
    let reply = &mut *ctx.reply;
    let Some(user) = user else {
        reply.null();
        return DONE;
    };
    reply.map(6);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk_str(flag));
    reply.bulk(b"passwords");
    reply.array(user.passwords.iter().len());
    user.passwords.iter().for_each(|(hash, ())| reply.bulk_str(&hash.to_string()));
    describe_selector(&user.root, reply);
    reply.bulk(b"selectors");
    reply.array(user.selectors.len());
    for selector in &user.selectors {
        reply.map(3);
        describe_selector(selector, reply);
    }
    DONE
}

fn describe_selector(selector: &Selector, reply: &mut Reply) {
    reply.bulk(b"commands");
    reply.bulk_str(&selector.commands.text());
    reply.bulk(b"keys");
    reply.bulk(&selector.keys_text());
    reply.bulk(b"channels");
    reply.bulk(&selector.channels_text());
}

fn setuser(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    // One word may be a selector of many rules.
    let long = || args.iter().map(|word| word.len()).sum::<usize>() >= MUCH_TEXT;
    let large = || node.people.accounts.get(args[2]).is_some_and(|user| user.is_large());
    let takes_long = args.len() >= MANY_WORDS || long() || large();
    if takes_long && ctx.client.executing.is_none() && set_user_aside(node, ctx.client, args) {
        return Ok(Outcome::Suspended);
    }
    set_user(node, args)?;
    ctx.reply.ok();
    DONE
}

/// Lets another thread apply rules that are so many that others would wait for them. False when none can be had.
fn set_user_aside(node: &Arc<Node>, client: &Client, args: &[&[u8]]) -> bool {
    let (node, worker, token, id) = (Arc::clone(node), client.worker, client.token, client.id);
    let text = args.concat();
    let lengths: Vec<usize> = args.iter().map(|word| word.len()).collect();
    let body = move || {
        let mut rest = text.as_slice();
        let words: Vec<&[u8]> = lengths.iter().filter_map(|length| rest.split_off(..*length)).collect();
        let mut reply = Reply::new();
        go_behind();
        match set_user(&node, &words) {
            Ok(()) => reply.ok(),
            Err(fail) => reply.error(&fail.to_string()),
        }
        node.send(worker, Mail::Resume { token, client: id, reply, written_to: 0 });
    };
    thread::Builder::new().name("rules".into()).spawn(body).is_ok()
}

/// What ACL SETUSER does, of a whole command.
fn set_user(node: &Arc<Node>, args: &[&[u8]]) -> std::result::Result<(), CommandError> {
    let name = file::user_name(args[2])
        .ok_or(CommandError::text("ERR Usernames can't contain spaces or null characters"))?;
    let words = merge_selectors(&args[3..]).map_err(|begin| {
        let begin = shown(begin);
        CommandError::owned(format!("ERR Unmatched parenthesis in acl selector starting at '{begin}'."))
    })?;
    let accounts = &node.people.accounts;
    let rules = rules(node, &node.config.load());
    loop {
        let known = accounts.get(args[2]);
        let mut user = known.as_deref().map_or_else(|| rules.new_user(name), User::clone);
        for word in &words {
            rules.apply(&mut user, word).map_err(|error| {
                let word = shown(word);
                CommandError::owned(format!("ERR Error in ACL SETUSER modifier '{word}': {error}"))
            })?;
        }
        // Rules may be many, so nobody waits for them: a change that was faster is built upon.
        let _one_at_a_time = node.config_change.lock();
        if accounts.get(args[2]).as_ref().map(Arc::as_ptr) == known.as_ref().map(Arc::as_ptr) {
            let name = Arc::clone(&user.name);
            accounts.put(user);
            node.rights_changed(Some(name));
            return Ok(());
        }
    }
}

fn deluser(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let _one_at_a_time = node.config_change.lock();
    let mut deleted = 0;
    for name in &args[2..] {
        if *name == DEFAULT_USER.as_bytes() {
            return Err(CommandError::text("ERR The 'default' user cannot be removed"));
        }
        if node.people.accounts.remove(name, &node.shared.commands) {
            deleted += 1;
            node.rights_changed(Some(String::from_utf8_lossy(name).into()));
        }
    }
    node.close_links_of_deleted_users();
    // A client that has deleted its own user still hears of it.
    if ctx.client.user().is_some_and(|user| user.deleted) {
        ctx.client.close_after_reply = true;
    }
    ctx.reply.int(deleted);
    DONE
}

fn cat(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let names: Vec<&str> = match &args[2..] {
        [] => category::names(!0).collect(),
        [name] => {
            let unknown = || CommandError::owned(format!("ERR Unknown category '{}'", shown(name)));
            let bit = category::find(name).ok_or_else(unknown)?;
            let catalog: &dyn Catalog = ctx.commands;
            let ids = (0..catalog.count()).filter(|id| catalog.categories(*id) & bit != 0);
            ids.map(|id| catalog.name(id)).collect()
        }
        _ => return Err(wrong_arguments("ACL", args[1])),
    };
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk_str(name));
    DONE
}

/// The place of a whole command in the table.
fn find_command(table: &CommandTable, args: &[&[u8]]) -> Option<usize> {
    let id = table.find(args[0])?;
    match args.get(1) {
        Some(word) if !table.get(id).subcommands.is_empty() => table.find_sub(id, word),
        _ => Some(id),
    }
}

fn dryrun(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let missing =
        |what: &str, name: &[u8]| CommandError::owned(format!("ERR {what} '{}' not found", shown(name)));
    let user = node(ctx).people.accounts.get(args[2]).ok_or_else(|| missing("User", args[2]))?;
    let words = &args[3..];
    let id = find_command(ctx.commands, words).ok_or_else(|| missing("Command", words[0]))?;
    let entry = ctx.commands.get(id);
    if !entry.command.accepts(words.len()) {
        return Err(CommandError::Arity(entry.original.clone()));
    }
    let errand = Errand { id, entry, args: words };
    match user.check(&errand) {
        Ok(()) => ctx.reply.ok(),
        Err(denial) => ctx.reply.bulk(&lossless::bytes(&errand.reason(denial, &user.name, true))),
    }
    DONE
}

/// Random bits in hexadecimal digits.
fn genpass(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let bits = match &args[2..] {
        [] => 256,
        [bits] => int(bits)?,
        _ => return Err(wrong_arguments("ACL", args[1])),
    };
    if !(1..=4096).contains(&bits) {
        return Err(CommandError::text(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let random = random_bytes(digits.div_ceil(2))
        .map_err(|e| CommandError::owned(format!("ERR No random numbers can be had: {}", words(&e))))?;
    let mut text = hex(&random);
    text.truncate(digits);
    ctx.reply.bulk_str(&text);
    DONE
}

/// Of the system: the server's own generator can be guessed.
fn random_bytes(count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

const NO_FILE: CommandError = CommandError::text(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.",
);

/// All users of the file, or none of them.
fn load(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let config = node.config.load();
    if config.aclfile.is_empty() {
        return Err(NO_FILE);
    }
    let _one_at_a_time = node.config_change.lock();
    let read = read_users(node, &config.aclfile);
    let users = read.map_err(|error| CommandError::owned(format!("ERR {error}")))?;
    node.people.accounts.replace(users, &node.shared.commands);
    node.rights_changed(None);
    node.close_links_of_deleted_users();
    if ctx.client.user().is_some_and(|user| user.deleted) {
        ctx.client.close_after_reply = true;
    }
    ctx.reply.ok();
    DONE
}

fn read_users(node: &Node, path: &str) -> std::result::Result<Vec<User>, String> {
    let text = fs::read(path)
        .map_err(|error| format!("Error loading ACLs, opening file '{path}': {}", words(&error)))?;
    file::read(&text, path, &rules(node, &node.config.load()))
}

fn save(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let config = node.config.load();
    if config.aclfile.is_empty() {
        return Err(NO_FILE);
    }
    let _one_at_a_time = node.config_change.lock();
    let users = node.people.accounts.all();
    let text = file::write(users.iter().map(AsRef::as_ref));
    config_file::replace(Path::new(&config.aclfile), &text).map_err(|error| {
        tracing::warn!("Writing ACL file '{}': {}", config.aclfile, words(&error));
        CommandError::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        )
    })?;
    ctx.reply.ok();
    DONE
}

fn log(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let count = match &args[2..] {
        [] => 10,
        [word] if is(word, "reset") => {
            node.people.denials.truncate(0);
            ctx.reply.ok();
            return DONE;
        }
        [count] => usize::try_from(int(count)?).unwrap_or(0),
        _ => return Err(wrong_arguments("ACL", args[1])),
    };
    let entries = node.people.denials.newest(count);
    ctx.reply.array(entries.len());
    let now = unix_ms();
    for entry in &entries {
        log_entry(entry, (now - entry.updated) as f64 / 1000.0, ctx.reply);
    }
    DONE
}

fn log_entry(entry: &Entry, age_seconds: f64, reply: &mut Reply) {
    let refusal = &entry.refusal;
    reply.map(10);
    reply.bulk(b"count");
    reply.int(entry.count as i64);
    reply.bulk(b"reason");
    reply.bulk_str(refusal.reason.name());
    reply.bulk(b"context");
    reply.bulk_str(refusal.context.name());
    reply.bulk(b"object");
    reply.bulk(&refusal.object);
    reply.bulk(b"username");
    reply.bulk(&refusal.user);
    reply.bulk(b"age-seconds");
    reply.double(age_seconds);
    reply.bulk(b"client-info");
    reply.bulk_str(&entry.client);
    reply.bulk(b"entry-id");
    reply.int(entry.id as i64);
    reply.bulk(b"timestamp-created");
    reply.int(entry.created);
    reply.bulk(b"timestamp-last-updated");
    reply.int(entry.updated);
}
