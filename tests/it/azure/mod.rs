//! Tables and checkpoint in Azure Storage, as far as Azurite is one.

pub(crate) mod azurite;
mod faults;
mod instances;
mod kills;
mod refusals;
mod remote;
mod runs;
