//! Pipelines of before, whose watermark did not wait for partitions that are behind.
//!
//! A live one goes on: what was cut is judged by the rule of then, and what comes by that of now. Files were cut by another
//! rule as well, one share of each in every epoch, so that a run over them cannot be gone on with half-way.

use std::time::Duration;

use tidemark_checkpoint::inbox;
use tidemark_checkpoint::journal::Past;
use tidemark_checkpoint::records::Position;
use tidemark_dataflows::event::{Offset, PartitionId, Position as At};

use super::start::{known, known_partitions};
use super::{RunError, clock, peers};
use crate::source::{Source, SourceError, Standing};

/// Time between two looks at a file that is being read.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether the newest epoch was cut by the older rule.
pub(super) fn has_cut(past: &Past) -> bool {
    match (past.cuts.get(&past.last_cut), past.manifests.first()) {
        (Some(cut), _) => cut.behind.is_none(),
        (None, Some(newest)) => newest.manifest.event_times.is_none(),
        (None, None) => false,
    }
}

/// Refuses files of which the older rule has read some and not all, before anything is written: the version that began
/// them can still finish them. `source` is one of its own, and reads every file.
///
/// # Errors
///
/// When a file has more, has changed or cannot be read.
pub(super) fn check_that_files_have_ended(mut source: Box<dyn Source>, past: Option<&Past>) -> Result<(), RunError> {
    let Some(past) = past else { return Ok(()) };
    let manifest = past.manifests.first().map(|found| &found.manifest);
    let replay = past.cuts_after(manifest.map_or(0, |manifest| manifest.epoch))?;
    let mut before = peers::at_end(&known_partitions(&past.identity, manifest, &replay), &replay, true);
    before.retain(|at| at.partition != inbox::PARTITION);
    source.order(&known(&before, &replay))?;
    for (number, at) in (0..).zip(&before).filter(|(_, at)| at.next > 0) {
        let digest = at.digest.as_ref().and_then(|digest| digest.parse().ok());
        source.resume(At { partition: PartitionId(number), offset: Offset(at.next) }, digest)?;
    }
    for (number, at) in (0..).zip(&before) {
        let partition = PartitionId(number);
        // To look at a stream takes away what it holds.
        let streams = source.partitions().get(number as usize).is_some_and(|info| info.bytes.is_none());
        if streams || is_behind(source.as_mut(), partition, at)? {
            let problem = "an earlier version of this program has read it half-way, and not in the order of event time, which \
                           now decides what is late";
            let remedy = "finish it with that version, or read the files as a new pipeline with another --output";
            return Err(SourceError::changed(at.partition.clone(), problem, remedy).into());
        }
    }
    Ok(())
}

fn is_behind(source: &mut dyn Source, partition: PartitionId, at: &Position) -> Result<bool, RunError> {
    loop {
        match source.standing(partition, Offset(at.next), clock::now())? {
            Some(standing) => return Ok(standing != Standing::CaughtUp),
            None => std::thread::park_timeout(PAUSE),
        }
    }
}
