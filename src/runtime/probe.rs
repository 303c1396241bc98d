//! A look at source and storage without running anything.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemark_store::Patience;

use super::lineage::Found;
use super::run_context::RunContext;
use super::start::known_at_a_look;
use super::{RunError, build};
use crate::config::{Config, Place, SourceKind};
use crate::storage::Storage;

/// What was found outside.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Number of partitions of the source.
    pub partitions: usize,
    /// Size of the whole input in bytes, where it is known.
    pub bytes: Option<u64>,
    /// Whether there are tables already.
    pub tables: bool,
}

/// Looks whether output, tables and checkpoint are of one pipeline; the lineage, if there is one. Nothing is written.
///
/// # Errors
///
/// When they are not, or cannot be read.
pub fn lineage(config: &Config) -> Result<Option<String>, RunError> {
    let found = Found::look(config, &Storage::new(config), &RunContext::default())?;
    found.check_lineage(config)?;
    Ok(found.lineage_text())
}

/// What is written and removed.
const PROBE: &str = ".tidemark-probe";

/// Why such a place cannot be used.
const NO_LINKS: &str = "this file system makes no hard links, which commits need: use one that does, such as ext4 or xfs, or name a \
                        container of Azure Storage by its URL and not by where it is mounted";

/// Opens the source, looks whether output and checkpoint belong together, as a start does, and writes and removes a file below
/// the output. A directory is created if need be.
///
/// # Errors
///
/// What a run would fail with: an input that is missing, or an output that cannot be written.
pub fn probe(config: &Config) -> Result<Seen, RunError> {
    let storage = Storage::new(config);
    let mut source = build::source(config, None, &Arc::default())?;
    let found = Found::compared(config, &storage, &RunContext::default())?;
    if config.source.kind == SourceKind::File {
        source.order(&known_at_a_look(found.past.as_ref()))?;
    }
    let output = &config.output.path;
    match output {
        Place::Local(output) => {
            let unwritable = |error: io::Error| RunError::Output { output: output.display().to_string(), error };
            fs::create_dir_all(output).map_err(unwritable)?;
            let [file, linked] =
                [output.join(PROBE), output.join(PROBE)].map(|place| tidemark_store::unfinished(&place));
            fs::write(&file, b"probe").map_err(unwritable)?;
            // What is written once is given its name by a hard link.
            let made = fs::hard_link(&file, &linked);
            [&linked, &file].into_iter().for_each(|made| drop(fs::remove_file(made)));
            made.map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => unwritable(error),
                _ => unwritable(io::Error::other(format!("{NO_LINKS} ({error})"))),
            })?;
        }
        Place::Azure(_) => {
            // One attempt: whoever asks wants to know how it is now.
            let patience = Patience { give_up_after: Duration::ZERO, ..build::patience(config, &Arc::default()) };
            let store = storage.folder(output, patience)?;
            let name = format!("{PROBE}-{}", std::process::id());
            store.replace(&name, Bytes::from_static(b"probe"))?;
            store.delete(&[name])?;
        }
    }
    let tables = found.has_tables();
    Ok(Seen { partitions: source.partitions().len(), bytes: source.total_bytes(), tables })
}
