//! PSYNC, SYNC, and the snapshot that replicas share.

use super::link::State;
use super::{Action, LinkId, Primary, Snapshot, Target, log};
use crate::base::time::MonoMs;
use crate::repl::psync::{Request, Verdict, Window, decide};
use crate::repl::{History, Level, ReplId};

impl Primary {
    /// PSYNC of a connection from `peer_ip`. `window` is the part of the stream that is kept, if any is. Returns what
    /// was decided; `None` for a connection that is being served, whose request is ignored.
    #[expect(clippy::too_many_arguments, reason = "an input of the machine, and what it may look at")]
    pub fn psync(
        &mut self,
        now: MonoMs,
        id: LinkId,
        peer_ip: &str,
        request: Request<'_>,
        history: &mut History,
        window: Option<Window>,
        out: &mut Vec<Action>,
    ) -> Option<Verdict> {
        if self.is_attached(id) {
            return None;
        }
        let name = self.link(now, id, peer_ip).name();
        log(out, Level::Notice, format!("Replica {name} asks for synchronization"));
        let verdict = decide(history, window, request);
        match verdict {
            Verdict::Continue { offset, bytes } => {
                let link = self.link(now, id, peer_ip);
                link.state = State::Online;
                (link.heard, link.acked) = (now, offset);
                let reply = if link.psync2 {
                    format!("+CONTINUE {}\r\n", history.id())
                } else {
                    "+CONTINUE\r\n".to_owned()
                };
                self.alone_since = None;
                out.push(Action::Send(id, reply.into_bytes()));
                let text = format!(
                    "Partial resynchronization request from {name} accepted. Sending {bytes} bytes of backlog \
                     starting from offset {}.",
                    request.from
                );
                log(out, Level::Notice, text);
                out.push(Action::Stream(id, offset));
            }
            Verdict::Full(refusal) => {
                for line in refusal.lines(history, request, &name) {
                    log(out, Level::Notice, line);
                }
                self.full_sync(now, id, history, window.is_some(), out);
            }
        }
        Some(verdict)
    }

    /// SYNC, of replicas that know no PSYNC.
    pub fn sync(
        &mut self,
        now: MonoMs,
        id: LinkId,
        peer_ip: &str,
        history: &mut History,
        stream_kept: bool,
        out: &mut Vec<Action>,
    ) {
        if self.is_attached(id) {
            return;
        }
        let link = self.link(now, id, peer_ip);
        link.old = true;
        let text = format!("Replica {} asks for synchronization", link.name());
        log(out, Level::Notice, text);
        self.full_sync(now, id, history, stream_kept, out);
    }

    fn is_attached(&self, id: LinkId) -> bool {
        self.replicas.get(&id).is_some_and(|link| link.state != State::Handshake)
    }

    fn full_sync(
        &mut self,
        now: MonoMs,
        id: LinkId,
        history: &mut History,
        stream_kept: bool,
        out: &mut Vec<Action>,
    ) {
        if !stream_kept {
            // Changes made while no stream was kept have no offsets: under the old ids a replica could pass for one
            // that has them.
            history.forget(&mut self.rng);
            out.push(Action::KeepStream);
            let text = format!(
                "Replication backlog created, my new replication IDs are '{}' and '{}'",
                history.id(),
                history.second_id()
            );
            log(out, Level::Notice, text);
        }
        self.alone_since = None;
        let Some(link) = self.replicas.get_mut(&id) else { return };
        link.state = State::WaitStart;
        (link.asked_at, link.heard) = (now, now);
        match self.snapshot {
            Snapshot::Running { target: Target::Disk, content, offset } if content == link.content => {
                log(out, Level::Notice, "Waiting for end of BGSAVE for SYNC");
                self.attach(id, offset, history.id(), out);
            }
            Snapshot::Running { target: Target::Disk, .. } => {
                let text = "Can't attach the replica to the current BGSAVE. Waiting for next BGSAVE for SYNC";
                log(out, Level::Notice, text);
            }
            Snapshot::Running { target: Target::Sockets, .. } => {
                let text = "Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC";
                log(out, Level::Notice, text);
            }
            // It takes part in the one that is about to begin, or in the next.
            Snapshot::Ordered(..) => {}
            Snapshot::None => {
                if self.config.diskless && link.eof && self.config.diskless_delay_ms > 0 {
                    log(out, Level::Notice, "Delay next BGSAVE for diskless SYNC");
                }
                self.start_snapshot_if_due(now, out);
            }
        }
    }

    /// Orders a snapshot when somebody waits for one and has waited long enough for others.
    pub(super) fn start_snapshot_if_due(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        if !matches!(self.snapshot, Snapshot::None) || now < self.snapshot_not_before {
            return;
        }
        let waiting = || self.replicas.values().filter(|link| link.state == State::WaitStart);
        let Some(first) = waiting().min_by_key(|link| link.asked_at) else { return };
        let (longest, content) = (now.saturating_sub(first.asked_at), first.content);
        // A replica that wants something else has its turn when this one is through.
        let waiting = || waiting().filter(|link| link.content == content);
        // One that cannot take marks needs a file, and the others can take that, too.
        let target =
            if self.config.diskless && waiting().all(|l| l.eof) { Target::Sockets } else { Target::Disk };
        let enough =
            self.config.diskless_max_replicas > 0 && waiting().count() >= self.config.diskless_max_replicas;
        if target == Target::Sockets && longest < self.config.diskless_delay_ms && !enough {
            return;
        }
        self.snapshot = Snapshot::Ordered(target, content);
        out.push(Action::StartSnapshot(target, content));
    }

    /// The snapshot ordered has begun at this offset of the stream. Returns the links that take part; to each, if
    /// the target is sockets, the driver now sends the RDB and then the mark. The mark is empty for a file.
    pub fn snapshot_started(
        &mut self,
        offset: u64,
        history: &History,
        out: &mut Vec<Action>,
    ) -> (Vec<LinkId>, Vec<u8>) {
        let Snapshot::Ordered(target, content) = self.snapshot else { return (Vec::new(), Vec::new()) };
        self.snapshot = Snapshot::Running { target, content, offset };
        let text = match target {
            Target::Disk => "Starting BGSAVE for SYNC with target: disk",
            Target::Sockets => "Starting BGSAVE for SYNC with target: replicas sockets",
        };
        log(out, Level::Notice, text);
        let mark = match target {
            Target::Disk => Vec::new(),
            Target::Sockets => ReplId::random(&mut self.rng).as_str().as_bytes().to_vec(),
        };
        let waiting = self.replicas.iter().filter(|(_, link)| {
            link.state == State::WaitStart && link.content == content && (target == Target::Disk || link.eof)
        });
        let ids: Vec<LinkId> = waiting.map(|(id, _)| *id).collect();
        for &id in &ids {
            self.attach(id, offset, history.id(), out);
            if target == Target::Sockets {
                if let Some(link) = self.replicas.get_mut(&id) {
                    link.state = State::Streaming;
                }
                out.push(Action::Send(id, [b"$EOF:", &mark[..], b"\r\n"].concat()));
            }
        }
        (ids, mark)
    }

    /// The snapshot ordered cannot begin now (another one is under way); it is ordered again a second later.
    pub fn snapshot_delayed(&mut self, now: MonoMs, out: &mut Vec<Action>) {
        if let Snapshot::Ordered(..) = self.snapshot {
            self.snapshot = Snapshot::None;
            self.snapshot_not_before = now + 1000;
            let text = "No BGSAVE in progress, but another BG operation is active. \
                        BGSAVE for replication delayed";
            log(out, Level::Verbose, text);
        }
    }

    /// The snapshot will never be whole: who waits for it must ask again. Those that it was being sent to, the driver
    /// closes; an earlier one may still be on its way to others.
    pub fn snapshot_failed(&mut self, out: &mut Vec<Action>) {
        let ordered = matches!(self.snapshot, Snapshot::Ordered(..));
        self.snapshot = Snapshot::None;
        log(out, Level::Warning, "SYNC failed. BGSAVE child returned an error");
        for (id, link) in &self.replicas {
            if link.state == State::WaitEnd || (ordered && link.state == State::WaitStart) {
                out.push(Action::Close(*id));
            }
        }
    }

    /// The file is complete and `length` bytes long. Returns the links that the driver now sends it to.
    pub fn file_ready(&mut self, length: u64, out: &mut Vec<Action>) -> Vec<LinkId> {
        self.snapshot = Snapshot::None;
        let mut ids = Vec::new();
        for (id, link) in &mut self.replicas {
            if link.state == State::WaitEnd {
                link.state = State::SendBulk;
                out.push(Action::Send(*id, format!("${length}\r\n").into_bytes()));
                ids.push(*id);
            }
        }
        ids
    }

    /// The snapshot to sockets is produced; what the links have not yet taken is the driver's.
    pub fn stream_ready(&mut self) {
        self.snapshot = Snapshot::None;
    }

    /// The whole RDB, with its mark if it has one, was handed to the connection `id`.
    pub fn rdb_sent(&mut self, now: MonoMs, id: LinkId, out: &mut Vec<Action>) {
        let Some(link) = self.replicas.get_mut(&id) else { return };
        let name = link.name();
        let from_file = match link.state {
            State::SendBulk => true,
            State::Streaming => false,
            _ => return,
        };
        if link.rdb_only {
            let text =
                format!("RDB transfer completed, rdb only replica ({name}) should be disconnected asap");
            log(out, Level::Notice, text);
            out.push(Action::Close(id));
            return;
        }
        link.state = State::Online;
        link.heard = now;
        if from_file {
            log(out, Level::Notice, format!("Synchronization with replica {name} succeeded"));
            out.push(Action::Stream(id, link.start));
        } else {
            // Its reader looks for the mark at the end of what arrives, so nothing may follow before it has it.
            link.awaits_ack = true;
            let text = format!(
                "Streamed RDB transfer with replica {name} succeeded (socket). Waiting for REPLCONF ACK from \
                 slave to enable streaming"
            );
            log(out, Level::Notice, text);
        }
    }

    /// The offset from which on the stream must be kept for replicas that do not follow it yet.
    pub fn needed_from(&self) -> Option<u64> {
        self.replicas
            .values()
            .filter(|l| {
                matches!(l.state, State::WaitEnd | State::Streaming | State::SendBulk) || l.awaits_ack
            })
            .map(|l| l.start)
            .min()
    }

    fn attach(&mut self, id: LinkId, offset: u64, history: ReplId, out: &mut Vec<Action>) {
        let Some(link) = self.replicas.get_mut(&id) else { return };
        link.state = State::WaitEnd;
        link.start = offset;
        link.acked = 0;
        if !link.old {
            out.push(Action::Send(id, format!("+FULLRESYNC {history} {offset}\r\n").into_bytes()));
        }
    }
}
