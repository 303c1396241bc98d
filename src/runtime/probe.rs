//! A look at source and storage without running anything.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemark_checkpoint::store::Patience;

use super::start::known_at_a_look;
use super::{RunError, build};
use crate::config::{Config, Place, SourceKind};
use crate::storage::Storage;

/// What was found outside.
#[derive(Clone, Debug)]
pub struct Found {
    /// Number of partitions of the source.
    pub partitions: usize,
    /// Size of the whole input in bytes, where it is known.
    pub bytes: Option<u64>,
    /// Whether there are tables already.
    pub tables: bool,
}

/// Opens the source, and writes and removes a file below the output. A directory is created if need be.
///
/// # Errors
///
/// What a run would fail with: an input that is missing, or an output that cannot be written.
pub fn probe(config: &Config) -> Result<Found, RunError> {
    let mut source = build::source(config, None, &Arc::default())?;
    if config.source.kind == SourceKind::File {
        source.order(&known_at_a_look(build::stored(config)?.as_ref().map(|(_, past)| past)))?;
    }
    let name = format!(".tidemark-probe-{}", std::process::id());
    let storage = Storage::new(config);
    let output = &config.output.path;
    let tables = match output {
        Place::Local(output) => {
            let unwritable = |error: io::Error| RunError::Output { output: output.display().to_string(), error };
            fs::create_dir_all(output).map_err(unwritable)?;
            let file = output.join(name);
            fs::write(&file, b"probe").map_err(unwritable)?;
            fs::remove_file(&file).map_err(unwritable)?;
            output.join("metrics/net_flow/_delta_log").is_dir()
        }
        Place::Azure(_) => {
            // One attempt: whoever asks wants to know how it is now.
            let patience = Patience { give_up_after: Duration::ZERO, ..build::patience(config, &Arc::default()) };
            let store = storage.folder(output, patience)?;
            store.replace(&name, Bytes::from_static(b"probe"))?;
            store.delete(&[name])?;
            !store.list("metrics/net_flow/_delta_log")?.is_empty()
        }
    };
    Ok(Found { partitions: source.partitions().len(), bytes: source.total_bytes(), tables })
}
