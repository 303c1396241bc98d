//! MERGE of absolute rows into a keyed table: a row replaces the row with its key, or is new.
//!
//! Two ways lead to the same table. [`rewrite`] reads the files that can hold one of the keys, and writes them anew: what the
//! library's MERGE comes to for rows like ours, without planning a query for it, which for small tables is nearly all of the
//! work. [`library`] is the library's own MERGE, for tables that ask more of a writer than ours do: somebody has added a
//! constraint, or a feature such as a change feed or deletion vectors.

mod keys;
mod library;
mod plan;
mod rewrite;

use arrow::record_batch::RecordBatch;
use deltalake::DeltaResult;

pub(crate) use keys::sorted;

use crate::txn::Stamp;
use crate::writer::TableWriter;

/// Inserts or replaces the rows, in one commit. They come [`sorted`], so no two of them share a key.
pub(crate) async fn merge(
    writer: &mut TableWriter,
    key: &[String],
    rows: &RecordBatch,
    stamp: Stamp,
) -> DeltaResult<()> {
    if writer.is_plain()? {
        rewrite::merge(writer, key, rows, stamp).await
    } else {
        writer.table = library::merge(writer, key, rows.clone(), stamp).await?;
        Ok(())
    }
}
