//! Hash values.

#[derive(Clone, Debug, Default)]
pub struct Hash {}
