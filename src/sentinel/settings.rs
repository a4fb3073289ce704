//! The `sentinel` lines of the configuration: read into a [`Sentinel`], and written back.

use super::instance::{Address, InstanceId};
use super::state::Sentinel;
use crate::base::num::parse_i64;
use crate::base::rng::Rng;
use crate::base::time::MonoMs;

/// Settings of the sentinel as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The port that clients and other sentinels reach us on, as the server listens.
    pub own_port: u16,
    /// SENTINEL SET may not change the scripts of a primary.
    pub deny_scripts_reconfig: bool,
    /// Names are taken for addresses, too, and looked up.
    pub resolve_hostnames: bool,
    /// Names are told as names; otherwise as the address that they stand for.
    pub announce_hostnames: bool,
    /// What others are to reach us at; empty: our end of the link.
    pub announce_ip: String,
    /// 0: our own.
    pub announce_port: u16,
    /// The user that we log in as at other sentinels; empty: the default one.
    pub sentinel_user: String,
    /// Empty: no login.
    pub sentinel_pass: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            own_port: 26379,
            deny_scripts_reconfig: true,
            resolve_hostnames: false,
            announce_hostnames: false,
            announce_ip: String::new(),
            announce_port: 0,
            sentinel_user: String::new(),
            sentinel_pass: String::new(),
        }
    }
}

/// One line of the file, without the word `sentinel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Option first; not quoted.
    pub words: Vec<String>,
    /// False: it says a default, so it is only written where the file says something of it already.
    pub needed: bool,
}

/// Options whose second word is the name of a primary.
const OF_A_PRIMARY: [&str; 14] = [
    "monitor",
    "down-after-milliseconds",
    "failover-timeout",
    "parallel-syncs",
    "notification-script",
    "client-reconfig-script",
    "auth-pass",
    "auth-user",
    "config-epoch",
    "leader-epoch",
    "known-replica",
    "known-sentinel",
    "rename-command",
    "master-reboot-down-after-period",
];

/// What a line is about: the same for the line that replaces it.
pub fn subject(words: &[String]) -> String {
    let option = words.first().map(|w| w.to_ascii_lowercase()).unwrap_or_default();
    let option = if option == "known-slave" { "known-replica".to_owned() } else { option };
    match words.get(1) {
        Some(name) if OF_A_PRIMARY.contains(&option.as_str()) => format!("{option} {name}"),
        _ => option,
    }
}

/// A mistake in the lines: which one, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Index into the lines that were given, from 0.
    pub line: usize,
    /// For the operator.
    pub message: String,
}

const MISSING: &str = "Unrecognized sentinel configuration statement.";

pub(super) fn yes_no(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// A number above zero.
fn positive(word: &str, message: &str) -> Result<u64, String> {
    match parse_i64(word.as_bytes()) {
        Some(n) if n > 0 => Ok(n as u64),
        _ => Err(message.to_owned()),
    }
}

fn port(word: &str) -> Result<u16, String> {
    word.parse().map_err(|_| "Invalid port number".to_owned())
}

impl Sentinel {
    /// Reads the lines of a configuration, in the three passes that let them stand in any order: settings, primaries,
    /// what belongs to primaries. Also returns warnings.
    pub fn read(
        lines: &[Vec<String>],
        own_port: u16,
        rng: Rng,
        now: MonoMs,
    ) -> Result<(Self, Vec<String>), Mistake> {
        let mut sentinel = Self::new(Settings { own_port, ..Settings::default() }, rng, now);
        let mut warnings = Vec::new();
        for pass in 0..3 {
            for (index, words) in lines.iter().enumerate() {
                let option = words.first().map(|w| w.to_ascii_lowercase()).unwrap_or_default();
                let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
                let of = match option.as_str() {
                    "monitor" => 1,
                    "known-slave" => 2,
                    option if OF_A_PRIMARY.contains(&option) => 2,
                    _ => 0,
                };
                if of == pass {
                    let read = match pass {
                        0 => sentinel.read_setting(&option, &words),
                        1 => sentinel.read_monitor(&words),
                        _ => sentinel.read_of_primary(&option, &words, &mut warnings),
                    };
                    read.map_err(|message| Mistake { line: index, message })?;
                }
            }
        }
        // The file says it already, except for an id that is new.
        sentinel.remember();
        Ok((sentinel, warnings))
    }

    fn read_setting(&mut self, option: &str, words: &[&str]) -> Result<(), String> {
        let [word] = words else { return Err(MISSING.to_owned()) };
        let flag = || yes_no(word).ok_or(format!("Please specify yes or no for the {option} option."));
        match option {
            "myid" => {
                if word.len() != 40 || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err("Malformed Sentinel id in myid option.".to_owned());
                }
                (*word).clone_into(&mut self.my_id);
            }
            "current-epoch" => {
                let epoch = word.parse().map_err(|_| "Invalid epoch.".to_owned())?;
                self.current_epoch = self.current_epoch.max(epoch);
            }
            "announce-ip" => (*word).clone_into(&mut self.settings.announce_ip),
            "announce-port" => self.settings.announce_port = port(word)?,
            "deny-scripts-reconfig" => self.settings.deny_scripts_reconfig = flag()?,
            "resolve-hostnames" => self.settings.resolve_hostnames = flag()?,
            "announce-hostnames" => self.settings.announce_hostnames = flag()?,
            "sentinel-user" => (*word).clone_into(&mut self.settings.sentinel_user),
            "sentinel-pass" => (*word).clone_into(&mut self.settings.sentinel_pass),
            _ => return Err(MISSING.to_owned()),
        }
        Ok(())
    }

    fn read_monitor(&mut self, words: &[&str]) -> Result<(), String> {
        let [name, host, port_word, quorum] = words else { return Err(MISSING.to_owned()) };
        let quorum = positive(quorum, "Quorum must be 1 or greater.")?;
        let quorum = u32::try_from(quorum).unwrap_or(u32::MAX);
        let port = port(port_word)?;
        if self.primaries.contains_key(*name) {
            return Err("Duplicate master name.".to_owned());
        }
        if !self.accepts_host(host) {
            return Err("Can't resolve instance hostname.".to_owned());
        }
        self.add_primary(name, Address::new(host, port), quorum);
        Ok(())
    }

    fn read_of_primary(
        &mut self,
        option: &str,
        words: &[&str],
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let Some((name, words)) = words.split_first() else { return Err(MISSING.to_owned()) };
        let no_primary = || "No such master with specified name.".to_owned();
        let primary = *self.primaries.get(*name).ok_or_else(no_primary)?;
        match (option, words) {
            ("known-replica" | "known-slave", [host, port_word]) => {
                self.read_replica(primary, host, port(port_word)?, warnings)
            }
            ("known-sentinel", [host, port_word, run_id]) => {
                self.read_sentinel(primary, host, port(port_word)?, run_id, warnings)
            }
            // Before run ids were written; hellos tell the rest.
            ("known-sentinel", [_, _]) => Ok(()),
            ("config-epoch" | "leader-epoch", [epoch]) => {
                let epoch = epoch.parse().map_err(|_| "Invalid epoch.".to_owned())?;
                let watch = self.watch_mut(primary);
                if option == "config-epoch" {
                    watch.config_epoch = epoch;
                } else {
                    watch.leader_epoch = epoch;
                }
                // The current epoch is the largest that was ever seen.
                self.current_epoch = self.current_epoch.max(epoch);
                Ok(())
            }
            _ => self.set_option(primary, option, words).map_err(|fault| match fault {
                OptionFault::Unknown => MISSING.to_owned(),
                OptionFault::Invalid(_) => option_mistake(option).to_owned(),
            }),
        }
    }

    fn read_replica(
        &mut self,
        primary: InstanceId,
        host: &str,
        port: u16,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let address = Address::new(host, port);
        let name = self.at(primary).name.clone();
        if !self.accepts_host(host) {
            return Err(format!("Wrong hostname or port for replica: {host} {port}"));
        }
        if self.find_replica(primary, &address).is_some() {
            warnings.push(format!(
                "replica {address} of {name} is in the configuration twice: one line is dropped"
            ));
        } else if self.same(&self.at(primary).address, &address) {
            warnings.push(format!("{address} is {name} itself, not its replica: the line is dropped"));
        } else {
            self.add_replica(primary, address);
        }
        Ok(())
    }

    fn read_sentinel(
        &mut self,
        primary: InstanceId,
        host: &str,
        port: u16,
        run_id: &str,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let name = self.at(primary).name.clone();
        if !self.accepts_host(host) {
            return Err(format!("Wrong hostname or port for sentinel: {host} {port}"));
        }
        let address = Address::new(host, port);
        if run_id == self.my_id {
            warnings.push(format!("sentinel {run_id} of {name} is this one: the line is dropped"));
        } else if let Some(known) = self.watch(primary).sentinels.get(run_id).copied() {
            warnings.push(format!(
                "sentinel {run_id} of {name} is in the configuration twice: the last line counts"
            ));
            self.readdress(known, address);
        } else {
            self.add_sentinel(primary, run_id, address);
        }
        Ok(())
    }

    /// Sets an option of a primary, as a line of the file and SENTINEL SET name it.
    pub(super) fn set_option(
        &mut self,
        primary: InstanceId,
        option: &str,
        values: &[&str],
    ) -> Result<(), OptionFault> {
        let watch = self.watch_mut(primary);
        match (option, values) {
            ("rename-command", [from, to]) => {
                let from = from.to_ascii_lowercase();
                if from == to.to_ascii_lowercase() {
                    watch.renames.remove(&from);
                } else {
                    watch.renames.insert(from, (*to).to_owned());
                }
                Ok(())
            }
            (_, [value]) => {
                let number = |least: i64, most: i64| {
                    let n = parse_i64(value.as_bytes()).filter(|n| (least..=most).contains(n));
                    n.ok_or(OptionFault::Invalid((*value).to_owned()))
                };
                match option {
                    "down-after-milliseconds" => watch.down_after = number(1, i64::MAX)? as MonoMs,
                    "failover-timeout" => watch.failover_timeout = number(1, i64::MAX / 4)? as MonoMs,
                    "parallel-syncs" => watch.parallel_syncs = number(1, i64::from(i32::MAX))? as u32,
                    "quorum" => watch.quorum = number(1, i64::from(i32::MAX))? as u32,
                    "master-reboot-down-after-period" => {
                        watch.reboot_down_after = number(0, i64::MAX)? as MonoMs;
                    }
                    "notification-script" => (*value).clone_into(&mut watch.notification_script),
                    "client-reconfig-script" => (*value).clone_into(&mut watch.reconfig_script),
                    "auth-pass" => (*value).clone_into(&mut watch.auth_pass),
                    "auth-user" => (*value).clone_into(&mut watch.auth_user),
                    _ => return Err(OptionFault::Unknown),
                }
                Ok(())
            }
            _ => Err(OptionFault::Unknown),
        }
    }

    /// All that must survive a restart, as lines of the configuration.
    pub fn lines(&self) -> Vec<Line> {
        let mut out = Lines::default();
        let settings = &self.settings;
        let word = |on: bool| if on { "yes" } else { "no" };
        out.add(&["myid", &self.my_id]);
        out.add_if(
            !settings.deny_scripts_reconfig,
            &["deny-scripts-reconfig", word(settings.deny_scripts_reconfig)],
        );
        out.add_if(settings.resolve_hostnames, &["resolve-hostnames", word(settings.resolve_hostnames)]);
        out.add_if(settings.announce_hostnames, &["announce-hostnames", word(settings.announce_hostnames)]);
        for (name, primary) in &self.primaries {
            self.lines_of(&mut out, name, *primary);
        }
        out.add(&["current-epoch", &self.current_epoch.to_string()]);
        out.add_text("announce-ip", None, &settings.announce_ip);
        if settings.announce_port != 0 {
            out.add(&["announce-port", &settings.announce_port.to_string()]);
        }
        out.add_text("sentinel-user", None, &settings.sentinel_user);
        out.add_text("sentinel-pass", None, &settings.sentinel_pass);
        out.0
    }

    fn lines_of(&self, out: &mut Lines, name: &str, primary: InstanceId) {
        let watch = self.watch(primary);
        // As clients are told it: after a promotion the new primary, also while its replicas still move.
        let address = self.current_address(primary);
        let host = self.announced(&address.host);
        out.add(&["monitor", name, &host, &address.port.to_string(), &watch.quorum.to_string()]);
        let mut number = |option, value: u64, default: u64| {
            out.add_if(value != default, &[option, name, &value.to_string()]);
        };
        number("down-after-milliseconds", watch.down_after, self.timing.default_down_after);
        number("failover-timeout", watch.failover_timeout, self.timing.default_failover_timeout);
        number("parallel-syncs", u64::from(watch.parallel_syncs), 1);
        number("master-reboot-down-after-period", watch.reboot_down_after, 0);
        out.add_text("notification-script", Some(name), &watch.notification_script);
        out.add_text("client-reconfig-script", Some(name), &watch.reconfig_script);
        out.add_text("auth-user", Some(name), &watch.auth_user);
        out.add_text("auth-pass", Some(name), &watch.auth_pass);
        out.add(&["config-epoch", name, &watch.config_epoch.to_string()]);
        out.add(&["leader-epoch", name, &watch.leader_epoch.to_string()]);
        for replica in self.replicas(primary) {
            let mut known = &self.at(replica).address;
            if *known == address {
                known = &self.at(primary).address;
            }
            out.add(&["known-replica", name, &self.announced(&known.host), &known.port.to_string()]);
        }
        for peer in self.peers(primary) {
            let instance = self.at(peer);
            if instance.address.port != 0 {
                let (host, port) =
                    (self.announced(&instance.address.host), instance.address.port.to_string());
                out.add(&["known-sentinel", name, &host, &port, &instance.run_id]);
            }
        }
        for (from, to) in &watch.renames {
            out.add(&["rename-command", name, from, to]);
        }
    }
}

/// Why an option cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OptionFault {
    Unknown,
    /// This value is wrong.
    Invalid(String),
}

/// The message of a line with a wrong value.
fn option_mistake(option: &str) -> &'static str {
    match option {
        "down-after-milliseconds" | "failover-timeout" | "master-reboot-down-after-period" => {
            "negative or zero time parameter."
        }
        _ => "Wrong value of a sentinel option.",
    }
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, words: &[&str]) {
        self.add_if(true, words);
    }

    fn add_if(&mut self, needed: bool, words: &[&str]) {
        self.0.push(Line { words: words.iter().map(|w| (*w).to_owned()).collect(), needed });
    }

    /// An option that has a line only when it is set.
    fn add_text(&mut self, option: &str, name: Option<&str>, value: &str) {
        if !value.is_empty() {
            let words: Vec<&str> = std::iter::once(option).chain(name).chain([value]).collect();
            self.add(&words);
        }
    }
}
