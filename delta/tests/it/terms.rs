//! What others may do to a table while it is written, and what is refused by name.

use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemark_delta::{Error, Outcome, TableSpec, TableWriter, history};

use crate::support::*;

fn batch(spec: &TableSpec, epoch: i64) -> arrow::array::RecordBatch {
    if spec.name == keyed().name { users(&[("a", 1, epoch)]) } else { rejected([(epoch, 0)]) }
}

/// Does something to a table between two epochs, and once more before a start. Returns what became of each.
async fn met(spec: &TableSpec, change: impl Fn(&TempDir)) -> [Result<(), String>; 2] {
    let told = |error: Error| match error {
        Error::StateMismatch { what, .. } => what,
        other => panic!("{other}"),
    };
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, spec.clone()).await;
    writer.publish(1, None, Some(&batch(spec, 1))).await.unwrap();
    change(&dir);
    let live = writer.publish(2, None, Some(&batch(spec, 2))).await.map(drop).map_err(told);
    let started = match TableWriter::open_or_create(&lake(&dir, 2), spec.clone()).await {
        Ok(mut writer) => writer.publish(3, None, Some(&batch(spec, 3))).await.map(drop).map_err(told),
        Err(error) => Err(told(error)),
    };
    [live, started]
}

async fn refused(spec: &TableSpec, words: &str, change: impl Fn(&TempDir)) {
    for (time, outcome) in ["running", "at the start"].iter().zip(met(spec, change).await) {
        let said = outcome.expect_err(&format!("{}, {time}: {words} was let through", spec.name));
        assert!(said.contains(words), "{}, {time}: {said:?} does not say {words:?}", spec.name);
    }
}

async fn borne(spec: &TableSpec, what: &str, change: impl Fn(&TempDir)) {
    assert_eq!(met(spec, change).await, [Ok(()), Ok(())], "{}: {what}", spec.name);
}

/// A commit that changes the protocol, and the metadata by a function.
fn alter(dir: &TempDir, spec: &TableSpec, protocol: Option<Value>, change: impl FnOnce(&mut Value)) {
    let mut metadata = metadata(dir, spec);
    change(&mut metadata);
    let protocol = protocol.map(|protocol| json!({ "protocol": protocol }));
    let actions: Vec<Value> = protocol.into_iter().chain([json!({ "metaData": metadata })]).collect();
    foreign(dir, spec, "ALTER TABLE", &actions);
}

fn features(reader: &[&str], writer: &[&str]) -> Option<Value> {
    let writer = [&["checkConstraints", "appendOnly", "invariants"], writer].concat();
    Some(json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer }))
}

/// Changes the metadata of each column.
fn each_column(metadata: &mut Value, change: impl Fn(usize, &mut Value)) {
    let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    for (index, field) in schema["fields"].as_array_mut().unwrap().iter_mut().enumerate() {
        change(index, field);
    }
    metadata["schemaString"] = schema.to_string().into();
}

#[tokio::test]
async fn what_concerns_no_writer_is_passed_by() {
    for spec in [keyed(), appended()] {
        borne(&spec, "a comment on a column", |dir| {
            alter(dir, &spec, None, |metadata| {
                each_column(metadata, |_, field| field["metadata"]["comment"] = "x".into())
            });
        })
        .await;
        borne(&spec, "a description", |dir| alter(dir, &spec, None, |m| m["description"] = "mine".into())).await;
        for name in [
            "delta.randomizeFilePrefixes",
            "delta.columnMapping.maxColumnId",
            "owner",
            "delta.tuneFileSizesForRewrites",
        ] {
            borne(&spec, name, |dir| set_property(dir, &spec, name, "5")).await;
        }
        borne(&spec, "deletion vectors that no file has", |dir| {
            alter(dir, &spec, features(&["deletionVectors"], &["deletionVectors"]), |metadata| {
                metadata["configuration"]["delta.enableDeletionVectors"] = "true".into();
            });
        })
        .await;
        borne(&spec, "columns mapped to their own names", |dir| map_columns(dir, &spec, None)).await;
        borne(&spec, "an older legacy protocol", |dir| {
            alter(dir, &spec, Some(json!({ "minReaderVersion": 1, "minWriterVersion": 4 })), |_| {});
        })
        .await;
    }
    for name in ["delta.appendOnly", "delta.enableChangeDataFeed"] {
        borne(&appended(), name, |dir| set_property(dir, &appended(), name, "true")).await;
        borne(&keyed(), name, |dir| set_property(dir, &keyed(), name, "false")).await;
    }
}

fn map_columns(dir: &TempDir, spec: &TableSpec, other: Option<&str>) {
    let protocol = json!({ "minReaderVersion": 2, "minWriterVersion": 5 });
    alter(dir, spec, Some(protocol), |metadata| {
        metadata["configuration"]["delta.columnMapping.mode"] = "name".into();
        metadata["configuration"]["delta.columnMapping.maxColumnId"] = "9".into();
        each_column(metadata, |index, field| {
            let name = other.filter(|_| index == 1).map_or(field["name"].clone(), Into::into);
            field["metadata"]["delta.columnMapping.id"] = (index + 1).into();
            field["metadata"]["delta.columnMapping.physicalName"] = name;
        });
    });
}

#[tokio::test]
async fn mapped_columns_have_their_ids_in_files() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    map_columns(&dir, &keyed(), None);
    writer.publish(1, None, Some(&batch(&keyed(), 1))).await.unwrap();
    let table = path(&dir, &keyed());
    let actions = actions(&table, writer.version());
    let added = actions.iter().find_map(|action| action["add"]["path"].as_str()).unwrap();
    let file = std::fs::File::open(table.join(added)).unwrap();
    let file = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let ids: Vec<i32> =
        file.parquet_schema().root_schema().get_fields().iter().map(|f| f.get_basic_info().id()).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 1, 1)]);
}

#[tokio::test]
async fn what_this_program_does_not_honour_is_refused_by_name() {
    for spec in [keyed(), appended()] {
        for feature in ["rowTracking", "clustering", "icebergCompatV2", "somethingNew"] {
            refused(&spec, feature, |dir| alter(dir, &spec, features(&[], &[feature]), |_| {})).await;
        }
        let reader_too = features(&["somethingNew"], &["somethingNew"]);
        refused(&spec, "somethingNew", |dir| alter(dir, &spec, reader_too.clone(), |_| {})).await;
        for (reader, writer) in [(4, 8), (1, 8), (4, 7)] {
            let protocol = json!({ "minReaderVersion": reader, "minWriterVersion": writer });
            refused(&spec, "protocol", |dir| alter(dir, &spec, Some(protocol.clone()), |_| {})).await;
        }
        for mark in ["delta.invariants", "delta.generationExpression"] {
            refused(&spec, mark, |dir| {
                alter(dir, &spec, None, |metadata| {
                    each_column(metadata, |_, field| field["metadata"][mark] = "x".into())
                });
            })
            .await;
        }
        refused(&spec, "another name in files", |dir| map_columns(dir, &spec, Some("col-1"))).await;
        refused(&spec, "DROP CONSTRAINT odd", |dir| {
            set_property(dir, &spec, "delta.constraints.odd", "epoch % 2 = 1");
        })
        .await;
        refused(&spec, "expected are", |dir| {
            alter(dir, &spec, None, |metadata| each_column(metadata, |_, field| field["nullable"] = true.into()));
        })
        .await;
    }
    for spec in [keyed(), appended()] {
        refused(&spec, "has a name", |dir| {
            let mut add = foreign_file(dir, &spec, &batch(&spec, 1), true);
            add["add"]["path"] = "a%20b.parquet".into();
            foreign(dir, &spec, "WRITE", &[add]);
        })
        .await;
        refused(&spec, "deletion vector", |dir| {
            let rows = batch(&spec, 1);
            let mut add = foreign_file(dir, &spec, &rows, true);
            add["add"]["deletionVector"] =
                json!({ "storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 1, "sizeInBytes": 36, "cardinality": 1 });
            alter(dir, &spec, features(&["deletionVectors"], &["deletionVectors"]), |_| {});
            foreign(dir, &spec, "DELETE", &[add]);
        })
        .await;
    }
    for name in ["delta.appendOnly", "delta.enableChangeDataFeed", "delta.enableInCommitTimestamps"] {
        refused(&keyed(), name, |dir| set_property(dir, &keyed(), name, "true")).await;
    }
    refused(&keyed(), "count_not_negative is missing", |dir| {
        alter(dir, &keyed(), None, |metadata| {
            drop(metadata["configuration"].as_object_mut().unwrap().remove("delta.constraints.count_not_negative"))
        });
    })
    .await;
}

#[tokio::test]
async fn comments_of_ours_come_to_columns_that_have_none() {
    let commented = |text: &str| {
        let plain = keyed().schema;
        let fields = plain.fields().iter().map(|field| {
            field.as_ref().clone().with_metadata([("comment".to_owned(), format!("{text} {}", field.name()))].into())
        });
        TableSpec { schema: std::sync::Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>())), ..keyed() }
    };
    let dir = TempDir::new().unwrap();
    drop(open(&dir, 1, keyed()).await);
    alter(&dir, &keyed(), None, |metadata| {
        each_column(metadata, |index, field| {
            if index == 0 {
                field["metadata"]["comment"] = "theirs".into()
            }
        });
    });
    let mut writer = open(&dir, 2, commented("ours:")).await;
    let schema: Value = serde_json::from_str(metadata(&dir, &keyed())["schemaString"].as_str().unwrap()).unwrap();
    let comments: Vec<&str> = schema["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["metadata"]["comment"].as_str().unwrap())
        .collect();
    assert_eq!(comments, ["theirs", "ours: total", "ours: count", "ours: updated_at"]);
    writer.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    assert_eq!(read_users(&dir, None).await.len(), 1);
}

/// Logs of before said what they were in members of their own, and named their metrics otherwise.
#[tokio::test]
async fn commits_of_before_are_understood() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir, 1, keyed()).await);
    let log = path(&dir, &keyed()).join("_delta_log");
    let info = json!({ "timestamp": 5, "operation": "MERGE", "tidemark.kind": "publish", "tidemark.pipeline": PIPELINE,
        "tidemark.generation": 1, "tidemark.epoch": 7, "tidemark.watermark": 70,
        "operationMetrics": { "num_target_rows_inserted": 2, "num_target_rows_updated": 3 } });
    let txn = |app: &str, version: i64| json!({ "txn": { "appId": format!("{PIPELINE}/{app}"), "version": version } });
    let lines = [json!({ "commitInfo": info }), txn("fence", 1), txn("epoch", 7)].map(|line| format!("{line}\n"));
    std::fs::write(log.join(format!("{:020}.json", 1)), lines.concat()).unwrap();
    let commits = history(&location(&dir), &keyed().name).await.unwrap();
    let told = |at: usize| (commits[at].kind, commits[at].generation, commits[at].epoch, commits[at].watermark);
    assert_eq!(told(0), (Some(tidemark_delta::Kind::Create), Some(1), None, None));
    assert_eq!(told(1), (Some(tidemark_delta::Kind::Publish), Some(1), Some(7), Some(70)));
    assert_eq!((commits[1].rows_changed, commits[1].epoch_txn), (5, Some(7)));
    let mut writer = open(&dir, 1, keyed()).await;
    assert_eq!(writer.publish(7, None, None).await.unwrap().outcome, Outcome::Skipped);
    assert_eq!(writer.publish(8, None, None).await.unwrap().version, 2);
}

#[tokio::test]
async fn files_say_what_they_hold() {
    let dir = TempDir::new().unwrap();
    let spec = TableSpec { bounded: vec!["updated_at".to_owned()], ..keyed() };
    let mut writer = open(&dir, 1, spec.clone()).await;
    writer.publish(1, None, Some(&users(&[("b", 1, 1_234_567), ("a", 1, 999)]))).await.unwrap();
    let actions = actions(&path(&dir, &spec), 1);
    let add = actions.iter().find_map(|action| action.get("add")).unwrap();
    let statistics: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    let expected = json!({
        "numRecords": 2,
        "minValues": { "id": "a", "updated_at": "1970-01-01T00:00:00.000Z" },
        "maxValues": { "id": "b", "updated_at": "1970-01-01T00:00:01.235Z" },
        "nullCount": { "id": 0, "updated_at": 0 },
    });
    assert_eq!(statistics, expected);
    assert_eq!(metadata(&dir, &spec)["configuration"]["delta.dataSkippingStatsColumns"], "id,updated_at");
}

/// The library reads transactions apart from the rest of the log.
#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_transaction_alone_is_named() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    writer.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    let commit = path(&dir, &keyed()).join(format!("_delta_log/{:020}.json", writer.version()));
    let text = std::fs::read_to_string(&commit).unwrap();
    std::fs::write(&commit, text.replace("\"appId\"", "\"appIe\"")).unwrap();
    let looked = tidemark_delta::standing(&location(&dir), PIPELINE, &keyed().name).await.unwrap_err();
    let opened = TableWriter::open_or_create(&lake(&dir, 2), keyed()).await.unwrap_err();
    for error in [looked, opened] {
        assert!(error.is_damage() && error.to_string().contains(".json is damaged"), "{error}");
    }
}
