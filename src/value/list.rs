//! List values.

#[derive(Clone, Debug, Default)]
pub struct List {}
