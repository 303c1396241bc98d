//! Where objects lie in the folder of a pipeline. Numbers are padded, so that names sort as numbers do.

use tidemark_dataflows::event::Epoch;

use crate::records::{Link, Span};

/// Folder of the claims of generations.
pub const GENERATIONS: &str = "generations";
/// Folder of what generations adopted.
pub const ADOPTIONS: &str = "adoptions";
/// Folder of the cuts, with a folder for each generation.
pub const CUTS: &str = "cuts";
/// Folder of the manifests, with a folder for each generation.
pub const MANIFESTS: &str = "manifests";
/// Folder of the runs, with a folder for each generation.
pub const RUNS: &str = "runs";
/// Folder of an output in which its lock lies, and the checkpoint unless that is elsewhere.
pub const IN_OUTPUT: &str = "_tidemark";
/// Folder of events that wait to be fed once more.
pub const INBOX: &str = "inbox";

/// The claim of a generation.
pub fn claim(generation: u64) -> String {
    format!("{GENERATIONS}/{generation:010}")
}

/// What a generation adopted.
pub fn adoption(generation: u64) -> String {
    format!("{ADOPTIONS}/{generation:010}")
}

/// All cuts of a generation.
pub fn cuts_of(generation: u64) -> String {
    format!("{CUTS}/{generation:010}")
}

/// The cuts of a generation from epoch `first` on.
pub fn cuts(generation: u64, first: Epoch) -> String {
    format!("{CUTS}/{generation:010}/{first:020}")
}

/// All manifests of a generation.
pub fn manifests_of(generation: u64) -> String {
    format!("{MANIFESTS}/{generation:010}")
}

/// A manifest by its number in the chain.
pub fn manifest(generation: u64, sequence: u64) -> String {
    format!("{MANIFESTS}/{generation:010}/{sequence:020}")
}

/// The manifest that a link names.
pub fn linked(link: &Link) -> String {
    manifest(link.generation, link.sequence)
}

/// A run, by its number among those of its process and generation, and what it holds.
pub fn run(generation: u64, process: usize, number: u64, content: &str) -> String {
    format!("{RUNS}/{generation:010}/{process:04}-{number:012}-{content}")
}

/// The replay whose first event stands at `first`.
pub fn inbox(first: u64) -> String {
    format!("{INBOX}/{first:020}")
}

/// The number in the last part of a name, as far as it begins with one.
pub fn number(name: &str) -> Option<u64> {
    let last = name.rsplit('/').next()?;
    last.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The generation that an object in a generation's folder belongs to.
pub fn generation(name: &str) -> Option<u64> {
    name.split('/').nth(1)?.parse().ok()
}

/// Whether `epoch` is one of a span.
pub fn holds(span: &Span, epoch: Epoch) -> bool {
    span.first <= epoch && epoch <= span.last
}
