//! What every commit carries: two application transactions and metadata that names its kind, epoch and watermark.

use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::{DeltaResult, DeltaTable};
use serde_json::{Value, json};

use crate::lake::Identity;

/// Why a commit was made; stored in its metadata as `tidemark.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The table came into being.
    Create,
    /// A new generation took the table over; no rows changed.
    Fence,
    /// An epoch was published.
    Publish,
    /// Files were rewritten or deleted; no row changed.
    Maintenance,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Create, Kind::Fence, Kind::Publish, Kind::Maintenance];

    /// The kind that a word in the metadata names.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word in the metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Fence => "fence",
            Kind::Publish => "publish",
            Kind::Maintenance => "maintenance",
        }
    }
}

/// What a commit says about itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) kind: Kind,
    /// The epoch that the table holds after the commit.
    pub(crate) epoch: Option<i64>,
    /// Microseconds.
    pub(crate) watermark: Option<i64>,
}

/// The application whose version is the epoch.
pub(crate) fn epoch_app(pipeline: &str) -> String {
    format!("{pipeline}/epoch")
}

/// The application whose version is the generation.
pub(crate) fn fence_app(pipeline: &str) -> String {
    format!("{pipeline}/fence")
}

impl Identity {
    /// The library sees a conflict only between commits that share an application id, so every commit carries both: then
    /// none can slip past a take-over. And it makes no second attempt on its own (`max_retries` 0): whatever came in
    /// between, the caller reads the log again before it goes on.
    /// `more` joins what the metadata says.
    pub(crate) fn commit_properties(&self, stamp: Stamp, more: Vec<(String, Value)>) -> CommitProperties {
        let mut transactions = vec![Transaction::new(fence_app(&self.pipeline), self.generation)];
        transactions.extend(stamp.epoch.map(|epoch| Transaction::new(epoch_app(&self.pipeline), epoch)));
        let mut metadata: Vec<(String, Value)> = vec![
            ("tidemark.kind".to_owned(), json!(stamp.kind.as_str())),
            ("tidemark.pipeline".to_owned(), json!(self.pipeline)),
            ("tidemark.generation".to_owned(), json!(self.generation)),
        ];
        metadata.extend(stamp.epoch.map(|epoch| ("tidemark.epoch".to_owned(), json!(epoch))));
        metadata.extend(stamp.watermark.map(|micros| ("tidemark.watermark".to_owned(), json!(micros))));
        metadata.extend(more);
        CommitProperties::default()
            .with_application_transactions(transactions)
            .with_metadata(metadata)
            .with_max_retries(0)
            // Maintenance does both, between commits: one lists the whole log, the other reads it.
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
    }
}

/// The transactions of one pipeline that a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The greatest epoch; none before the first publication.
    pub epoch: Option<i64>,
    /// The generation that has taken the table over last; none where another pipeline created it.
    pub fence: Option<i64>,
}

impl Held {
    /// Reads the log from the last checkpoint on, so it is for opening and doubt, not for every publication.
    pub(crate) async fn read(table: &DeltaTable, pipeline: &str) -> DeltaResult<Self> {
        let (state, log_store) = (table.snapshot()?, table.log_store());
        Ok(Held {
            epoch: state.transaction_version(log_store.as_ref(), epoch_app(pipeline)).await?,
            fence: state.transaction_version(log_store.as_ref(), fence_app(pipeline)).await?,
        })
    }
}
