//! What INFO tells: identity, role, replicas, and how far a failover has come.

use super::action::{Action, Level};
use super::failover::Phase;
use super::instance::{Address, InstanceId, Kind, Reconf, Role};
use super::state::Sentinel;

/// The fields of INFO that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Report {
    run_id: Option<String>,
    role: Option<Role>,
    replicas: Vec<Address>,
    primary_host: Option<String>,
    primary_port: Option<u16>,
    link_up: Option<bool>,
    link_down_s: Option<i64>,
    priority: Option<u32>,
    offset: Option<u64>,
    announced: Option<bool>,
}

impl Role {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "master" => Some(Self::Primary),
            "slave" => Some(Self::Replica),
            _ => None,
        }
    }
}

fn parse(text: &str) -> Report {
    let mut report = Report::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim_end().split_once(':') else { continue };
        match name {
            "run_id" if value.len() == 40 => report.run_id = Some(value.to_owned()),
            "role" => report.role = Role::parse(value),
            "master_host" => report.primary_host = Some(value.to_owned()),
            "master_port" => report.primary_port = value.parse().ok(),
            "master_link_status" => report.link_up = Some(value == "up"),
            "master_link_down_since_seconds" => report.link_down_s = value.parse().ok(),
            "slave_priority" => report.priority = value.parse().ok(),
            "slave_repl_offset" => report.offset = value.parse().ok(),
            "replica_announced" => report.announced = Some(value != "0"),
            _ if is_replica_line(name) => report.replicas.extend(replica(value)),
            _ => {}
        }
    }
    report
}

/// `slave0`, `slave12`
fn is_replica_line(name: &str) -> bool {
    name.strip_prefix("slave").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// `ip=10.0.0.1,port=6379,state=online,...`
fn replica(value: &str) -> Option<Address> {
    let field = |name: &str| value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let port = field("port")?.parse().ok().filter(|port| *port != 0)?;
    Some(Address::new(field("ip").filter(|ip| !ip.is_empty())?, port))
}

impl Sentinel {
    pub(super) fn hear_info(&mut self, id: InstanceId, text: Vec<u8>) {
        let report = parse(&String::from_utf8_lossy(&text));
        let now = self.now;
        let instance = self.at_mut(id);
        instance.info_at = Some(now);
        instance.info = text;
        if let Some(run_id) = report.run_id.clone() {
            self.hear_run_id(id, run_id);
        }
        let is_primary = self.kind(id) == Kind::Primary;
        if is_primary {
            self.hear_replicas(id, &report);
        } else {
            self.hear_replica_fields(id, &report);
        }
        if let Some(role) = report.role {
            self.hear_role(id, role);
        }
        if self.tilt.is_some() {
            return;
        }
        match (is_primary, self.at(id).role) {
            // A primary that says it is a replica is down after a while: see `judge_alone`.
            (true, _) => {}
            (false, Role::Primary) => self.replica_leads(id),
            (false, Role::Replica) => self.replica_follows(id),
        }
    }

    fn hear_run_id(&mut self, id: InstanceId, run_id: String) {
        let now = self.now;
        let instance = self.at_mut(id);
        if instance.run_id == run_id {
            return;
        }
        let restarted = !instance.run_id.is_empty();
        instance.run_id = run_id;
        if restarted {
            if let Some(watch) = &mut self.at_mut(id).watch
                && watch.reboot_down_after > 0
            {
                watch.reboot = Some(now);
            }
            self.event(Level::Notice, "+reboot", id);
        }
    }

    /// The replicas that a primary names.
    fn hear_replicas(&mut self, primary: InstanceId, report: &Report) {
        for address in &report.replicas {
            self.learn_name(&address.host);
            match self.find_replica(primary, address) {
                Some(known) => self.confirm_replica(known),
                None => self.discover_replica(primary, address),
            }
        }
        if report.role == Some(Role::Primary) {
            self.drop_unconfirmed_replicas(primary);
        }
    }

    fn hear_replica_fields(&mut self, id: InstanceId, report: &Report) {
        let now = self.now;
        if let Some(host) = &report.primary_host {
            self.learn_name(host);
        }
        let facts = &mut self.at_mut(id).replica;
        facts.link_down_ms = report.link_down_s.map_or(0, |s| s.saturating_mul(1000));
        if report.role != Some(Role::Replica) {
            return;
        }
        if let (Some(host), Some(port)) = (&report.primary_host, report.primary_port)
            && (!facts.primary_host.eq_ignore_ascii_case(host) || facts.primary_port != port)
        {
            facts.primary_host.clone_from(host);
            facts.primary_port = port;
            facts.primary_since = now;
        }
        if let Some(up) = report.link_up {
            facts.link_up = up;
        }
        if let Some(priority) = report.priority {
            facts.priority = priority;
        }
        if let Some(offset) = report.offset {
            facts.offset = offset;
        }
        if let Some(announced) = report.announced {
            facts.announced = announced;
        }
        facts.deposed = false;
    }

    fn hear_role(&mut self, id: InstanceId, role: Role) {
        let now = self.now;
        let instance = self.at_mut(id);
        if instance.role == role {
            return;
        }
        (instance.role, instance.role_since) = (role, now);
        if role == Role::Replica {
            instance.replica.primary_since = now;
        }
        let expected = (instance.kind == Kind::Primary) == (role == Role::Primary);
        let kind = if expected { "+role-change" } else { "-role-change" };
        self.event_with(Level::Verbose, kind, id, &format!("new reported role is {}", role.word()));
    }

    /// A replica says that it is a primary: ours, when it is the one that we promote.
    fn replica_leads(&mut self, id: InstanceId) {
        let primary = self.at(id).primary;
        let failover = &self.watch(primary).failover;
        if failover.phase != Phase::WaitPromotion || failover.promoted != Some(id) {
            return self.convert_to_replica_if_due(id);
        }
        let epoch = failover.epoch;
        self.watch_mut(primary).config_epoch = epoch;
        self.enter(primary, Phase::ReconfReplicas);
        self.remember();
        self.event(Level::Warning, "+promoted-slave", id);
        if self.simulated.crash_after_promotion {
            self.out.push(Action::Crash);
            return;
        }
        self.event(Level::Warning, "+failover-state-reconf-slaves", primary);
        let (from, to) = (self.at(primary).address.clone(), self.at(id).address.clone());
        self.call_reconfig_script(primary, "leader", &from, &to);
        // Everybody hears of the new configuration at once.
        for member in self.group(primary) {
            self.say_hello(member);
        }
        self.go_on_with_failover(primary);
    }

    /// A replica says that it follows: the one that we promoted, when it was told to.
    fn replica_follows(&mut self, id: InstanceId) {
        let primary = self.at(id).primary;
        let facts = &self.at(id).replica;
        let follows = Address::new(&facts.primary_host, facts.primary_port);
        let (link_up, mut reconf) = (facts.link_up, facts.reconf);
        let Some(promoted) = self.watch(primary).failover.promoted else {
            return self.fix_primary_if_due(id);
        };
        if reconf == Reconf::Sent && self.same(&follows, &self.at(promoted).address) {
            reconf = Reconf::InProgress;
            self.event(Level::Notice, "+slave-reconf-inprog", id);
        }
        if reconf == Reconf::InProgress && link_up {
            reconf = Reconf::Done;
            self.event(Level::Notice, "+slave-reconf-done", id);
        }
        if std::mem::replace(&mut self.at_mut(id).replica.reconf, reconf) != reconf {
            self.go_on_with_failover(primary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_primary_and_of_a_replica() {
        let id = "a".repeat(40);
        let primary = parse(&format!(
            "# Server\r\nrun_id:{id}\r\n# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
             slave0:ip=10.0.0.1,port=6380,state=online,offset=1,lag=0\r\nslave1:ip=::1,port=6381,state=x\r\n\
             slave_expires_tracked_keys:0\r\nslave2:ip=,port=1\r\nslave3:ip=10.0.0.1,port=0\r\n"
        ));
        assert_eq!(primary.run_id, Some(id));
        assert_eq!(primary.role, Some(Role::Primary));
        assert_eq!(primary.replicas, [Address::new("10.0.0.1", 6380), Address::new("::1", 6381)]);
        let replica = parse(
            "role:slave\r\nmaster_host:h\r\nmaster_port:6379\r\nmaster_link_status:down\r\n\
             master_link_down_since_seconds:-1\r\nslave_repl_offset:15\r\nslave_priority:0\r\nreplica_announced:0\r\n",
        );
        let want = Report {
            role: Some(Role::Replica),
            primary_host: Some("h".into()),
            primary_port: Some(6379),
            link_up: Some(false),
            link_down_s: Some(-1),
            priority: Some(0),
            offset: Some(15),
            announced: Some(false),
            ..Report::default()
        };
        assert_eq!(replica, want);
    }
}
