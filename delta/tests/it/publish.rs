//! What a publication leaves in a table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use tempfile::TempDir;
use tidemark_delta::{Error, Outcome};

use crate::support::*;

#[tokio::test]
async fn a_merge_sets_absolute_values_once_an_epoch() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    let first = writer.publish(1, None, Some(&users(&[("a", 100, 1), ("b", 200, 2)]))).await.unwrap();
    assert_eq!((first.version, first.outcome), (1, Outcome::Committed));
    writer.publish(2, None, Some(&users(&[("b", 250, 3), ("c", 7, 1)]))).await.unwrap();
    for epoch in [1, 2] {
        let again = writer.publish(epoch, None, Some(&users(&[("a", 999, 9)]))).await.unwrap();
        assert_eq!((again.version, again.outcome), (2, Outcome::Skipped));
    }
    let rows = [("a".to_owned(), 100, 1), ("b".to_owned(), 250, 3), ("c".to_owned(), 7, 1)];
    assert_eq!(read_users(&dir, None).await, rows);
    assert_eq!(read_users(&dir, Some(1)).await, [("a".to_owned(), 100, 1), ("b".to_owned(), 200, 2)]);
}

#[tokio::test]
async fn every_commit_names_its_epoch_and_carries_both_transactions() {
    let dir = TempDir::new().unwrap();
    let mut keyed_writer = open(&dir, 3, keyed()).await;
    let mut append_writer = open(&dir, 3, appended()).await;
    keyed_writer.publish(5, Some(77), Some(&users(&[("a", 1, 1)]))).await.unwrap();
    keyed_writer.publish(6, Some(78), None).await.unwrap();
    append_writer.publish(5, Some(77), Some(&rejected([(5, 0)]))).await.unwrap();
    append_writer.publish(6, Some(78), Some(&rejected([]))).await.unwrap();
    for spec in [keyed(), appended()] {
        let table = path(&dir, &spec);
        for (version, epoch, watermark) in [(1, 5, 77), (2, 6, 78)] {
            let info = told(&table, version);
            assert_eq!(info["kind"], "publish");
            assert_eq!(info["pipeline"], "p");
            assert_eq!(info["epoch"], epoch);
            assert_eq!(info["watermark"], watermark);
            let held = [("p/fence".to_owned(), 3), ("p/epoch".to_owned(), epoch)];
            assert_eq!(transactions(&table, version), held.into());
        }
    }
}

#[tokio::test]
async fn appended_rows_of_held_epochs_are_left_out() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, appended()).await;
    writer.publish(2, None, Some(&rejected([(1, 0), (2, 0)]))).await.unwrap();
    writer.publish(4, None, Some(&rejected([(1, 0), (2, 0), (3, 0), (4, 0)]))).await.unwrap();
    assert_eq!(read_rejected(&dir, None).await, [(1, 0), (2, 0), (3, 0), (4, 0)]);
    writer.publish(6, None, Some(&rejected([(4, 0)]))).await.unwrap();
    assert_eq!((writer.version(), writer.committed_epoch()), (3, Some(6)));
    assert_eq!(read_rejected(&dir, None).await.len(), 4);
}

#[tokio::test]
async fn refused_rows_leave_no_trace_and_the_writer_usable() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    let repeated = users(&[("new", 1, 1), ("new", 2, 2)]);
    let error = writer.publish(1, None, Some(&repeated)).await.unwrap_err();
    assert!(matches!(error, Error::DataCheck { .. }), "{error}");
    let negative = users(&[("a", 1, -1)]);
    let error = writer.publish(1, None, Some(&negative)).await.unwrap_err();
    assert!(matches!(error, Error::DataCheck { .. }), "{error}");
    assert_eq!((writer.version(), writer.committed_epoch()), (0, None));
    writer.publish(1, None, Some(&users(&[("a", 1, 1)]))).await.unwrap();
    assert_eq!(read_users(&dir, None).await, [("a".to_owned(), 1, 1)]);
}

#[tokio::test]
async fn a_batch_of_another_schema_is_refused_before_the_call() {
    let dir = TempDir::new().unwrap();
    let mut writer = open(&dir, 1, keyed()).await;
    let good = users(&[("a", 12_345, 1)]);
    let finer: ArrayRef = Arc::new(Decimal128Array::from(vec![123_456]).with_precision_and_scale(38, 4).unwrap());
    let mut fields: Vec<_> = good.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns = good.columns().to_vec();
    fields[1] = Field::new("total", DataType::Decimal128(38, 4), false);
    columns[1] = finer;
    let finer = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    assert_eq!(finer.column(1).len(), 1);
    let shorter = good.project(&[0, 1, 2]).unwrap();
    for batch in [finer, shorter] {
        let error = writer.publish(1, None, Some(&batch)).await.unwrap_err();
        assert!(matches!(error, Error::Bug { .. }), "{error}");
    }
    assert_eq!(writer.version(), 0);
}
