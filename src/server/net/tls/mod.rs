//! TLS: of clients and peers that connect, and towards the nodes that we connect to.
//!
//! | file | concept |
//! |---|---|
//! | `files` | certificates and keys as they lie on the disk |
//! | `suites` | what may be spoken: protocols and ciphers by the names that OpenSSL gives them |
//! | `verify` | whose certificates are believed |
//! | `resume` | sessions that clients may resume |
//! | `context` | all that one configuration makes of these |
//! | `current` | the context in effect: changed by CONFIG SET and when files change; when its certificate expires |
//! | `session` | one connection's session, without its socket |

mod context;
mod current;
mod files;
mod resume;
mod session;
mod suites;
mod verify;

pub use context::{Context, TlsError, is_used};
pub use current::Tls;
pub use session::{Session, Shake};
