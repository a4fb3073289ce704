//! Connections: opened, kept, given up; what is asked over them, and when; where replies go.

use super::action::{Action, LinkId};
use super::instance::{Connection, InstanceId, Kind, Link, LinkIx, Question};
use super::state::Sentinel;
use crate::base::time::MonoMs;
use crate::resp::decode::Value;

/// The channel on which sentinels tell one another of themselves and of primaries.
pub const HELLO_CHANNEL: &str = "__sentinel__:hello";

/// An attempt to connect is given up after so long; the operating system would take minutes.
const CONNECT_MAX: MonoMs = 5000;
/// Between two attempts to connect, at least.
const RECONNECT_MIN: MonoMs = 100;
/// No more is asked over a link than this before something is answered.
const PENDING_MAX: usize = 100;
/// How often replicas are asked for INFO while it matters.
const INFO_PERIOD_FAST: MonoMs = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    Commands,
    Hellos,
}

impl Link {
    pub(super) fn channel(&mut self, channel: Channel) -> &mut Connection {
        match channel {
            Channel::Commands => &mut self.commands,
            Channel::Hellos => &mut self.hellos,
        }
    }
}

impl Sentinel {
    /// Opens what is closed, and closes what no longer answers.
    pub(super) fn keep_links(&mut self, id: InstanceId) {
        let (now, kind) = (self.now, self.kind(id));
        let (down_after, timing) = (self.watch(id).down_after, self.timing);
        let link = self.link(id);
        let stuck = |c: &Connection| c.id.is_some() && !c.up && now.saturating_sub(c.since) > CONNECT_MAX;
        let old = |c: &Connection| c.up && now.saturating_sub(c.since) > timing.min_link_reconnect_period;
        // A connection whose peer vanished without a word looks open for long: make a new one in time.
        let mute = old(&link.commands)
            && link.ping_waits.is_some_and(|t| now.saturating_sub(t) > down_after / 2)
            && now.saturating_sub(link.last_pong) > down_after / 2;
        // Our own hellos come back on it, so silence means that it is dead.
        let deaf =
            old(&link.hellos) && now.saturating_sub(link.hellos.last_activity) > 3 * timing.publish_period;
        let (stuck_commands, stuck_hellos) = (stuck(&link.commands), stuck(&link.hellos));
        let ix = self.at(id).link;
        if mute || stuck_commands {
            self.close(ix, Channel::Commands);
        }
        if deaf || stuck_hellos {
            self.close(ix, Channel::Hellos);
        }
        let link = self.link_mut(id);
        let wants_hellos = kind != Kind::Sentinel;
        let missing = link.commands.is_down() || (wants_hellos && link.hellos.is_down());
        // One that restarts is found again well before it counts as down.
        let again = timing.ping_period.min(down_after / 4).max(RECONNECT_MIN);
        let due = link.tried.is_none_or(|t| now.saturating_sub(t) >= again);
        // A sentinel whose address another one took over has port 0.
        if missing && due && link.address.port != 0 {
            link.tried = Some(now);
            self.open(ix, Channel::Commands);
            if wants_hellos {
                self.open(ix, Channel::Hellos);
            }
        }
    }

    fn open(&mut self, ix: LinkIx, channel: Channel) {
        let number = LinkId(self.number());
        let now = self.now;
        let Some(link) = self.links.get_mut(&ix) else { return };
        if !link.channel(channel).is_down() {
            return;
        }
        *link.channel(channel) =
            Connection { id: Some(number), since: now, last_activity: now, ..Connection::default() };
        let (host, port) = (link.address.host.clone(), link.address.port);
        self.connections.insert(number, (ix, channel));
        self.out.push(Action::Connect { link: number, host, port });
    }

    /// Closes a connection from our side.
    pub(super) fn close(&mut self, ix: LinkIx, channel: Channel) {
        let Some(number) = self.links.get_mut(&ix).and_then(|link| link.channel(channel).id) else { return };
        self.out.push(Action::Close(number));
        self.closed(number);
    }

    /// Closes both connections of a link, so that they are made again.
    pub(super) fn close_both(&mut self, ix: LinkIx) {
        self.close(ix, Channel::Commands);
        self.close(ix, Channel::Hellos);
        if let Some(link) = self.links.get_mut(&ix) {
            link.tried = None;
        }
    }

    /// The other side ended it, or did not take it.
    pub(super) fn ended(&mut self, number: LinkId) {
        if let Some(&(ix, Channel::Commands)) = self.connections.get(&number)
            && let Some(link) = self.links.get_mut(&ix)
        {
            link.refused = !link.commands.up;
        }
        self.closed(number);
    }

    fn closed(&mut self, number: LinkId) {
        let Some((ix, channel)) = self.connections.remove(&number) else { return };
        let Some(link) = self.links.get_mut(&ix) else { return };
        let was = std::mem::take(link.channel(channel));
        for (question, about) in was.pending {
            if let Some(instance) = self.instances.get_mut(&about) {
                match question {
                    Question::Info => instance.info_pending = false,
                    Question::IsDown => instance.peer.ask_pending = false,
                    _ => {}
                }
            }
        }
    }

    pub(super) fn connected(&mut self, number: LinkId, peer_ip: String, local_ip: String) {
        let Some(&(ix, channel)) = self.connections.get(&number) else { return };
        let now = self.now;
        let Some(link) = self.links.get_mut(&ix) else { return };
        link.local_ip = local_ip;
        let connection = link.channel(channel);
        connection.up = true;
        (connection.since, connection.last_activity) = (now, now);
        link.refused &= channel != Channel::Commands;
        let (host, user) = (link.address.host.clone(), link.users.first().copied());
        if host.parse::<std::net::IpAddr>().is_err() {
            self.resolved(host, Some(peer_ip));
        }
        let Some(id) = user else { return };
        self.greet(id, channel);
        match channel {
            Channel::Commands => self.ping(id),
            Channel::Hellos => self.send_on(id, channel, Question::Other, &["SUBSCRIBE", HELLO_CHANNEL]),
        }
    }

    /// Authenticates and tells our name.
    fn greet(&mut self, id: InstanceId, channel: Channel) {
        let (user, pass) = match self.kind(id) {
            Kind::Sentinel => (self.settings.sentinel_user.clone(), self.settings.sentinel_pass.clone()),
            _ => (self.watch(id).auth_user.clone(), self.watch(id).auth_pass.clone()),
        };
        if !pass.is_empty() {
            let words: &[&str] = if user.is_empty() { &["AUTH", &pass] } else { &["AUTH", &user, &pass] };
            self.send_on(id, channel, Question::Other, words);
        }
        let kind = if channel == Channel::Commands { "cmd" } else { "pubsub" };
        let name = format!("sentinel-{}-{kind}", &self.my_id[..8]);
        self.send_on(id, channel, Question::Other, &["CLIENT", "SETNAME", &name]);
    }

    /// Sends a command about an instance over its link. False when there is no connection.
    pub(super) fn send(&mut self, id: InstanceId, question: Question, words: &[&str]) -> bool {
        let up = self.link(id).commands.up;
        if up {
            self.send_on(id, Channel::Commands, question, words);
        }
        up
    }

    fn send_on(&mut self, id: InstanceId, channel: Channel, question: Question, words: &[&str]) {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        if self.kind(id) != Kind::Sentinel
            && let Some(renamed) = self.watch(id).renames.get(&words[0].to_ascii_lowercase())
        {
            words[0].clone_from(renamed);
        }
        let connection = self.link_mut(id).channel(channel);
        let Some(link) = connection.id else { return };
        if channel == Channel::Commands {
            connection.pending.push_back((question, id));
        }
        self.out.push(Action::Send { link, words });
    }

    pub(super) fn ping(&mut self, id: InstanceId) {
        let now = self.now;
        if self.send(id, Question::Ping, &["PING"]) {
            let link = self.link_mut(id);
            link.ping_sent = now;
            link.ping_waits.get_or_insert(now);
        }
    }

    pub(super) fn ask_info(&mut self, id: InstanceId) {
        let now = self.now;
        if self.send(id, Question::Info, &["INFO"]) {
            let instance = self.at_mut(id);
            (instance.info_asked, instance.info_pending) = (now, true);
        }
    }

    /// PING, INFO and our hello, each in its period.
    pub(super) fn ask_routinely(&mut self, id: InstanceId) {
        let (now, timing) = (self.now, self.timing);
        let instance = self.at(id);
        let link = self.link(id);
        if !link.commands.up || link.commands.pending.len() >= PENDING_MAX * link.users.len() {
            return;
        }
        let watch = self.watch(id);
        let urgent = instance.kind == Kind::Replica
            && (self.is_down(instance.primary)
                || watch.failover.in_progress()
                || instance.replica.link_down_ms != 0);
        let info_period = if urgent { INFO_PERIOD_FAST.min(timing.info_period) } else { timing.info_period };
        let info_due = instance.kind != Kind::Sentinel
            && !instance.info_pending
            && (instance.info_at.is_none() || now.saturating_sub(instance.info_asked) >= info_period);
        let ping_period = timing.ping_period.min(watch.down_after);
        let ping_due = now.saturating_sub(link.last_pong) >= ping_period
            && now.saturating_sub(link.ping_sent) >= ping_period / 2;
        let hello_due = now.saturating_sub(instance.hello_sent) >= timing.publish_period;
        if info_due {
            self.ask_info(id);
        }
        if ping_due {
            self.ping(id);
        }
        if hello_due {
            self.say_hello(id);
        }
    }

    pub(super) fn reply(&mut self, number: LinkId, reply: Value) {
        let Some(&(ix, channel)) = self.connections.get(&number) else { return };
        let now = self.now;
        let Some(link) = self.links.get_mut(&ix) else { return };
        link.channel(channel).last_activity = now;
        if channel == Channel::Hellos {
            if let [kind, name, message] = reply.items()
                && (kind.text(), name.text()) == (Some("message"), Some(HELLO_CHANNEL))
                && let Some(text) = message.text()
            {
                let text = text.to_owned();
                self.hear_hello(&text);
            }
            return;
        }
        let Some((question, about)) = link.commands.pending.pop_front() else { return };
        if !self.instances.contains_key(&about) {
            return;
        }
        match question {
            Question::Ping => self.pong(about, &reply),
            Question::Info => {
                self.at_mut(about).info_pending = false;
                if let Value::Bulk(text) = reply {
                    self.hear_info(about, text);
                }
            }
            Question::IsDown => self.hear_answer(about, &reply),
            Question::Hello | Question::Other => {}
        }
    }

    /// A reply to a ping. An instance that loads, or whose own primary is away, lives; any other error does not
    /// count.
    fn pong(&mut self, id: InstanceId, reply: &Value) {
        let now = self.now;
        let text: &[u8] = match reply {
            Value::Simple(text) | Value::Error(text) => text,
            _ => b"",
        };
        let link = self.link_mut(id);
        link.last_pong = now;
        if text.starts_with(b"PONG") || text.starts_with(b"LOADING") || text.starts_with(b"MASTERDOWN") {
            link.last_ok = now;
            link.ping_waits = None;
            if text.starts_with(b"PONG")
                && let Some(watch) = &mut self.at_mut(id).watch
            {
                watch.reboot = None;
            }
        } else if text.starts_with(b"BUSY") && self.at(id).sdown.is_some() && !self.at(id).script_kill_sent {
            // A script that runs for so long makes it unreachable: end the script.
            if self.send(id, Question::Other, &["SCRIPT", "KILL"]) {
                self.at_mut(id).script_kill_sent = true;
            }
        }
    }
}
