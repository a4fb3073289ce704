//! Servers as Sentinel sees them: roles, INFO, the hello channel, and data that replicas take over.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use keystead::resp::decode::Value;

use super::{Happening, PORT, RENAMED, World};

/// A server: what Sentinel sees of it.
pub struct Server {
    pub ip: String,
    pub alive: bool,
    /// `None`: it is a primary.
    pub follows: Option<String>,
    pub run_id: String,
    pub offset: u64,
    pub priority: u32,
    /// The writes that it has, in order.
    pub data: Vec<u64>,
    /// How many of them it had when it last became a primary.
    pub(super) promoted_with: usize,
    /// Since when its link to its primary is down.
    pub(super) link_down: Option<u64>,
    pub(super) subscribers: BTreeSet<usize>,
}

impl Server {
    /// The first is the primary of the others.
    pub(super) fn new(i: usize, run_id: String) -> Self {
        Self {
            ip: format!("10.0.0.{}", i + 1),
            alive: true,
            follows: (i > 0).then(|| "10.0.0.1".to_owned()),
            run_id,
            offset: 0,
            priority: 100,
            data: Vec::new(),
            promoted_with: 0,
            link_down: None,
            subscribers: BTreeSet::new(),
        }
    }
}

impl World {
    pub fn crash_server(&mut self, i: usize) {
        if std::mem::replace(&mut self.servers[i].alive, false) {
            self.trace(|| format!("*** server {i} crashes"));
            self.servers[i].subscribers.clear();
            self.gone(i);
        }
    }

    /// Comes back as its configuration file says, which CONFIG REWRITE kept up to date.
    pub fn start_server(&mut self, i: usize) {
        if !self.servers[i].alive {
            self.trace(|| format!("*** server {i} starts"));
            self.servers[i].run_id = self.fresh_id();
            self.servers[i].alive = true;
            self.servers[i].link_down = Some(self.now);
        }
    }

    pub(super) fn serve(&mut self, i: usize, conn: usize, words: &[String]) {
        let simple = |text: &str| Value::Simple(text.into());
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        // `rename-command` of some sentinel; the others call it as ever.
        let reply = match words[0].strip_prefix(RENAMED).unwrap_or(&words[0]) {
            "PING" => simple("PONG"),
            "INFO" => bulk(&self.info(i)),
            "SUBSCRIBE" => {
                self.servers[i].subscribers.insert(conn);
                Value::Array(vec![bulk("subscribe"), bulk(&words[1]), Value::Int(1)])
            }
            "PUBLISH" => {
                for subscriber in self.servers[i].subscribers.clone() {
                    let message = Value::Array(vec![bulk("message"), bulk(&words[1]), bulk(&words[2])]);
                    self.reply(subscriber, message);
                }
                Value::Int(1)
            }
            "SLAVEOF" => {
                self.follow(i, words);
                simple("QUEUED")
            }
            "CLIENT" if words[1] == "KILL" && words[3] == "pubsub" => {
                // Everybody but the caller.
                let others: Vec<usize> = (0..self.conns.len())
                    .filter(|c| *c != conn && self.conns[*c].open && self.conns[*c].to == i)
                    .collect();
                for other in others {
                    self.hang_up(other, 0);
                }
                simple("QUEUED")
            }
            _ => simple("OK"),
        };
        self.reply(conn, reply);
    }

    fn follow(&mut self, i: usize, words: &[String]) {
        let target = (words[1] != "NO").then(|| words[1].clone());
        self.trace(|| format!("server {i} follows {target:?}"));
        let now = self.now;
        let server = &mut self.servers[i];
        if target.is_some() && server.follows != target {
            server.link_down = Some(now);
        }
        if target.is_none() && server.follows.is_some() {
            server.promoted_with = server.data.len();
        }
        server.follows = target;
        self.cut_clients(i);
    }

    fn info(&self, i: usize) -> String {
        let server = &self.servers[i];
        let mut out = format!("run_id:{}\r\n", server.run_id);
        if let Some(primary) = &server.follows {
            let _ = write!(
                out,
                "role:slave\r\nmaster_host:{primary}\r\nmaster_port:{PORT}\r\nmaster_link_status:{}\r\n\
                 slave_repl_offset:{}\r\nslave_priority:{}\r\nreplica_announced:1\r\n",
                if server.link_down.is_some() { "down" } else { "up" },
                server.offset,
                server.priority
            );
            if let Some(since) = server.link_down {
                let _ = write!(out, "master_link_down_since_seconds:{}\r\n", (self.now - since) / 1000);
            }
        } else {
            out += "role:master\r\n";
        }
        let followers = self
            .servers
            .iter()
            .filter(|s| s.alive && s.link_down.is_none() && s.follows.as_ref() == Some(&server.ip));
        for (n, follower) in followers.enumerate() {
            let _ = write!(out, "slave{n}:ip={},port={PORT},state=online,offset=0,lag=0\r\n", follower.ip);
        }
        out
    }

    /// Primaries get writes, replicas that reach their primary have its data.
    pub(super) fn replicate(&mut self) {
        for i in 0..self.servers.len() {
            if !self.servers[i].alive || self.paused.contains(&i) {
                continue;
            }
            let Some(ip) = self.servers[i].follows.clone() else {
                self.servers[i].offset += 10;
                continue;
            };
            let primary = self.servers.iter().position(|s| s.ip == ip);
            let reached = primary.is_some_and(|p| {
                p != i && self.servers[p].alive && !self.paused.contains(&p) && !self.is_blocked(i, p)
            });
            if let (true, Some(p)) = (reached, primary) {
                self.take_over(i, p);
                self.servers[i].offset = self.servers[p].offset;
                self.servers[i].link_down = None;
            } else if self.servers[i].link_down.is_none() {
                self.servers[i].link_down = Some(self.now);
            }
        }
        self.at(self.now + 100, Happening::Replicate);
    }

    /// A replica takes over what it lacks, and drops what its primary does not have.
    fn take_over(&mut self, i: usize, primary: usize) {
        let data = std::mem::take(&mut self.servers[i].data);
        let theirs = &self.servers[primary].data;
        // Numbers are given once, so one that is in the same place means that all before it are, too.
        let same = data.last().is_none_or(|last| theirs.get(data.len() - 1) == Some(last));
        let keep = if same { data.len() } else { 0 };
        let news = theirs[keep..].to_vec();
        let mut data = data;
        data.truncate(keep);
        data.extend(news);
        self.servers[i].data = data;
    }
}
