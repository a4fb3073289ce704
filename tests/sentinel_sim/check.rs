//! What must hold at every moment.

use std::collections::BTreeMap;

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
}

impl Checker {
    fn fail(&mut self, text: String) {
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
        if before != address {
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

    /// A crash may lose what was not on disk.
    pub fn restarted(&mut self, sentinel: usize) {
        self.latest.remove(&sentinel);
    }
}
