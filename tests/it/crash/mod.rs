//! Attacks on the promise that nothing is counted twice or lost: the program is killed at every place that matters and
//! at random instants, stopped, displaced and woken, and started on what does not belong to it.

mod additive;
mod damage;
pub(crate) mod job;
mod lineage;
mod order;
mod points;
mod random;
mod restart;
pub(crate) mod storm;
pub(crate) mod watch;
mod zombies;
