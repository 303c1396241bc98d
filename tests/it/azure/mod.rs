//! Tables and checkpoint in Azure Storage, as far as Azurite is one.

mod azurite;
mod faults;
mod instances;
mod kills;
mod refusals;
mod remote;
mod runs;
