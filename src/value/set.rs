//! Set values.

#[derive(Clone, Debug, Default)]
pub struct Set {}
