//! What commands change. Errors are the texts of the replies, without the sign.

use super::action::Level;
use super::instance::{Address, InstanceId};
use super::settings::{OptionFault, yes_no};
use super::state::{Sentinel, Simulated};
use crate::base::glob;
use crate::base::num::parse_i64;
use crate::base::time::MonoMs;

const NO_SUCH_PRIMARY: &str = "ERR No such master with that name";

/// Settings that SENTINEL CONFIG shows and sets, in its order.
pub const GLOBALS: [&str; 6] = [
    "resolve-hostnames",
    "announce-hostnames",
    "announce-ip",
    "announce-port",
    "sentinel-user",
    "sentinel-pass",
];

impl Sentinel {
    pub(super) fn named(&self, name: &str) -> Result<InstanceId, String> {
        self.primaries.get(name).copied().ok_or_else(|| NO_SUCH_PRIMARY.to_owned())
    }

    /// SENTINEL MONITOR. A name of a host must have been [`resolved`](Self::resolved) before.
    pub fn monitor(&mut self, name: &str, host: &str, port: &str, quorum: &str) -> Result<(), String> {
        let quorum = parse_i64(quorum.as_bytes()).ok_or("ERR Invalid quorum")?;
        let port = parse_i64(port.as_bytes()).ok_or("ERR Invalid port")?;
        if quorum <= 0 {
            return Err("ERR Quorum must be 1 or greater.".into());
        }
        if !self.accepts_host(host) || self.ip_of(host).is_none() {
            return Err("ERR Invalid IP address or hostname specified".into());
        }
        let port = u16::try_from(port).map_err(|_| "ERR Invalid port number.")?;
        if self.primaries.contains_key(name) {
            return Err("ERR Duplicate master name.".into());
        }
        let quorum = u32::try_from(quorum).unwrap_or(u32::MAX);
        let id = self.add_primary(name, Address::new(host, port), quorum);
        // It may have been watched before: the votes cast then bind.
        self.watch_mut(id).leader_epoch = self.current_epoch;
        self.event_with(Level::Warning, "+monitor", id, &format!("quorum {quorum}"));
        self.remember();
        Ok(())
    }

    /// Tells whom this sentinel watches, when it starts.
    pub fn begin(&mut self) {
        for id in self.primary_ids() {
            let quorum = self.watch(id).quorum;
            self.event_with(Level::Warning, "+monitor", id, &format!("quorum {quorum}"));
        }
    }

    /// SENTINEL REMOVE.
    pub fn remove(&mut self, name: &str) -> Result<(), String> {
        let id = self.named(name)?;
        self.event(Level::Warning, "-monitor", id);
        self.forget(id);
        self.remember();
        Ok(())
    }

    /// SENTINEL RESET: how many primaries match. What is known of them is asked for again, and what is not confirmed
    /// then goes; until then it counts, so that a failover finds its replicas and its voters.
    pub fn reset(&mut self, pattern: &[u8]) -> usize {
        let matching: Vec<InstanceId> = self
            .primaries
            .iter()
            .filter(|(name, _)| glob::matches(pattern, name.as_bytes()))
            .map(|(_, id)| *id)
            .collect();
        for primary in &matching {
            // What a failover has changed already stays changed.
            if self.watch(*primary).failover.is_promoted() {
                self.finish_failover(*primary);
            }
            let now = self.now;
            for id in self.group(*primary).into_iter().skip(1) {
                self.at_mut(id).unconfirmed = Some(now);
            }
            let was = self.watch(*primary).failover.promoted;
            self.restart_watch(*primary);
            if was.is_some() {
                self.log(Level::Warning, "a failover was under way: it ends here");
            }
            let link = self.at(*primary).link;
            self.close_both(link);
            self.event(Level::Warning, "+reset-master", *primary);
            self.remember();
        }
        matching.len()
    }

    /// SENTINEL FAILOVER.
    pub fn failover(&mut self, name: &str) -> Result<(), String> {
        let id = self.named(name)?;
        if self.watch(id).failover.in_progress() {
            return Err("INPROG Failover already in progress".into());
        }
        if self.select_replica(id).is_none() {
            return Err("NOGOODSLAVE No suitable replica to promote".into());
        }
        self.log(Level::Warning, format!("Executing user requested FAILOVER of '{name}'"));
        self.start_failover(id);
        self.watch_mut(id).failover.forced = true;
        self.go_on_with_failover(id);
        Ok(())
    }

    /// SENTINEL SET with its options and values. All of them, or none.
    pub fn set(&mut self, name: &str, words: &[&str]) -> Result<(), String> {
        let id = self.named(name)?;
        let before = self.at(id).watch.clone();
        let mut told = Vec::new();
        let mut rest = words;
        while let Some((option, after)) = rest.split_first() {
            let lower = option.to_ascii_lowercase();
            let count = if lower == "rename-command" { 2 } else { 1 };
            let outcome = match after.get(..count) {
                Some(values) => self.set_one(id, &lower, values, &mut told),
                None => Err(OptionFault::Unknown),
            };
            if let Err(fault) = outcome {
                self.at_mut(id).watch = before;
                return Err(match fault {
                    OptionFault::Unknown => {
                        format!("ERR Unknown option or number of arguments for SENTINEL SET '{option}'")
                    }
                    OptionFault::Invalid(value) if lower.ends_with("-script") => value,
                    OptionFault::Invalid(value) => {
                        format!("ERR Invalid argument '{value}' for SENTINEL SET '{option}'")
                    }
                });
            }
            rest = &after[count..];
        }
        for text in told {
            self.event_with(Level::Warning, "+set", id, &text);
        }
        self.remember();
        Ok(())
    }

    fn set_one(
        &mut self,
        id: InstanceId,
        option: &str,
        values: &[&str],
        told: &mut Vec<String>,
    ) -> Result<(), OptionFault> {
        let is_script = matches!(option, "notification-script" | "client-reconfig-script");
        if is_script && self.settings.deny_scripts_reconfig {
            return Err(OptionFault::Invalid(
                "ERR Reconfiguration of scripts path is denied for security reasons. Check the \
                 deny-scripts-reconfig configuration directive in your Sentinel configuration"
                    .into(),
            ));
        }
        self.set_option(id, option, values)?;
        if matches!(option, "auth-pass" | "auth-user") {
            // The new credentials count from now on, not from the next break of a link.
            for member in std::iter::once(id).chain(self.replicas(id)) {
                let link = self.at(member).link;
                self.close_both(link);
            }
        }
        let shown = if option == "auth-pass" { "******".to_owned() } else { values.join(" ") };
        told.push(format!("{option} {shown}"));
        Ok(())
    }

    /// SENTINEL CKQUORUM. Whoever is not found down counts, also one that was just heard of and is being connected
    /// to, as in Redis.
    pub fn check_quorum(&self, name: &str) -> Result<String, String> {
        let id = self.named(name)?;
        let watch = self.watch(id);
        let voters = watch.sentinels.len() + 1;
        let usable = 1 + self.peers(id).iter().filter(|peer| self.at(**peer).sdown.is_none()).count();
        let mut problems = String::new();
        if usable < watch.quorum as usize {
            problems
                .push_str(". Not enough available Sentinels to reach the specified quorum for this master");
        }
        if usable < voters / 2 + 1 {
            problems
                .push_str(". Not enough available Sentinels to reach the majority and authorize a failover");
        }
        if problems.is_empty() {
            Ok(format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached"))
        } else {
            Err(format!("NOQUORUM {usable} usable Sentinels{problems}"))
        }
    }

    /// SENTINEL CONFIG SET of one of [`GLOBALS`].
    pub fn set_global(&mut self, name: &str, value: &str) -> Result<(), String> {
        let invalid = || format!("ERR Invalid value '{value}' to SENTINEL CONFIG SET '{name}'");
        let flag = || yes_no(value).ok_or_else(invalid);
        let settings = &mut self.settings;
        match name {
            "resolve-hostnames" => settings.resolve_hostnames = flag()?,
            "announce-hostnames" => settings.announce_hostnames = flag()?,
            "announce-ip" => value.clone_into(&mut settings.announce_ip),
            "announce-port" => settings.announce_port = value.parse().map_err(|_| invalid())?,
            "sentinel-user" => value.clone_into(&mut settings.sentinel_user),
            "sentinel-pass" => value.clone_into(&mut settings.sentinel_pass),
            _ => return Err(format!("ERR Invalid argument '{name}' to SENTINEL CONFIG SET")),
        }
        if matches!(name, "sentinel-user" | "sentinel-pass") {
            let peers = self.instances.values().filter(|i| i.kind == super::instance::Kind::Sentinel);
            let links: Vec<_> = peers.map(|i| i.link).collect();
            for link in links {
                self.close_both(link);
            }
        }
        self.remember();
        Ok(())
    }

    /// SENTINEL CONFIG GET of one of [`GLOBALS`].
    pub fn global(&self, name: &str) -> String {
        let word = |on: bool| if on { "yes" } else { "no" }.to_owned();
        let settings = &self.settings;
        match name {
            "resolve-hostnames" => word(settings.resolve_hostnames),
            "announce-hostnames" => word(settings.announce_hostnames),
            "announce-ip" => settings.announce_ip.clone(),
            "announce-port" => settings.announce_port.to_string(),
            "sentinel-user" => settings.sentinel_user.clone(),
            "sentinel-pass" => settings.sentinel_pass.clone(),
            _ => String::new(),
        }
    }

    /// SENTINEL DEBUG with a name and a value. Nothing is written: it lasts until the restart.
    pub fn set_timing(&mut self, name: &str, value: &str) -> Result<(), String> {
        let mut named = self.timing.named();
        let Some((_, field)) = named.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            return Err(format!("ERR Unknown option or number of arguments for SENTINEL DEBUG '{name}'"));
        };
        match parse_i64(value.as_bytes()) {
            Some(ms) if ms > 0 => **field = ms as MonoMs,
            _ => return Err(format!("ERR Invalid argument '{value}' for SENTINEL DEBUG '{name}'")),
        }
        Ok(())
    }

    /// SENTINEL SIMULATE-FAILURE: which crashes are to happen in the next failover.
    pub fn simulate(&mut self, failures: Simulated) {
        self.simulated = failures;
    }
}
