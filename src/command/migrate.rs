//! MIGRATE: keys to another node.

use std::time::Duration;

use super::ctx::Ctx;
use super::request::{Migrate, Request};
use super::spec::{Begin, Command, Group::Generic, KeySpec, Keyword, behind, flags::*, key, one};
use super::{Fail, Result, int, is};

const MOVED: u16 = key::RW | key::ACCESS | key::DELETE;

const KEYS: Keyword = Keyword { word: "keys", told_from: -2, from: 6, options: &[("auth", 1), ("auth2", 2)] };

pub const COMMANDS: &[Command] = &[Command::new("migrate", -6, Generic, migrate)
    .flags(WRITE | MOVABLE_KEYS | ANYWHERE)
    .keys(&[
        KeySpec { begin: Begin::IndexUnless(3, KEYS), ..one(3, MOVED) },
        behind(KEYS, 0, MOVED | key::INCOMPLETE),
    ])
    .categories(&["@dangerous"])
    .tips(&["nondeterministic_output"])
    .complexity("O(N) where N is the size of the values")
    .doc(
        "2.6.0",
        "host port <key | \"\"> destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] [KEYS key [key ...]]",
        "Moves keys to another node; each is at one of the two at any moment.",
    )];

fn migrate(_ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let (mut copy, mut replace, mut auth) = (false, false, None);
    let mut keys = vec![args[3].to_vec()];
    let mut i = 6;
    while i < args.len() {
        let left = args.len() - i - 1;
        if is(args[i], "copy") {
            copy = true;
        } else if is(args[i], "replace") {
            replace = true;
        } else if is(args[i], "auth") {
            if left < 1 {
                return Err(Fail::Syntax);
            }
            auth = Some((None, args[i + 1].to_vec()));
            i += 1;
        } else if is(args[i], "auth2") {
            if left < 2 {
                return Err(Fail::Syntax);
            }
            auth = Some((Some(args[i + 1].to_vec()), args[i + 2].to_vec()));
            i += 2;
        } else if is(args[i], "keys") {
            if !args[3].is_empty() {
                return Err(Fail::text(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            }
            keys = args[i + 1..].iter().map(|k| k.to_vec()).collect();
            break;
        } else {
            return Err(Fail::Syntax);
        }
        i += 1;
    }
    let (db, timeout) = (int(args[4])?, int(args[5])?);
    let timeout = Duration::from_millis(if timeout <= 0 { 1000 } else { timeout as u64 });
    Ctx::node(Request::Migrate(Migrate {
        host: String::from_utf8_lossy(args[1]).into_owned(),
        // Nobody listens on port 0, so that what is no port is refused by the network like a wrong one.
        port: int(args[2]).ok().and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        db,
        timeout,
        copy,
        replace,
        auth,
        keys,
    }))
}
