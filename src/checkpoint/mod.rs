//! Makes the pipeline durable: cuts before they have effects, checkpoints of what follows from them, and the way back.
//!
//! What the objects are and in which order they may appear is the business of `tidemark-checkpoint`. Here are the
//! threads that write them and the operators that hold the frontier back until they are written. What is left out: when
//! to cut and when to take a checkpoint, which the leader decides.

pub mod cuts;
pub mod operators;
pub mod remembered;
pub mod restore;
pub mod writer;
