//! What shall be so in the end: every sentinel names one server, and the others follow it.

use super::{NAME, World};

impl World {
    /// Whether every sentinel names one server, which is a primary, and every other server follows it.
    pub fn settled(&self) -> Result<usize, String> {
        let connected = (0..self.guards.len()).filter(|i| !self.is_island(*i));
        let named: Vec<_> = connected.map(|i| self.primary_of(i)).collect();
        if named.len() <= self.guards.len() / 2 {
            return Err("most sentinels know no other".into());
        }
        let Some(Some(primary)) = named.first().copied() else { return Err("no sentinel".into()) };
        if named.iter().any(|n| *n != Some(primary)) {
            return Err(format!("sentinels name {named:?}"));
        }
        let ip = &self.servers[primary].ip;
        for (i, server) in self.servers.iter().enumerate() {
            let right =
                if i == primary { server.follows.is_none() } else { server.follows.as_ref() == Some(ip) };
            // An administrator's RESET forgets who is down; nobody can repair what nobody knows.
            if (!right && self.is_known(i)) || !server.alive {
                return Err(format!("server {i} follows {:?}, the primary is {primary}", server.follows));
            }
        }
        Ok(primary)
    }

    pub fn is_known(&self, server: usize) -> bool {
        (0..self.guards.len()).any(|guard| !self.is_island(guard) && self.knows(guard, server))
    }

    /// Whether a sentinel and the others have forgotten one another: RESETs on both sides of a cut do that, and nobody
    /// is left who could bring them together again.
    fn is_island(&self, guard: usize) -> bool {
        let lists = |i: usize, ip: &str| {
            let peers =
                self.guards[i].state.as_ref().and_then(|s| s.sentinel_fields(NAME).ok()).unwrap_or_default();
            peers.iter().flatten().any(|(name, value)| *name == "ip" && value == ip)
        };
        let mut others = (0..self.guards.len()).filter(|i| *i != guard);
        self.guards.len() > 1
            && others.all(|i| !lists(i, &self.guards[guard].ip) && !lists(guard, &self.guards[i].ip))
    }

    /// Whether a sentinel knows a server as a replica, or as the primary.
    fn knows(&self, guard: usize, server: usize) -> bool {
        let Some(state) = &self.guards[guard].state else { return false };
        let listed = |fields: &Vec<(&str, String)>| {
            fields.iter().any(|(n, v)| *n == "ip" && *v == self.servers[server].ip)
        };
        self.primary_of(guard) == Some(server)
            || state.replica_fields(NAME).is_ok_and(|r| r.iter().any(listed))
    }
}
