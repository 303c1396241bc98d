//! Keeping a table's files in order, between publications.

/// When what was done last.
#[derive(Debug, Default)]
pub(crate) struct Schedule {}
