//! Events: published under their own name, logged, and handed to the notification script.

use super::action::{Action, Level};
use super::instance::{Address, InstanceId, Kind};
use super::state::Sentinel;

impl Sentinel {
    /// `<type> <name> <ip> <port>`, and behind `@` the primary that it belongs to.
    pub(super) fn describe(&self, id: InstanceId) -> String {
        let instance = self.at(id);
        let own = format!(
            "{} {} {} {}",
            instance.kind.word(),
            instance.name,
            self.announced(&instance.address.host),
            instance.address.port
        );
        if instance.kind == Kind::Primary {
            return own;
        }
        let primary = self.at(instance.primary);
        format!("{own} @ {} {} {}", primary.name, self.announced(&primary.address.host), primary.address.port)
    }

    /// Something happened to an instance.
    pub(super) fn event(&mut self, level: Level, kind: &str, id: InstanceId) {
        let text = self.describe(id);
        self.tell(level, kind, Some(id), text);
    }

    /// As [`event`](Self::event), with more behind the description.
    pub(super) fn event_with(&mut self, level: Level, kind: &str, id: InstanceId, more: &str) {
        let text = format!("{} {more}", self.describe(id));
        self.tell(level, kind, Some(id), text);
    }

    /// Something happened; `about` names the primary whose script hears of it.
    pub(super) fn tell(&mut self, level: Level, kind: &str, about: Option<InstanceId>, text: String) {
        self.log(level, format!("{kind} {text}"));
        // Details of connections are for the log.
        if level > Level::Debug {
            self.out.push(Action::Publish { channel: kind.to_owned(), payload: text.clone() });
        }
        if level == Level::Warning
            && let Some(id) = about
        {
            let script = self.watch(id).notification_script.clone();
            if !script.is_empty() {
                self.schedule_script(script, vec![kind.to_owned(), text]);
            }
        }
    }

    pub(super) fn log(&mut self, level: Level, text: impl Into<String>) {
        self.out.push(Action::Log { level, text: text.into() });
    }

    /// Tells the client-reconfig script that a primary moves. `role`: leader or observer.
    pub(super) fn call_reconfig_script(
        &mut self,
        primary: InstanceId,
        role: &str,
        from: &Address,
        to: &Address,
    ) {
        let script = self.watch(primary).reconfig_script.clone();
        if script.is_empty() {
            return;
        }
        let name = self.at(primary).name.clone();
        let (from_host, to_host) = (self.announced(&from.host), self.announced(&to.host));
        let arguments = vec![
            name,
            role.to_owned(),
            "start".to_owned(),
            from_host,
            from.port.to_string(),
            to_host,
            to.port.to_string(),
        ];
        self.schedule_script(script, arguments);
    }
}
