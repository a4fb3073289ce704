//! SENTINEL, and what other commands are on a sentinel.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::acl::category;
use crate::base::glob;
use crate::command::spec::{Channels, Group, Mode, flags::*};
use crate::command::{Command, CommandError, Ctx, DONE, Result, int, is};
use crate::resp::Reply;
use crate::sentinel::Sentinel;
use crate::sentinel::admin::GLOBALS;
use crate::sentinel::report::Fields;
use crate::sentinel::state::Simulated;
use crate::server::commands::{config, node};
use crate::server::sentinel::Driver;

const HERE: &[Mode] = &[Mode::Sentinel];

/// What only a sentinel has, or has in another form than a node with data.
pub const COMMANDS: &[Command] = &[
    Command::container("sentinel", Group::Sentinel, SENTINEL)
        .doc("2.8.4", "", "Commands about the primaries that are watched.")
        .modes(HERE),
    Command::new("publish", 3, Group::PubSub, publish)
        .channels(Channels::First)
        .flags(PUBSUB | LOADING | STALE | FAST)
        .complexity("O(1)")
        .doc("2.0.0", "channel message", "Takes the hello of another sentinel.")
        .modes(HERE),
    Command::new("role", 1, Group::Server, role)
        .flags(NOSCRIPT | LOADING | STALE | FAST)
        .categories(category::ADMIN | category::DANGEROUS)
        .complexity("O(N) where N is the number of primaries")
        .doc("2.8.12", "", "Names the primaries that are watched.")
        .modes(HERE),
];

const fn sub(
    name: &'static str,
    arity: i32,
    run: fn(&mut Ctx<'_, '_, '_>, &[&[u8]]) -> Result,
    since: &'static str,
    syntax: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Group::Sentinel, run)
        .flags(ADMIN)
        .complexity("O(N) where N is the number of instances shown or changed")
        .doc(since, syntax, summary)
        .modes(HERE)
}

const SENTINEL: &[Command] = &[
    sub("ckquorum", 3, ckquorum, "2.8.4", "master-name", "Checks whether a failover could be agreed on."),
    sub(
        "config",
        -4,
        config_command,
        "6.2.0",
        "action=<set=SET:(parameter value) ... | get=GET:parameter ...>",
        "Sets or shows what counts for all primaries.",
    ),
    sub("debug", -2, debug, "7.0.0", "[data=(parameter value) ...]", "Sets or shows periods, milliseconds."),
    sub("failover", 3, failover, "2.8.4", "master-name", "Fails over without asking the others."),
    sub("flushconfig", 2, flushconfig, "2.8.4", "", "Writes the configuration file anew."),
    sub(
        "get-master-addr-by-name",
        3,
        get_master_addr_by_name,
        "2.8.4",
        "master-name",
        "Tells where a primary is.",
    ),
    Command::new("help", 2, Group::Sentinel, sentinel_help)
        .flags(LOADING | STALE)
        .complexity("O(1)")
        .doc("6.2.0", "", "Lists the subcommands.")
        .modes(HERE),
    sub(
        "info-cache",
        -3,
        info_cache,
        "3.2.0",
        "nodename ...",
        "Shows the last INFO of a primary and its replicas.",
    ),
    sub(
        "is-master-down-by-addr",
        6,
        is_master_down_by_addr,
        "2.8.4",
        "ip port current-epoch runid",
        "Asks whether a primary is down, and for a vote.",
    ),
    sub("master", 3, master, "2.8.4", "master-name", "Describes a primary."),
    sub("masters", 2, masters, "2.8.4", "", "Describes all primaries."),
    sub("monitor", 6, monitor, "2.8.4", "name ip port quorum", "Watches another primary."),
    sub("myid", 2, myid, "6.2.0", "", "Returns the id of this sentinel."),
    sub("pending-scripts", 2, pending_scripts, "2.8.4", "", "Lists the scripts that run or wait."),
    sub("remove", 3, remove, "2.8.4", "master-name", "Stops watching a primary."),
    sub("replicas", 3, replicas, "5.0.0", "master-name", "Describes the replicas of a primary."),
    sub("reset", 3, reset, "2.8.4", "pattern", "Asks anew for all that is known of primaries."),
    sub("sentinels", 3, sentinels, "2.8.4", "master-name", "Describes the other sentinels of a primary."),
    sub("set", -5, set, "2.8.4", "master-name data=(option value) ...", "Sets options of a primary."),
    sub(
        "simulate-failure",
        -3,
        simulate_failure,
        "3.2.0",
        "mode=<CRASH-AFTER-ELECTION | CRASH-AFTER-PROMOTION | HELP> ...",
        "Ends this sentinel at a bad moment.",
    ),
    sub("slaves", 3, replicas, "2.8.0", "master-name", "Describes the replicas of a primary.")
        .deprecated("5.0.0", "`SENTINEL REPLICAS`"),
];

/// The usages and their order are those of redis-sentinel.
const HELP: [(&str, &str); 21] = [
    (
        "CKQUORUM <master-name>",
        "Tells whether enough sentinels are up to agree on a failover and to authorize it.",
    ),
    ("CONFIG SET <param> <value>", "Sets what counts for all primaries."),
    ("CONFIG GET <param>", "Shows what counts for all primaries."),
    ("DEBUG [<param> <value> ...]", "Sets or shows the periods that this sentinel keeps, in milliseconds."),
    ("GET-MASTER-ADDR-BY-NAME <master-name>", "Tells the address of a primary."),
    ("FAILOVER <master-name>", "Fails over at once, without asking the other sentinels."),
    ("FLUSHCONFIG", "Writes the configuration file anew, with what is known now."),
    ("INFO-CACHE <master-name>", "Shows the last INFO of a primary and of its replicas."),
    (
        "IS-MASTER-DOWN-BY-ADDR <ip> <port> <current-epoch> <runid>",
        "Tells whether a primary is down as seen from here, and votes.",
    ),
    ("MASTER <master-name>", "Describes a primary."),
    ("MASTERS", "Describes all primaries."),
    ("MONITOR <name> <ip> <port> <quorum>", "Watches another primary."),
    ("MYID", "Tells the id of this sentinel."),
    ("PENDING-SCRIPTS", "Lists the scripts that run or wait for their turn."),
    ("REMOVE <master-name>", "Stops watching a primary."),
    ("REPLICAS <master-name>", "Describes the replicas of a primary."),
    ("RESET <pattern>", "Asks anew for all that is known of the primaries with such names."),
    ("SENTINELS <master-name>", "Describes the other sentinels of a primary."),
    ("SET <master-name> <option> <value> [<option> <value> ...]", "Sets options of a primary."),
    (
        "SIMULATE-FAILURE [CRASH-AFTER-ELECTION] [CRASH-AFTER-PROMOTION] [HELP]",
        "Ends this sentinel at a bad moment.",
    ),
    ("HELP", "Prints this help."),
];

fn driver<'c>(ctx: &Ctx<'c, '_, '_>) -> std::result::Result<&'c Arc<Driver>, CommandError> {
    node(ctx).peers.sentinel.get().ok_or(CommandError::text("LOADING this sentinel is starting"))
}

fn text(arg: &[u8]) -> std::result::Result<&str, CommandError> {
    std::str::from_utf8(arg).map_err(|_| CommandError::text("ERR an argument is not UTF-8 text"))
}

fn texts<'a>(args: &[&'a [u8]]) -> std::result::Result<Vec<&'a str>, CommandError> {
    args.iter().map(|arg| text(arg)).collect()
}

fn write_fields(reply: &mut Reply, fields: &Fields) {
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk_str(name);
        reply.bulk_str(value);
    }
}

fn write_all(reply: &mut Reply, all: &[Fields]) {
    reply.array(all.len());
    for fields in all {
        write_fields(reply, fields);
    }
}

fn master(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    let fields = driver(ctx)?.read(|s| s.primary_fields(name))?;
    write_fields(ctx.reply, &fields);
    DONE
}

fn masters(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let all = driver(ctx)?.read(Sentinel::all_primary_fields);
    write_all(ctx.reply, &all);
    DONE
}

fn replicas(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    let all = driver(ctx)?.read(|s| s.replica_fields(name))?;
    write_all(ctx.reply, &all);
    DONE
}

fn sentinels(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    let all = driver(ctx)?.read(|s| s.sentinel_fields(name))?;
    write_all(ctx.reply, &all);
    DONE
}

fn get_master_addr_by_name(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    match driver(ctx)?.read(|s| s.address_by_name(name)) {
        Some((host, port)) => {
            ctx.reply.array(2);
            ctx.reply.bulk_str(&host);
            ctx.reply.bulk_str(&port.to_string());
        }
        None => ctx.reply.null_array(),
    }
    DONE
}

fn myid(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let id = driver(ctx)?.read(|s| s.my_id().to_owned());
    ctx.reply.bulk_str(&id);
    DONE
}

fn ckquorum(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    let answer = driver(ctx)?.read(|s| s.check_quorum(name))?;
    ctx.reply.simple(&answer);
    DONE
}

fn failover(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    driver(ctx)?.command(|s| s.failover(name))?;
    ctx.reply.ok();
    DONE
}

fn flushconfig(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let driver = driver(ctx)?;
    driver.command(Sentinel::flush_config);
    if let Some(why) = driver.disk_failure() {
        return Err(CommandError::owned(format!("ERR Failed to save config file: {why}")));
    }
    ctx.reply.ok();
    DONE
}

fn monitor(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let [name, host, port, quorum] = texts(&args[2..])?[..] else { return Err(CommandError::Syntax) };
    let driver = driver(ctx)?;
    driver.resolve(host);
    driver.command(|s| s.monitor(name, host, port, quorum))?;
    ctx.reply.ok();
    DONE
}

fn remove(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let name = text(args[2])?;
    driver(ctx)?.command(|s| s.remove(name))?;
    ctx.reply.ok();
    DONE
}

fn reset(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let count = driver(ctx)?.command(|s| s.reset(args[2]));
    ctx.reply.int(count as i64);
    DONE
}

fn set(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let words = texts(&args[2..])?;
    let (name, options) = words.split_first().ok_or(CommandError::Syntax)?;
    let driver = driver(ctx)?;
    if !driver.read(|s| s.settings.deny_scripts_reconfig) {
        for pair in options.windows(2) {
            check_script(pair[0], pair[1]).map_err(|text| CommandError::owned(format!("ERR {text}")))?;
        }
    }
    driver.command(|s| s.set(name, options))?;
    ctx.reply.ok();
    DONE
}

/// A script must be there when it is named, so that a mistake shows before it is needed.
pub fn check_script(option: &str, path: &str) -> std::result::Result<(), String> {
    let what = match option.to_ascii_lowercase().as_str() {
        "notification-script" => "Notification",
        "client-reconfig-script" => "Client reconfiguration",
        _ => return Ok(()),
    };
    let runs = |m: std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
    if path.is_empty() || std::fs::metadata(path).is_ok_and(runs) {
        return Ok(());
    }
    Err(format!("{what} script seems non existing or non executable"))
}

fn config_command(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let words = texts(&args[2..])?;
    match words[0].to_ascii_lowercase().as_str() {
        "get" => config_get(ctx, &words[1..]),
        "set" if words.len() % 2 == 1 => config_set(ctx, &words[1..]),
        _ => Err(CommandError::text(
            "ERR Only SENTINEL CONFIG GET <param> [<param> <param> ...] / SET <param> <value> [<param> <value> ...] are supported.",
        )),
    }
}

fn config_get(ctx: &mut Ctx<'_, '_, '_>, patterns: &[&str]) -> Result {
    let wanted = |name: &str| patterns.iter().any(|p| glob::matches_nocase(p.as_bytes(), name.as_bytes()));
    let driver = driver(ctx)?;
    let mut found: Vec<(&str, String)> = driver
        .read(|s| GLOBALS.iter().filter(|name| wanted(name)).map(|name| (*name, s.global(name))).collect());
    if wanted("loglevel") {
        found.push(("loglevel", config::shown(node(ctx), "loglevel")));
    }
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk_str(name);
        ctx.reply.bulk_str(&value);
    }
    DONE
}

fn config_set(ctx: &mut Ctx<'_, '_, '_>, pairs: &[&str]) -> Result {
    let (node, driver) = (node(ctx), driver(ctx)?);
    // All of them, or none: tried on a copy first.
    let mut copy = driver.read(Clone::clone);
    let (pairs, _) = pairs.as_chunks::<2>();
    let mut loglevel = None;
    for [name, value] in pairs {
        if name.eq_ignore_ascii_case("loglevel") {
            loglevel = Some(*value);
        } else {
            copy.set_global(&name.to_ascii_lowercase(), value)?;
        }
    }
    if let Some(value) = loglevel {
        let set = config::set_one(node, "loglevel", value);
        set.map_err(|_| {
            CommandError::owned(format!("ERR Invalid value '{value}' to SENTINEL CONFIG SET 'loglevel'"))
        })?;
        driver.write_directive("loglevel", value.to_ascii_lowercase());
    }
    driver.command(|s| {
        for [name, value] in pairs.iter().filter(|[name, _]| !name.eq_ignore_ascii_case("loglevel")) {
            s.set_global(&name.to_ascii_lowercase(), value)?;
        }
        s.flush_config();
        Ok::<(), String>(())
    })?;
    ctx.reply.ok();
    DONE
}

fn debug(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let driver = driver(ctx)?;
    if args.len() == 2 {
        let mut timing = driver.read(|s| s.timing);
        let named = timing.named();
        ctx.reply.map(named.len());
        for (name, value) in named {
            ctx.reply.bulk_str(name);
            ctx.reply.bulk_str(&value.to_string());
        }
        return DONE;
    }
    let words = texts(&args[2..])?;
    let (pairs, rest) = words.as_chunks::<2>();
    driver.command(|s| pairs.iter().try_for_each(|[name, value]| s.set_timing(name, value)))?;
    if let [name] = rest {
        return Err(CommandError::owned(format!(
            "ERR Unknown option or number of arguments for SENTINEL DEBUG '{name}'"
        )));
    }
    ctx.reply.ok();
    DONE
}

fn info_cache(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let names = texts(&args[2..])?;
    let found = driver(ctx)?.read(|s| s.info_cache(&names));
    ctx.reply.array(found.len() * 2);
    for (name, infos) in found {
        ctx.reply.bulk_str(&name);
        ctx.reply.array(infos.len());
        for (age, info) in infos {
            ctx.reply.array(2);
            ctx.reply.int(age as i64);
            match info {
                Some(info) => ctx.reply.bulk(&info),
                None => ctx.reply.null(),
            }
        }
    }
    DONE
}

/// The vote is on disk before it is told: `command` returns when it is.
fn is_master_down_by_addr(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let ip = text(args[2])?;
    let (port, epoch) = (int(args[3])?, int(args[4])?);
    let candidate = Some(text(args[5])?).filter(|word| *word != "*");
    let port = u16::try_from(port).unwrap_or(0);
    let driver = driver(ctx)?;
    let epoch = u64::try_from(epoch).unwrap_or(0);
    driver.command(|s| s.hear_question(ip, port, epoch, candidate));
    let answer = driver.read(|s| s.answer(ip, port, candidate.is_some()));
    ctx.reply.array(3);
    ctx.reply.int(i64::from(answer.down));
    ctx.reply.bulk_str(answer.leader.as_deref().unwrap_or("*"));
    ctx.reply.int(answer.leader_epoch as i64);
    DONE
}

fn pending_scripts(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let scripts = driver(ctx)?.read(Sentinel::script_fields);
    ctx.reply.array(scripts.len());
    for (argv, fields) in scripts {
        ctx.reply.map(fields.len() + 1);
        ctx.reply.bulk(b"argv");
        ctx.reply.array(argv.len());
        for word in argv {
            ctx.reply.bulk_str(&word);
        }
        for (name, value) in fields {
            ctx.reply.bulk_str(name);
            ctx.reply.bulk_str(&value);
        }
    }
    DONE
}

fn simulate_failure(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let mut failures = Simulated::default();
    for word in &args[2..] {
        if is(word, "crash-after-election") {
            failures.crash_after_election = true;
        } else if is(word, "crash-after-promotion") {
            failures.crash_after_promotion = true;
        } else if is(word, "help") {
            ctx.reply.array(2);
            ctx.reply.bulk(b"crash-after-election");
            ctx.reply.bulk(b"crash-after-promotion");
            return DONE;
        } else {
            return Err(CommandError::text("ERR Unknown failure simulation specified"));
        }
    }
    driver(ctx)?.command(|s| s.simulate(failures));
    ctx.reply.ok();
    DONE
}

fn sentinel_help(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.array(2 * HELP.len() + 1);
    ctx.reply.simple("SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for (usage, what) in HELP {
        ctx.reply.simple(usage);
        ctx.reply.simple(&format!("    {what}"));
    }
    DONE
}

/// Other sentinels say hello by PUBLISH, too.
fn publish(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    if args[1] != b"__sentinel__:hello" {
        return Err(CommandError::text("ERR Only HELLO messages are accepted by Sentinel instances."));
    }
    if let Ok(hello) = text(args[2]) {
        driver(ctx)?.command(|s| s.hear_hello(hello));
    }
    ctx.reply.int(1);
    DONE
}

fn role(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let names: Vec<String> = driver(ctx)?.read(|s| s.names().map(str::to_owned).collect());
    ctx.reply.array(2);
    ctx.reply.bulk(b"sentinel");
    ctx.reply.array(names.len());
    for name in names {
        ctx.reply.bulk_str(&name);
    }
    DONE
}
