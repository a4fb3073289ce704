//! Stream values.

#[derive(Clone, Debug, Default)]
pub struct Stream {}
