//! CLIENT TRACKING and what belongs to it: clients that keep what they read are told when it changes.

use std::sync::atomic::Ordering;

use crate::command::client::{Caching, Tracks};
use crate::command::{CommandError, Ctx, DONE, Result, int, is, shown};
use crate::server::commands::node;
use crate::server::node::Node;

/// The options of CLIENT TRACKING ON.
#[derive(Default)]
struct Options {
    redirect: u64,
    broadcasts: bool,
    opt_in: bool,
    opt_out: bool,
    noloop: bool,
    prefixes: Vec<Vec<u8>>,
}

impl Options {
    fn parse(node: &Node, words: &[&[u8]]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = words;
        loop {
            rest = match *rest {
                [] => return Ok(options),
                [word, id, ref rest @ ..] if is(word, "redirect") => {
                    if options.redirect != 0 {
                        return Err(CommandError::text(
                            "ERR A client can only redirect to a single other client",
                        ));
                    }
                    options.redirect = u64::try_from(int(id)?).unwrap_or(0);
                    if node.people.clients.get(options.redirect).is_none() {
                        return Err(CommandError::text(
                            "ERR The client ID you want redirect to does not exist",
                        ));
                    }
                    rest
                }
                [word, prefix, ref rest @ ..] if is(word, "prefix") => {
                    options.prefixes.push(prefix.to_vec());
                    rest
                }
                [word, ref rest @ ..] => {
                    let option = [
                        ("bcast", &mut options.broadcasts),
                        ("optin", &mut options.opt_in),
                        ("optout", &mut options.opt_out),
                        ("noloop", &mut options.noloop),
                    ];
                    let option = option.into_iter().find(|(name, _)| is(word, name));
                    *option.ok_or(CommandError::Syntax)?.1 = true;
                    rest
                }
            };
        }
    }

    /// Refuses what does not go together, or not with how the client tracks already.
    fn check(&self, before: Option<&Tracks>) -> Result<()> {
        if !self.broadcasts && !self.prefixes.is_empty() {
            return Err(CommandError::text("ERR PREFIX option requires BCAST mode to be enabled"));
        }
        if before.is_some_and(|before| before.broadcasts != self.broadcasts) {
            return Err(CommandError::text(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
            ));
        }
        if self.broadcasts && (self.opt_in || self.opt_out) {
            return Err(CommandError::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
        }
        if self.opt_in && self.opt_out {
            return Err(CommandError::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
        }
        let switched = |before: &Tracks| match before.caching {
            Caching::All => false,
            Caching::OptIn => self.opt_out,
            Caching::OptOut => self.opt_in,
        };
        if before.is_some_and(switched) {
            return Err(CommandError::text(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
            ));
        }
        if !self.overlaps(before) {
            return Ok(());
        }
        for (at, new) in self.prefixes.iter().enumerate() {
            let overlaps = |other: &&Vec<u8>| other.starts_with(new) || new.starts_with(other);
            let existing = before.and_then(|before| before.prefixes.iter().find(overlaps));
            let provided = || self.prefixes[at + 1..].iter().find(overlaps);
            let met =
                existing.map(|old| ("an existing", old)).or_else(|| Some(("another provided", provided()?)));
            if let Some((which, other)) = met {
                let [new, other] = [new, other].map(|prefix| shown(prefix));
                return Err(CommandError::owned(format!(
                    "ERR Prefix '{new}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
                )));
            }
        }
        Ok(())
    }

    /// Whether a prefix begins as another does. In their order the two, or those in between, stand side by side: whoever
    /// gives very many is not compared with all of them.
    fn overlaps(&self, before: Option<&Tracks>) -> bool {
        let existing = before.iter().flat_map(|before| &before.prefixes);
        let mut all: Vec<&Vec<u8>> = self.prefixes.iter().chain(existing).collect();
        all.sort_unstable();
        all.windows(2).any(|pair| pair[1].starts_with(pair[0]))
    }

    fn caching(&self) -> Caching {
        match (self.opt_in, self.opt_out) {
            (true, _) => Caching::OptIn,
            (_, true) => Caching::OptOut,
            _ => Caching::All,
        }
    }
}

pub fn tracking(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let node = node(ctx);
    let options = Options::parse(node, &args[3..])?;
    if is(args[2], "on") {
        let before = ctx.client.tracks.as_deref();
        options.check(before)?;
        let mut prefixes = before.map(|before| before.prefixes.clone()).unwrap_or_default();
        let caching = options.caching();
        // Without a prefix every key is meant, also beside those that are there.
        let everything = (options.broadcasts && options.prefixes.is_empty()).then(Vec::new);
        prefixes.extend(options.prefixes.into_iter().chain(everything));
        prefixes.sort();
        prefixes.dedup();
        ctx.client.tracks = Some(Box::new(Tracks {
            redirect: options.redirect,
            broadcasts: options.broadcasts,
            caching,
            noloop: options.noloop,
            prefixes,
            ..Tracks::default()
        }));
        ctx.client.version += 1;
        node.settle_tracking(ctx.client);
    } else if is(args[2], "off") {
        node.stop_tracking(ctx.client);
    } else {
        return Err(CommandError::Syntax);
    }
    ctx.reply.ok();
    DONE
}

pub fn caching(ctx: &mut Ctx<'_, '_, '_>, args: &[&[u8]]) -> Result {
    let Some(tracks) = ctx.client.tracks.as_deref_mut() else {
        return Err(CommandError::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    let (caching, refusal) = match args[2] {
        word if is(word, "yes") => {
            (Caching::OptIn, "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
        }
        word if is(word, "no") => {
            (Caching::OptOut, "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
        }
        _ => return Err(CommandError::Syntax),
    };
    if tracks.caching != caching {
        return Err(CommandError::text(refusal));
    }
    tracks.said = true;
    ctx.reply.ok();
    DONE
}

pub fn getredir(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    ctx.reply.int(ctx.client.redirection());
    DONE
}

pub fn trackinginfo(ctx: &mut Ctx<'_, '_, '_>, _args: &[&[u8]]) -> Result {
    let mut flags = Vec::new();
    let mut prefixes: &[Vec<u8>] = &[];
    if let Some(tracks) = &ctx.client.tracks {
        flags.push("on");
        let said = |is: bool, word| is.then_some(word);
        flags.extend(said(tracks.broadcasts, "bcast"));
        match tracks.caching {
            Caching::All => {}
            Caching::OptIn => flags.extend(std::iter::once("optin").chain(said(tracks.said, "caching-yes"))),
            Caching::OptOut => flags.extend(std::iter::once("optout").chain(said(tracks.said, "caching-no"))),
        }
        flags.extend(said(tracks.noloop, "noloop"));
        flags.extend(said(tracks.broken.load(Ordering::Relaxed), "broken_redirect"));
        prefixes = &tracks.prefixes;
    } else {
        flags.push("off");
    }
    let reply = &mut *ctx.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk_str(flag));
    reply.bulk(b"redirect");
    reply.int(ctx.client.redirection());
    reply.bulk(b"prefixes");
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    DONE
}
