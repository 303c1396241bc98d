//! Event Hubs, as far as the local broker is one: exactness, faults, refusals, and clients that are none of ours.

mod exact;
mod faults;
mod live;
mod python;
mod refusals;
pub(crate) mod stream;
mod together;
