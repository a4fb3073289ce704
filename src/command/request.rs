//! What commands ask of the node: everything that needs more than the data and the client.
//!
//! A handler checks and parses its arguments into one of these; the server fulfils it and writes
//! the reply. So handlers know nothing of sockets, files, threads or other clients.

/// A request to the node.
#[derive(Debug)]
pub enum Request {
    Save,
    BackgroundSave { schedule: bool },
    LastSave,
    Info { sections: Vec<String> },
}
