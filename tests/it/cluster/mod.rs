//! Several processes as one pipeline: the same tables as one process, whatever is lost on the way.

pub(crate) mod crew;
mod exact;
mod joining;
mod losses;
mod network;
mod supervisor;
mod wire;
