//! SortedSet values.

#[derive(Clone, Debug, Default)]
pub struct SortedSet {}
