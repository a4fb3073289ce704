//! Users written back as rules: ACL LIST, ACL GETUSER, files.

use super::selector::{Access, READ, Selector, WRITE};
use super::user::User;

impl User {
    /// The words that stand for flags, in Redis's order.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.nopass {
            flags.push("nopass");
        }
        flags.push(if self.sanitizes { "sanitize-payload" } else { "skip-sanitize-payload" });
        flags
    }

    /// Rules from which the same user comes again, behind its name.
    pub fn rules(&self) -> Vec<u8> {
        let mut text = self.flags().join(" ").into_bytes();
        for (hash, ()) in self.passwords.iter() {
            text.extend_from_slice(format!(" #{hash}").as_bytes());
        }
        text.push(b' ');
        text.extend(self.root.rules());
        for selector in &self.selectors {
            text.extend_from_slice(b" (");
            text.extend(selector.rules());
            text.push(b')');
        }
        text
    }

    /// Its name and its rules.
    pub fn declaration(&self) -> Vec<u8> {
        [self.name.as_bytes(), b" ", &self.rules()].concat()
    }

    /// A line of ACL LIST, or of a file.
    pub fn line(&self) -> Vec<u8> {
        [b"user ".as_slice(), &self.declaration()].concat()
    }
}

impl Selector {
    fn rules(&self) -> Vec<u8> {
        let keys = self.keys_text();
        let channels = match (self.has_all_channels(), self.channels_text()) {
            (true, _) => b"&*".to_vec(),
            (false, patterns) if patterns.is_empty() => b"resetchannels".to_vec(),
            (false, patterns) => [b"resetchannels ", patterns.as_slice()].concat(),
        };
        let parts = [keys, channels, self.commands.text().into_bytes()];
        parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(&b' ')
    }

    /// The patterns of keys as rules.
    pub fn keys_text(&self) -> Vec<u8> {
        if self.has_all_keys() {
            return b"~*".to_vec();
        }
        let rule = |(pattern, access): (&[u8], Access)| [sign(access).as_bytes(), pattern].concat();
        self.keys().map(rule).collect::<Vec<_>>().join(&b' ')
    }

    /// The patterns of channels as rules.
    pub fn channels_text(&self) -> Vec<u8> {
        if self.has_all_channels() {
            return b"&*".to_vec();
        }
        self.channels().map(|pattern| [b"&", pattern].concat()).collect::<Vec<_>>().join(&b' ')
    }
}

fn sign(access: Access) -> &'static str {
    match access {
        READ => "%R~",
        WRITE => "%W~",
        _ => "~",
    }
}
