//! Looks for one id in a checkpoint, without restoring it.

use tidemark_checkpoint::Error;
use tidemark_checkpoint::journal::Past;
use tidemark_checkpoint::records::Manifest;
use tidemark_checkpoint::runs::ids;
use tidemark_dataflows::arrangement::Remembered;
use tidemark_dataflows::event::EventId;
use tidemark_store::Store;

/// The newest sound manifest, and what its runs hold of an id, remembered or not; `None` where there is no manifest.
///
/// # Errors
///
/// When the store cannot be read, or a run is of another format version.
pub fn find<'a>(
    store: &Store,
    past: &'a Past,
    id: EventId,
) -> Result<Option<(&'a Manifest, Option<Remembered>)>, Error> {
    for found in &past.manifests {
        match in_manifest(store, &found.manifest, id) {
            Ok(known) => return Ok(Some((&found.manifest, known))),
            Err(Error::Damaged { .. } | Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn in_manifest(store: &Store, manifest: &Manifest, id: EventId) -> Result<Option<Remembered>, Error> {
    let mut known: Option<Remembered> = None;
    for run in &manifest.ids {
        // One at a time: nobody waits for this, and a run may be large.
        let objects = super::restore::read(store, std::slice::from_ref(run))?;
        for object in &objects {
            let decoded = ids::decode(&run.name, object)?;
            // The entry of the greatest bucket counts, and of two in one bucket that of the newer run.
            let entries = decoded.iter().filter(|(entry, _)| *entry == id).map(|(_, entry)| entry);
            known = entries.chain(known).max_by_key(|entry| entry.bucket).or(known);
        }
    }
    Ok(known)
}
