//! The end of a MIGRATE: what the other node has acknowledged goes here, under locks that were free meanwhile.
//!
//! Between the sending of keys and this nobody holds their shards. What may have happened:
//!
//! - **Readers** saw the keys as they were. **Writers** of them were put aside
//!   ([`Locked::hold_back`](crate::keyspace::Locked::hold_back)); they run now, and are sent to the other node
//!   (ASK) if the slot is moving.
//! - A key **expired** or was **evicted**: it is gone here already, and there as it was sent, which is as if the
//!   MIGRATE had been first.
//! - **FLUSHALL**, or **the slot has gone** to another node and its keys were dropped: the keys are not held back
//!   any more, because they are not here. A key of the same name that came since is another one, and stays.
//! - **The view of the slots has changed** in another way: nothing follows for keys that were sent. They go here
//!   because they are there.
//! - **The node has become a replica**, perhaps a primary again: its data are another history's, and nothing goes.
//!   The client was told so already (UNBLOCKED).
//! - **Writes are paused** (CLIENT PAUSE, a failover under way): the end waits for that to be over, as every
//!   write does. The keys stay held back.
//! - **The other node did not answer**, or not for all keys: those without an acknowledgment stay, as with
//!   Redis, though the other node may have them as well.

use std::sync::atomic::Ordering;

use super::{Executor, Host};
use crate::base::crc16::key_slot;
use crate::base::time::UnixMs;
use crate::command::gate;
use crate::keyspace::db::Expiring;
use crate::keyspace::{Db, DbIndex, LockSet, event};

/// Keys that MIGRATE has sent and that are held back for writers.
#[derive(Debug)]
pub struct Parcel {
    /// As [`Locked::hold_back`](crate::keyspace::Locked::hold_back) gave it.
    pub number: u64,
    /// Where the keys are on this node.
    pub db: DbIndex,
    /// Those that were there when they were sent.
    pub keys: Vec<Vec<u8>>,
    /// The log's ticket when they were sent: void once the node has changed its role.
    pub ticket: u64,
}

impl Executor {
    /// Ends a MIGRATE: deletes those of a parcel's keys that `arrived`, and lets writers of all of them go on.
    /// Nothing is deleted if the node has changed its role since they were sent. Returns the end of the
    /// log behind that, 0 if nothing was logged; `None` while writes are paused, and then nothing is done.
    pub fn end_parcel(
        &mut self,
        host: &mut dyn Host,
        parcel: &Parcel,
        arrived: &[bool],
        now: UnixMs,
    ) -> Option<u64> {
        let shared = self.shared;
        let ks = &*shared.keyspace;
        let mut set = LockSet::NONE;
        parcel.keys.iter().for_each(|key| set.add_slot(key_slot(key)));
        let mut locked = ks.lock(set);
        let ours = ks.log.accepts(parcel.ticket) && !shared.is_replica.load(Ordering::Relaxed);
        let paused = gate::PAUSED_ALL | gate::PAUSED_WRITES;
        if ours && shared.gate.load(Ordering::Relaxed) & paused != 0 {
            return None;
        }
        let held = locked.let_through(parcel.number, &parcel.keys);
        self.effects.log_wanted = ks.log.is_wanted();
        let mut db = Db::new(&mut locked, parcel.db, now, Expiring::Ignore, &mut self.effects);
        let mut gone: Vec<&[u8]> = vec![b"DEL"];
        for (i, key) in parcel.keys.iter().enumerate() {
            if ours && arrived[i] && held[i] && db.remove(key) {
                db.changed(key, event::DEL);
                gone.push(key);
            }
        }
        if gone.len() > 1 {
            db.record(&gone);
        }
        self.publish_notices(host, false);
        let logged = self.effects.has_records();
        let end = if logged { self.effects.append_to(&ks.log, true) } else { 0 };
        self.serve_blocked(host, now, &mut locked);
        self.publish_counts();
        Some(end)
    }
}
