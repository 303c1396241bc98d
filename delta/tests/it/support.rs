//! Tables, rows and ways to read them back without the code under test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, TimeUnit};
use deltalake::DeltaTableBuilder;
use deltalake::datafusion::prelude::SessionContext;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;
use tidemark_delta::{Check, Identity, Lake, Location, Policy, Retry, Shape, TableSpec, TableWriter};

use crate::store::Judged;

pub(crate) const PIPELINE: &str = "p";
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn policy() -> Policy {
    let retry = Retry { attempts: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(2) };
    Policy { retry, ..Policy::default() }
}

pub(crate) fn lake(dir: &TempDir, generation: i64) -> Lake {
    lake_with(dir, generation, policy())
}

pub(crate) fn lake_with(dir: &TempDir, generation: i64, policy: Policy) -> Lake {
    let location = Location::parse(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    Lake::new(location, Identity { pipeline: PIPELINE.to_owned(), generation }, policy).unwrap()
}

/// A lake on a store that the test judges, where the log gets a checkpoint after two commits.
pub(crate) fn judged_lake(dir: &TempDir, generation: i64, store: &Judged) -> Lake {
    judged_lake_with(dir, generation, store, Policy { checkpoint_interval_commits: 2, ..policy() })
}

pub(crate) fn judged_lake_with(dir: &TempDir, generation: i64, store: &Judged, policy: Policy) -> Lake {
    let plain = lake(dir, generation);
    let location = plain.location().clone().with_store(Arc::new(store.clone()));
    Lake::new(location, plain.identity().clone(), policy).unwrap()
}

pub(crate) fn location(dir: &TempDir) -> Location {
    lake(dir, 1).location().clone()
}

pub(crate) fn keyed() -> TableSpec {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    TableSpec {
        name: "metrics/users".to_owned(),
        comment: "Totals by user".to_owned(),
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("total", DataType::Decimal128(38, 2), false),
            Field::new("count", DataType::Int64, false),
            Field::new("updated_at", time, false),
        ])),
        shape: Shape::Keyed { key: vec!["id".to_owned()] },
        checks: vec![Check { name: "count_not_negative".to_owned(), sql: "count >= 0".to_owned() }],
    }
}

pub(crate) fn appended() -> TableSpec {
    TableSpec {
        name: "monitoring/rejected".to_owned(),
        comment: "Rejected events".to_owned(),
        schema: Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, false),
            Field::new("position", DataType::Int64, false),
            Field::new("detail", DataType::Utf8, true),
        ])),
        shape: Shape::Append { epoch: "epoch".to_owned() },
        checks: vec![],
    }
}

/// As [`appended`], with a column `count`.
pub(crate) fn appended_with_count() -> TableSpec {
    let mut fields: Vec<Field> = appended().schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("count", DataType::Int64, false));
    TableSpec { schema: Arc::new(Schema::new(fields)), ..appended() }
}

/// One row of [`keyed`] or [`appended_with_count`].
pub(crate) fn counted(spec: &TableSpec, count: i64) -> RecordBatch {
    if matches!(spec.shape, Shape::Keyed { .. }) {
        return users(&[("a", 1, count)]);
    }
    let mut columns = rejected([(1, 0)]).columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![count])));
    RecordBatch::try_new(spec.schema.clone(), columns).unwrap()
}

/// Rows of [`keyed`]: id, pence, count.
pub(crate) fn users(rows: &[(&str, i128, i64)]) -> RecordBatch {
    let pence = Decimal128Array::from_iter_values(rows.iter().map(|row| row.1));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.2)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(pence.with_precision_and_scale(38, 2).unwrap()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(times),
    ];
    RecordBatch::try_new(keyed().schema, columns).unwrap()
}

/// Rows of [`appended`]: epoch, position.
pub(crate) fn rejected(rows: impl IntoIterator<Item = (i64, i64)>) -> RecordBatch {
    rejected_with(rows.into_iter().map(|(epoch, position)| (epoch, position, None)))
}

/// Rows of [`appended`]: epoch, position, detail.
pub(crate) fn rejected_with(rows: impl IntoIterator<Item = (i64, i64, Option<String>)>) -> RecordBatch {
    let rows: Vec<_> = rows.into_iter().collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(rows.iter().map(|row| row.2.as_deref()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(appended().schema, columns).unwrap()
}

pub(crate) async fn open(dir: &TempDir, generation: i64, spec: TableSpec) -> TableWriter {
    TableWriter::open_or_create(&lake(dir, generation), spec).await.unwrap()
}

pub(crate) fn path(dir: &TempDir, spec: &TableSpec) -> PathBuf {
    dir.path().join(&spec.name)
}

/// The table as any reader sees it, at a version or the newest.
pub(crate) async fn load(dir: &TempDir, spec: &TableSpec, version: Option<u64>) -> deltalake::DeltaTable {
    let url = url::Url::from_directory_path(path(dir, spec)).unwrap();
    let mut builder = DeltaTableBuilder::from_url(url).unwrap();
    if let Some(version) = version {
        builder = builder.with_version(version);
    }
    builder.load().await.unwrap()
}

async fn query(dir: &TempDir, spec: &TableSpec, sql: &str) -> Vec<RecordBatch> {
    let session: SessionContext = deltalake::delta_datafusion::create_session().into_inner();
    let table = load(dir, spec, None).await;
    session.register_table("t", table.table_provider().await.unwrap()).unwrap();
    session.sql(sql).await.unwrap().collect().await.unwrap()
}

/// The one row of a query, all of it `Int64`.
pub(crate) async fn numbers(dir: &TempDir, spec: &TableSpec, sql: &str) -> Vec<i64> {
    let batches = query(dir, spec, sql).await;
    batches[0].columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
}

/// What the live files of a table hold, read without a query: most tests read often.
async fn batches(dir: &TempDir, spec: &TableSpec, version: Option<u64>) -> Vec<RecordBatch> {
    let table = load(dir, spec, version).await;
    let files: Vec<_> = table.snapshot().unwrap().log_data().iter().map(|file| file.path().into_owned()).collect();
    let read = |file: String| {
        let file = std::fs::File::open(path(dir, spec).join(file)).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap()
    };
    let typed = |batch: RecordBatch| {
        let fields = spec.schema.fields().iter();
        let cast = |field: &FieldRef| cast(batch.column_by_name(field.name()).unwrap(), field.data_type()).unwrap();
        RecordBatch::try_new(spec.schema.clone(), fields.map(cast).collect()).unwrap()
    };
    files.into_iter().flat_map(read).map(|batch| typed(batch.unwrap())).collect()
}

/// Rows of a keyed table, by id.
pub(crate) async fn read_users(dir: &TempDir, version: Option<u64>) -> Vec<(String, i128, i64)> {
    let mut rows = Vec::new();
    for batch in batches(dir, &keyed(), version).await {
        let ids = batch.column(0).as_string::<i32>();
        let totals = batch.column(1).as_primitive::<arrow::datatypes::Decimal128Type>();
        let counts = batch.column(2).as_primitive::<Int64Type>();
        rows.extend((0..batch.num_rows()).map(|i| (ids.value(i).to_owned(), totals.value(i), counts.value(i))));
    }
    rows.sort();
    rows
}

/// Rows of an append table in the order of epoch and position.
pub(crate) async fn read_rejected(dir: &TempDir, version: Option<u64>) -> Vec<(i64, i64)> {
    let mut rows = Vec::new();
    for batch in batches(dir, &appended(), version).await {
        let (epochs, positions) =
            (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
        rows.extend((0..batch.num_rows()).map(|i| (epochs.value(i), positions.value(i))));
    }
    rows.sort_unstable();
    rows
}

/// The actions of one commit.
pub(crate) fn actions(table: &Path, version: u64) -> Vec<Value> {
    let text = std::fs::read_to_string(table.join(format!("_delta_log/{version:020}.json"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn commit_info(table: &Path, version: u64) -> Value {
    actions(table, version).iter().find_map(|action| action.get("commitInfo").cloned()).unwrap()
}

/// The transactions that a commit carries, by application.
pub(crate) fn transactions(table: &Path, version: u64) -> HashMap<String, i64> {
    let txns = actions(table, version);
    let txns = txns.iter().filter_map(|action| action.get("txn"));
    txns.map(|txn| (txn["appId"].as_str().unwrap().to_owned(), txn["version"].as_i64().unwrap())).collect()
}

pub(crate) fn files(table: &Path, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.ends_with(extension)).collect()
}
