//! Level 2: configuration as values and text. No file, no clock: text comes in, text goes out.
//!
//! - [`table`] declares every directive once: name, aliases, default, form, kind, meaning.
//! - [`settings`] holds the typed fields that the server reads: `config.port`, `config.maxmemory`.
//! - [`grammar`] splits a line into words, as redis.conf is written.
//! - [`mod@file`] reads configuration text with its includes into a [`Config`].
//! - [`get`], [`set`] and [`rewrite`] are CONFIG GET, SET and REWRITE as functions of values and text.
//! - [`compound`] and [`choice`] are the types of values that are not a number or a text.
//!
//! The server publishes `Arc<Config>`; a change makes a new [`Config`] and publishes that.

pub mod choice;
pub mod compound;
pub mod directive;
pub mod file;
pub mod get;
pub mod grammar;
pub mod rewrite;
pub mod set;
pub mod settings;
pub mod table;

use std::ops::{Deref, DerefMut};

pub use directive::{Directive, Meaning};
pub use file::{FileError, Line, Loaded};
pub use settings::Settings;

/// A complete configuration: every directive has its default or what was read or set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(Settings);

impl Default for Config {
    /// The built-in defaults: those of the table.
    fn default() -> Self {
        let mut settings = Settings::default();
        for row in table::DIRECTIVES {
            let words: Vec<&[u8]> = match row.default {
                "" if row.takes_several() => vec![],
                text if row.takes_several() => text.split(' ').map(str::as_bytes).collect(),
                text => vec![text.as_bytes()],
            };
            if !words.is_empty() {
                row.read(&mut settings, &words, true).expect("a default of the table is valid");
            }
        }
        Self(settings)
    }
}

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.0
    }
}

impl DerefMut for Config {
    fn deref_mut(&mut self) -> &mut Settings {
        &mut self.0
    }
}

impl Config {
    /// The port that people are shown: the plain one, if there is one.
    pub fn shown_port(&self) -> u16 {
        if self.port == 0 { self.tls_port } else { self.port }
    }

    /// The directives that differ from their default although they do nothing here, to be named
    /// once in the log at the start.
    pub fn unheeded(&self) -> Vec<&'static Directive> {
        let default = Self::default();
        table::DIRECTIVES
            .iter()
            .filter(|row| row.meaning != Meaning::Here && row.show(self) != row.show(&default))
            .collect()
    }
}
