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
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemark_delta::{Check, Identity, Lake, Location, Policy, Shape, TableSpec, TableWriter};

use crate::store::Judged;

pub(crate) const PIPELINE: &str = "p";
pub(crate) const LINEAGE: u64 = 0x71de;
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn policy() -> Policy {
    Policy::default()
}

pub(crate) fn lake(dir: &TempDir, generation: i64) -> Lake {
    lake_with(dir, generation, policy())
}

pub(crate) fn lake_with(dir: &TempDir, generation: i64, policy: Policy) -> Lake {
    let location = Location::parse(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    Lake::new(location, Identity { pipeline: PIPELINE.to_owned(), generation, lineage: LINEAGE }, policy).unwrap()
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
        bounded: vec![],
        checks: vec![Check { name: "count_not_negative".to_owned(), sql: "count >= 0".to_owned() }],
        expiry: None,
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
        bounded: vec![],
        checks: vec![],
        expiry: None,
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

/// What the live files of a table hold, read without the code under test.
pub(crate) async fn batches(dir: &TempDir, spec: &TableSpec, version: Option<u64>) -> Vec<RecordBatch> {
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

/// How many rows a table has, and the sum of one of its columns.
pub(crate) async fn rows_and_sum(dir: &TempDir, spec: &TableSpec, column: &str) -> [i64; 2] {
    let mut found = [0, 0];
    for batch in batches(dir, spec, None).await {
        found[0] += i64::try_from(batch.num_rows()).unwrap();
        let numbers = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
        found[1] += arrow::compute::sum(numbers).unwrap_or(0);
    }
    found
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

/// What a commit says of itself.
pub(crate) fn told(table: &Path, version: u64) -> Value {
    serde_json::from_str(commit_info(table, version)["userMetadata"].as_str().unwrap()).unwrap()
}

/// A commit by somebody else: the next version holds these actions. Returns the version.
pub(crate) fn foreign(dir: &TempDir, spec: &TableSpec, operation: &str, actions: &[Value]) -> u64 {
    let log = path(dir, spec).join("_delta_log");
    let version = files(&log, ".json").len() as u64;
    // Spark writes the numbers of its metrics as texts.
    let info = json!({ "commitInfo": { "timestamp": 0, "operation": operation, "engineInfo": "Somebody/1",
        "operationMetrics": { "numOutputRows": "1" } } });
    let lines: Vec<String> = [&info].into_iter().chain(actions).map(Value::to_string).collect();
    let mut file = std::fs::File::create_new(log.join(format!("{version:020}.json"))).unwrap();
    std::io::Write::write_all(&mut file, lines.join("\n").as_bytes()).unwrap();
    version
}

/// A file of somebody else, and the action that adds it. In such files every column may be null.
pub(crate) fn foreign_file(dir: &TempDir, spec: &TableSpec, rows: &RecordBatch, data_change: bool) -> Value {
    let nullable =
        rows.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(nullable)), rows.columns().to_vec()).unwrap();
    let name = format!("foreign-{}.parquet", files(&path(dir, spec), ".parquet").len());
    let file = std::fs::File::create_new(path(dir, spec).join(&name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let size = std::fs::metadata(path(dir, spec).join(&name)).unwrap().len();
    json!({ "add": { "path": name, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": data_change } })
}

/// The actions that remove all live files.
pub(crate) async fn removals(dir: &TempDir, spec: &TableSpec, data_change: bool) -> Vec<Value> {
    let table = load(dir, spec, None).await;
    let live = table.snapshot().unwrap().log_data();
    let removed = live.iter().map(|file| {
        json!({ "remove": { "path": file.path(), "deletionTimestamp": 0, "dataChange": data_change,
            "extendedFileMetadata": true, "partitionValues": {}, "size": file.size() } })
    });
    removed.collect()
}

/// Somebody else writes all rows into one file, as OPTIMIZE does.
pub(crate) async fn foreign_optimize(dir: &TempDir, spec: &TableSpec) {
    let rows = batches(dir, spec, None).await;
    let rows = arrow::compute::concat_batches(&spec.schema, &rows).unwrap();
    let mut actions = removals(dir, spec, false).await;
    actions.push(foreign_file(dir, spec, &rows, false));
    foreign(dir, spec, "OPTIMIZE", &actions);
}

/// The metadata of a table, for somebody else to change.
pub(crate) fn metadata(dir: &TempDir, spec: &TableSpec) -> Value {
    let (table, mut found) = (path(dir, spec), Value::Null);
    for version in 0..files(&table.join("_delta_log"), ".json").len() as u64 {
        found = actions(&table, version).iter().find_map(|action| action.get("metaData").cloned()).unwrap_or(found);
    }
    found
}

/// Somebody else sets a property, or a constraint.
pub(crate) fn set_property(dir: &TempDir, spec: &TableSpec, name: &str, value: &str) {
    let mut metadata = metadata(dir, spec);
    metadata["configuration"][name] = value.into();
    foreign(dir, spec, "SET TBLPROPERTIES", &[json!({ "metaData": metadata })]);
}
