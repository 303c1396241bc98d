//! Opening: create the table in one commit if it is not there, check that it fits, take it over.

use arrow::error::ArrowError;
use deltalake::DeltaTableError;
use deltalake::{DeltaResult, DeltaTable};
use serde_json::{Value, json};
use tracing::warn;
use uuid::Uuid;

use crate::files::Resident;
use crate::fits::{Terms, kernel_schema};
use crate::foreign::ForeignChanges;
use crate::lake::{Identity, Lake, Sound};
use crate::log::{self, Changes, Log, Operation, now_ms};
use crate::maintain::Schedule;
use crate::spec::TableSpec;
use crate::txn::{Held, Kind, Stamp};
use crate::writer::TableWriter;
use crate::{Error, cause, read};

/// The least writer version that enforces CHECK constraints; readers need nothing beyond version 1.
const WRITER_VERSION_WITH_CHECKS: u8 = 3;

impl TableWriter {
    /// Opens the table of `spec`, created if it is missing, and takes it over for the lake's generation: from then on no
    /// writer of an earlier generation can commit. Call it only once the generation is won. The commit that takes over also
    /// brings the table's properties to the policy.
    ///
    /// After [`Error::Unavailable`], or when the future was dropped, the same call can be made again: it never trusts what it
    /// wrote, and finds a creation or a fence whose reply was lost.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the table holds a later generation, [`Error::StateMismatch`] when it has another schema, lacks a
    /// constraint, is damaged or belongs to another pipeline, [`Error::Unavailable`] when storage fails, [`Error::Bug`] for a
    /// wrong specification.
    pub async fn open_or_create(lake: &Lake, spec: TableSpec) -> Result<Self, Error> {
        spec.validate()?;
        loop {
            match try_open(lake, &spec).await {
                // Another writer was faster: no failure of storage, and nothing to wait for.
                Err(Error::Unavailable { source, .. })
                    if matches!(*source, DeltaTableError::VersionAlreadyExists(_)) => {}
                Err(Error::Unavailable { source, .. }) => return Err(Error::failed(&spec.name, *source)),
                settled => return settled,
            }
        }
    }
}

async fn try_open(lake: &Lake, spec: &TableSpec) -> Result<TableWriter, Error> {
    let unavailable = |error| Error::unavailable(&spec.name, error);
    let asked = Log::now();
    let table = lake.location.table(&spec.name)?;
    if !table.verify_deltatable_existence().await.map_err(unavailable)? {
        create(lake, spec, &table).await.map_err(unavailable)?;
    }
    let Sound { table, passed_over, damage, checkpoint } = lake.location.load_sound(&spec.name, table).await?;
    let mut log = Log::of(&table, asked, lake, &spec.name).map_err(unavailable)?;
    log.checkpoint = checkpoint;
    let held = Held::read(&table, &lake.identity.pipeline).await;
    let held = held.map_err(|failure| Error::damaged(&spec.name, damage.as_ref(), failure))?;
    let ours = lake.identity.generation;
    let fence = held.fence.ok_or_else(|| {
        Error::mismatch(&spec.name, format!("it was not created by pipeline {:?}", lake.identity.pipeline))
    })?;
    // Somebody may have made it since it was compared.
    let lineage = lineage(&log.metadata);
    if lineage.is_some_and(|lineage| lineage != lake.identity.lineage) {
        return Err(Error::mismatch(&spec.name, "it belongs to another pipeline of the same name"));
    }
    if fence > ours {
        return Err(Error::Fenced { table: spec.name.clone(), held: fence, ours });
    }
    let terms = Terms::of(spec, &log)?;
    if let Some(what) = damage {
        return Err(Error::mismatch(&spec.name, what));
    }
    let met = read::foreign(&lake.location, &spec.name, &table, &lake.identity.pipeline, spec.shape.epoch());
    let (found, foreign) = met.await.map_err(unavailable)?;
    if !lake.policy.accept_changes {
        lake.refuse_foreign(&spec.name, &spec.shape, foreign.as_ref())?;
    }
    log.foreign = foreign;
    let mut writer = TableWriter {
        lake: lake.clone(),
        spec: spec.clone(),
        terms,
        schedule: Schedule::at(log.version, lake.policy.checkpoint_interval_commits),
        log,
        epoch: held.epoch,
        attempted: None,
        resident: Resident::default(),
    };
    let accepted = writer.log.foreign.take_if(|_| lake.policy.accept_changes);
    if fence < ours {
        let stamp = Stamp { kind: Kind::Fence, epoch: held.epoch, watermark: None };
        let metadata = changed_metadata(lake, spec, &writer.log.metadata, accepted.as_ref()).map_err(unavailable)?;
        let operation = Operation::transaction_only(&lake.identity.pipeline, held.epoch.unwrap_or_default());
        let changes = Changes { metadata, ..Changes::default() };
        writer.commit(stamp, operation, changes).await.map_err(unavailable)?;
    }
    // Once it is carried along: an opening that is repeated tells nothing twice.
    match &accepted {
        Some(accepted) => warn!(table = spec.name, version = accepted.version, "accepted: {accepted}"),
        None => found.report(&spec.name, &spec.shape, lake.policy.foreign_changes, writer.log.foreign.as_ref()),
    }
    // Others cannot read the table before there is a log checkpoint that can be read.
    if !passed_over.is_empty()
        && let Err(error) = writer.write_log_checkpoint(&passed_over).await
    {
        warn!(table = spec.name, %error, "the damaged log checkpoint is still there");
    }
    Ok(writer)
}

/// The lineage that a table's properties name; none in tables of before.
pub(crate) fn lineage(metadata: &Value) -> Option<u64> {
    u64::from_str_radix(metadata["configuration"][Identity::LINEAGE].as_str()?, 16).ok()
}

/// What it means that a log cannot be read: a table of a protocol that the library does not know is no failure of storage.
pub(crate) fn unreadable(table: &str, failure: DeltaTableError) -> Error {
    let text = failure.to_string();
    let words = ["nsupported", "not supported", "Invalid protocol", "reader version", "writer version"];
    if !cause::is_of_storage(&failure) && words.iter().any(|word| text.contains(word)) {
        let undo = "somebody has changed its protocol: drop the feature, or RESTORE the table to a version before";
        return Error::mismatch(table, format!("{undo} ({text})"));
    }
    Error::unavailable(table, failure)
}

/// Columns, properties, constraints and our fence in the one first commit, so there is no half-made table. Of two creations
/// at once the later one finds what the first one made.
async fn create(lake: &Lake, spec: &TableSpec, table: &DeltaTable) -> DeltaResult<()> {
    let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": WRITER_VERSION_WITH_CHECKS });
    let metadata = json!({
        "id": Uuid::new_v4(),
        "name": spec.name.rsplit('/').next().unwrap_or(&spec.name),
        "description": spec.comment,
        "format": { "provider": "parquet", "options": {} },
        "schemaString": serde_json::to_string(&kernel_schema(spec)?)?,
        "partitionColumns": [],
        "createdTime": now_ms(),
        "configuration": properties(lake, spec).collect::<serde_json::Map<_, _>>(),
    });
    let stamp = Stamp { kind: Kind::Create, epoch: None, watermark: None };
    match log::create(&table.log_store(), &lake.identity, stamp, protocol, metadata).await {
        Err(DeltaTableError::VersionAlreadyExists(0)) => Ok(()),
        made => made,
    }
}

/// Properties, constraints and the lineage included.
fn properties(lake: &Lake, spec: &TableSpec) -> impl Iterator<Item = (String, Value)> {
    let lineage = (Identity::LINEAGE.to_owned(), Identity::lineage_text(lake.identity.lineage).into());
    spec.properties(&lake.policy).into_iter().chain([lineage])
}

/// The metadata with the properties that the policy asks for now, and comments on columns that have none, if the table has
/// others, and with what is accepted from now on. Properties that we do not set stay, and so do comments of somebody else.
fn changed_metadata(
    lake: &Lake,
    spec: &TableSpec,
    stored: &Value,
    accepted: Option<&ForeignChanges>,
) -> Result<Option<Value>, DeltaTableError> {
    let mut metadata = stored.clone();
    if let Some(accepted) = accepted {
        let all = ForeignChanges::accepted_in(stored).into_iter().chain([accepted.clone()]).collect::<Vec<_>>();
        metadata["configuration"][ForeignChanges::ACCEPTED] = serde_json::to_string(&all)?.into();
    }
    for (key, value) in properties(lake, spec) {
        metadata["configuration"][key] = value;
    }
    let mut schema: Value = serde_json::from_str(stored["schemaString"].as_str().unwrap_or_default())?;
    let ours = serde_json::to_value(kernel_schema(spec).map_err(|error: ArrowError| DeltaTableError::from(error))?)?;
    let before = schema.clone();
    for (index, field) in ours["fields"].as_array().into_iter().flatten().enumerate() {
        let (comment, stored) = (&field["metadata"]["comment"], &mut schema["fields"][index]["metadata"]);
        if stored["comment"].is_null() && !comment.is_null() {
            stored["comment"] = comment.clone();
        }
    }
    if schema != before {
        metadata["schemaString"] = schema.to_string().into();
    }
    Ok((metadata != *stored).then_some(metadata))
}
