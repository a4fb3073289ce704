//! `__sentinel__:hello`: how sentinels find one another, and how the newest configuration spreads.
//!
//! `ip,port,runid,current_epoch,master_name,master_ip,master_port,master_config_epoch`

use super::action::Level;
use super::instance::{Address, InstanceId, Kind, Question};
use super::links::HELLO_CHANNEL;
use super::state::Sentinel;

struct Hello<'a> {
    address: Address,
    run_id: &'a str,
    current_epoch: u64,
    name: &'a str,
    primary: Address,
    config_epoch: u64,
}

fn parse(text: &str) -> Option<Hello<'_>> {
    let words: Vec<&str> = text.split(',').collect();
    let [ip, port, run_id, current_epoch, name, primary_ip, primary_port, config_epoch] = words[..] else {
        return None;
    };
    let is_id = run_id.len() == 40 && run_id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then_some(())?;
    Some(Hello {
        address: Address::new(ip, port.parse().ok()?),
        run_id,
        current_epoch: current_epoch.parse().ok()?,
        name,
        primary: Address::new(primary_ip, primary_port.parse().ok()?),
        config_epoch: config_epoch.parse().ok()?,
    })
}

impl Sentinel {
    /// Tells of ourselves over the link of an instance.
    pub(super) fn say_hello(&mut self, id: InstanceId) {
        let ip = match &self.settings.announce_ip {
            ip if !ip.is_empty() => ip.clone(),
            _ => self.link(id).local_ip.clone(),
        };
        if ip.is_empty() {
            return;
        }
        let port = match self.settings.announce_port {
            0 => self.settings.own_port,
            port => port,
        };
        let primary = self.at(id).primary;
        let address = self.current_address(primary);
        let text = format!(
            "{ip},{port},{},{},{},{},{},{}",
            self.my_id,
            self.current_epoch,
            self.at(primary).name,
            self.announced(&address.host),
            address.port,
            self.watch(primary).config_epoch
        );
        if self.send(id, Question::Hello, &["PUBLISH", HELLO_CHANNEL, &text]) {
            self.at_mut(id).hello_sent = self.now;
        }
    }

    /// A hello, over a subscription or sent to us by its author.
    pub fn hear_hello(&mut self, text: &str) {
        let Some(hello) = parse(text) else { return };
        if hello.run_id == self.my_id {
            return;
        }
        let Some(&primary) = self.primaries.get(hello.name) else { return };
        self.learn_name(&hello.address.host);
        self.learn_name(&hello.primary.host);
        let peer = self.hear_of_sentinel(primary, hello.run_id, &hello.address);
        self.raise_epoch(primary, hello.current_epoch);
        if let Some(peer) = peer {
            self.at_mut(peer).peer.hello = self.now;
            let newer = hello.config_epoch > self.watch(primary).config_epoch;
            if newer && self.can_be_reached(&hello.primary) {
                self.hear_newer_config(primary, peer, &hello);
            }
        }
    }

    /// Another sentinel knows a newer configuration of the primary: follow it.
    fn hear_newer_config(&mut self, primary: InstanceId, peer: InstanceId, hello: &Hello<'_>) {
        self.watch_mut(primary).config_epoch = hello.config_epoch;
        self.remember();
        // A failover of our own that is older counts no more, also if it has not moved all replicas yet.
        let old = self.current_address(primary);
        if self.same(&old, &hello.primary) {
            return;
        }
        self.event(Level::Warning, "+config-update-from", peer);
        self.tell_switch(primary, &old, &hello.primary);
        self.call_reconfig_script(primary, "observer", &old, &hello.primary);
        self.switch_to(primary, hello.primary.clone());
    }

    fn can_be_reached(&self, address: &Address) -> bool {
        address.port != 0 && self.accepts_host(&address.host)
    }

    /// The sentinel of a hello; `None` while its address cannot be used.
    fn hear_of_sentinel(
        &mut self,
        primary: InstanceId,
        run_id: &str,
        address: &Address,
    ) -> Option<InstanceId> {
        // One that is known and says nonsense stays where it was.
        if !self.can_be_reached(address) {
            return None;
        }
        let known = self.watch(primary).sentinels.get(run_id).copied();
        if let Some(id) = known {
            if self.same(&self.at(id).address, address) {
                self.confirm_sentinel(id);
                return Some(id);
            }
            self.move_sentinel(run_id, address);
            self.confirm_sentinel(id);
            let more = format!("ip {} port {} for {run_id}", self.announced(&address.host), address.port);
            self.event_with(Level::Notice, "+sentinel-address-switch", primary, &more);
            return Some(id);
        }
        // Whoever had this address is somewhere else now, or gone.
        let usurped: Vec<_> =
            self.peers(primary).into_iter().filter(|id| self.same(&self.at(*id).address, address)).collect();
        for id in usurped {
            self.event(Level::Notice, "+sentinel-invalid-addr", id);
            let run_id = self.at(id).name.clone();
            let nowhere = Address::new(&address.host, 0);
            self.move_sentinel(&run_id, &nowhere);
        }
        let id = self.add_sentinel(primary, run_id, address.clone());
        self.event(Level::Notice, "+sentinel", id);
        self.remember();
        // It hears of us at once, too.
        Some(id)
    }

    /// A sentinel has another address, for all primaries that it watches.
    fn move_sentinel(&mut self, run_id: &str, address: &Address) {
        let all: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, i)| i.kind == Kind::Sentinel && i.name == run_id)
            .map(|(id, _)| *id)
            .collect();
        for id in all {
            self.readdress(id, address.clone());
        }
        self.remember();
    }
}
