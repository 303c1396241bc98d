//! Opening: create the table in one commit if it is not there, check that it fits, take it over.

use arrow::error::ArrowError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Metadata, MetadataExt, Protocol, StructType};
use deltalake::protocol::SaveMode;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaResult, DeltaTable};
use serde_json::json;
use tracing::warn;

use crate::Error;
use crate::checks::Checks;
use crate::files::Resident;
use crate::lake::Lake;
use crate::maintain::Schedule;
use crate::spec::TableSpec;
use crate::txn::{Held, Kind, Stamp};
use crate::writer::TableWriter;

/// The least writer version that enforces CHECK constraints; readers need nothing beyond version 1.
const WRITER_VERSION_WITH_CHECKS: u8 = 3;

impl TableWriter {
    /// Opens the table of `spec`, created if it is missing, and takes it over for the lake's generation: from then on no
    /// writer of an earlier generation can commit. Call it only once the generation is won. The commit that takes over also
    /// brings the table's properties to the policy.
    ///
    /// After [`Error::Unavailable`], or when the future was dropped, the same call can be made again.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the table holds a later generation, [`Error::StateMismatch`] when it has another schema, lacks a
    /// constraint or belongs to another pipeline, [`Error::Unavailable`] when the retries are used up, [`Error::Bug`] for a
    /// wrong specification.
    pub async fn open_or_create(lake: &Lake, spec: TableSpec) -> Result<Self, Error> {
        spec.validate()?;
        let mut attempt = 1;
        loop {
            match try_open(lake, &spec).await {
                Err(Error::Unavailable { source, .. }) => {
                    let Some(wait) = lake.policy.retry.wait_after(attempt, &source) else {
                        return Err(Error::Unavailable { table: spec.name, attempts: attempt, source });
                    };
                    let wait_ms = wait.as_millis();
                    warn!(table = spec.name, attempt, wait_ms, error = %source, "opening failed, trying again");
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
                settled => return settled,
            }
        }
    }
}

/// One attempt. It never trusts what it wrote: a creation or a fence whose reply was lost is found by the next attempt.
async fn try_open(lake: &Lake, spec: &TableSpec) -> Result<TableWriter, Error> {
    let unavailable = |error| Error::unavailable(&spec.name, 1, error);
    let mut table = lake.location.table(&spec.name)?;
    if table.verify_deltatable_existence().await.map_err(unavailable)? {
        table.load().await.map_err(unavailable)?;
    } else {
        table = create(lake, spec, &table).await.map_err(unavailable)?;
    }
    let state = table.snapshot().map_err(unavailable)?;
    check_fits(spec, state)?;
    let table_id = state.metadata().id().to_owned();
    let held = Held::read(&table, &lake.identity.pipeline).await.map_err(unavailable)?;
    let ours = lake.identity.generation;
    let fence = held.fence.ok_or_else(|| {
        Error::mismatch(&spec.name, format!("it was not created by pipeline {:?}", lake.identity.pipeline))
    })?;
    if fence > ours {
        return Err(Error::Fenced { table: spec.name.clone(), held: fence, ours });
    }
    let schedule = Schedule::at(state.version(), lake.policy.checkpoint_interval_commits);
    let mut writer = TableWriter {
        lake: lake.clone(),
        spec: spec.clone(),
        checks: Checks::compile(&lake.session, spec)?,
        table,
        table_id,
        epoch: held.epoch,
        attempted: None,
        resident: Resident::default(),
        schedule,
    };
    if fence < ours {
        let stamp = Stamp { kind: Kind::Fence, epoch: held.epoch, watermark: None };
        let actions = changed_properties(lake, spec, writer.table.snapshot().map_err(unavailable)?);
        let operation = writer.transaction_only(held.epoch.unwrap_or_default());
        writer.commit(stamp, actions.map_err(unavailable)?, operation, vec![]).await.map_err(unavailable)?;
    }
    Ok(writer)
}

/// Columns, properties, constraints and our fence in the one first commit, so there is no half-made table.
async fn create(lake: &Lake, spec: &TableSpec, empty: &DeltaTable) -> DeltaResult<DeltaTable> {
    let protocol: Protocol =
        serde_json::from_value(json!({ "minReaderVersion": 1, "minWriterVersion": WRITER_VERSION_WITH_CHECKS }))?;
    let stamp = Stamp { kind: Kind::Create, epoch: None, watermark: None };
    empty
        .create()
        .with_table_name(spec.name.rsplit('/').next().unwrap_or(&spec.name))
        .with_comment(&spec.comment)
        .with_columns(kernel_schema(spec)?.fields().cloned())
        .with_actions([Action::Protocol(protocol)])
        .with_configuration(spec.properties(&lake.policy).into_iter().map(|(key, value)| (key, Some(value))))
        // Constraints are no properties that the library knows by name.
        .with_raise_if_key_not_exists(false)
        // Two creations at once: the later one fails and opens what the first one made.
        .with_save_mode(SaveMode::ErrorIfExists)
        .with_commit_properties(lake.identity.commit_properties(stamp, vec![]))
        .await
}

/// The metadata with the properties that the policy asks for now, if the table has others. Properties that we do not set stay.
fn changed_properties(lake: &Lake, spec: &TableSpec, state: &DeltaTableState) -> DeltaResult<Vec<Action>> {
    let stored = state.metadata().configuration();
    let wanted = spec.properties(&lake.policy);
    let changed: Vec<_> = wanted.into_iter().filter(|(key, value)| stored.get(key) != Some(value)).collect();
    if changed.is_empty() {
        return Ok(vec![]);
    }
    let set = |metadata: Metadata, (key, value)| metadata.add_config_key(key, value);
    Ok(vec![Action::Metadata(changed.into_iter().try_fold(state.metadata().clone(), set)?)])
}

/// Whether a stored table is the one that is specified: the same columns in the same order, unpartitioned, with all our
/// constraints.
pub(crate) fn check_fits(spec: &TableSpec, state: &DeltaTableState) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::mismatch(&spec.name, what));
    let (stored, wanted) =
        (state.schema(), kernel_schema(spec).map_err(|error| Error::bug(&spec.name, error.to_string()))?);
    if !stored.fields().eq(wanted.fields()) {
        let list = |schema: &StructType| schema.fields().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return refuse(format!("stored columns are [{}], expected are [{}]", list(&stored), list(&wanted)));
    }
    let metadata = state.metadata();
    if !metadata.partition_columns().is_empty() {
        return refuse("it is partitioned".to_owned());
    }
    let missing = |check: &&crate::Check| metadata.configuration().get(&check.property()) != Some(&check.sql);
    match spec.checks.iter().find(missing) {
        Some(check) => refuse(format!("constraint {} is missing or differs", check.name)),
        None => Ok(()),
    }
}

fn kernel_schema(spec: &TableSpec) -> Result<StructType, ArrowError> {
    spec.schema.as_ref().try_into_kernel()
}
