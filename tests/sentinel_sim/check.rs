//! What must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};

use keystead::sentinel::report::Fields;

#[derive(Default)]
pub struct Checker {
    pub violation: Option<String>,
    /// Switches that leaders announced.
    pub switches: u64,
    /// Sentinel and epoch: whom it said it voted for.
    told: BTreeMap<(usize, u64), String>,
    /// Epoch: who was elected in it, by votes.
    leaders: BTreeMap<u64, usize>,
    /// Configuration epoch: which primary it names, and who said so first.
    configs: BTreeMap<u64, (String, usize)>,
    /// The last configuration epoch of a sentinel, which may not go back while it lives.
    latest: BTreeMap<usize, u64>,
    /// Acknowledged writes: which server wrote them, and when.
    acknowledged: BTreeMap<u64, (usize, u64)>,
    /// Who became the primary when, and the writes that it had then.
    primaries: Vec<(u64, usize, BTreeSet<u64>)>,
}

/// The value of a field of SENTINEL REPLICAS.
fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
}

impl Checker {
    pub fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub fn votes_told(&self) -> u64 {
        self.told.len() as u64
    }

    /// A vote left a sentinel. One an epoch, whatever happens to it.
    pub fn vote(&mut self, sentinel: usize, epoch: u64, leader: &str) {
        let before = self.told.entry((sentinel, epoch)).or_insert_with(|| leader.to_owned());
        if before != leader {
            let text = format!("s{sentinel} voted for {before} and for {leader} in epoch {epoch}");
            self.fail(text);
        }
    }

    /// A sentinel says that it was elected: with so many votes told to it, of so many voters.
    pub fn elected(&mut self, sentinel: usize, epoch: u64, id: &str, voters: usize, quorum: usize) {
        let other = *self.leaders.entry(epoch).or_insert(sentinel);
        if other != sentinel {
            self.fail(format!("s{other} and s{sentinel} were both elected in epoch {epoch}"));
        }
        let votes = self.told.iter().filter(|((_, e), who)| *e == epoch && *who == id).count();
        if votes < quorum || votes < voters / 2 + 1 {
            self.fail(format!(
                "s{sentinel} was elected in epoch {epoch} by {votes} of {voters}, quorum {quorum}"
            ));
        }
    }

    /// What a sentinel believes now. One epoch names one primary.
    pub fn config(&mut self, sentinel: usize, epoch: u64, address: &str) {
        let (before, first) =
            self.configs.entry(epoch).or_insert_with(|| (address.to_owned(), sentinel)).clone();
        // Epoch 0 is whatever an administrator wrote.
        if before != address && epoch > 0 {
            self.fail(format!("config epoch {epoch} is {before} for s{first} and {address} for s{sentinel}"));
        }
        let latest = self.latest.entry(sentinel).or_default();
        if epoch < *latest {
            let text = format!("s{sentinel} went back from config epoch {latest} to {epoch}");
            self.fail(text);
        } else {
            *latest = epoch;
        }
    }

    /// The newest configuration epoch that a sentinel was seen with.
    pub fn newest_epoch(&self) -> u64 {
        self.configs.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// A client's write was acknowledged, as it was told.
    pub fn acknowledged(&mut self, write: u64, server: usize, at: u64) {
        self.acknowledged.insert(write, (server, at));
    }

    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// A leader found its replica promoted: from now on sentinels name it.
    pub fn accepted(&mut self, now: u64, server: usize, data: &[u64]) {
        self.primaries.push((now, server, data.iter().copied().collect()));
    }

    /// A sentinel chose a replica: none that it knows as well is better.
    pub fn selected(&mut self, sentinel: usize, chosen: &str, replicas: &[Fields]) {
        let number = |f: &Fields, name: &str| field(f, name).parse::<u64>().unwrap_or_default();
        let rank = |f: &Fields| (number(f, "slave-priority"), u64::MAX - number(f, "slave-repl-offset"));
        let known_well = |f: &&Fields| {
            field(f, "flags") == "slave"
                && number(f, "slave-priority") > 0
                && field(f, "master-link-status") == "ok"
                && ["info-refresh", "last-ok-ping-reply"].iter().all(|name| number(f, name) < 1000)
        };
        let Some(mine) = replicas.iter().find(|f| field(f, "name") == chosen) else { return };
        if let Some(better) = replicas.iter().filter(known_well).find(|f| rank(f) < rank(mine)) {
            self.fail(format!("s{sentinel} chose {chosen} although it knew of {}", field(better, "name")));
        }
    }

    /// What the primary has in the end. A write may be lost only as asynchronous replication allows: whoever took it
    /// had been replaced already, or whoever was promoted later had not got it.
    pub fn nothing_else_is_lost(&mut self, data: &[u64]) -> usize {
        let data: BTreeSet<u64> = data.iter().copied().collect();
        let lost: Vec<_> = self.acknowledged.iter().filter(|(write, _)| !data.contains(write)).collect();
        let count = lost.len();
        let wrong = lost.into_iter().find(|(write, (server, at))| {
            let accepted =
                self.primaries.iter().rfind(|(since, ..)| since <= at).map_or(0, |(_, who, _)| *who);
            accepted == *server
                && self.primaries.iter().filter(|(since, ..)| since > at).all(|(.., had)| had.contains(write))
        });
        if let Some((write, (server, at))) = wrong {
            let text =
                format!("write {write}, which server {server} acknowledged at {at}, is lost for nothing");
            self.fail(text);
        }
        count
    }

    /// A crash may lose what was not on disk.
    pub fn restarted(&mut self, sentinel: usize) {
        self.latest.remove(&sentinel);
    }
}
