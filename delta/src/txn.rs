//! What every commit carries: two application transactions, and user metadata that names its kind, epoch and watermark.

use deltalake::{DeltaResult, DeltaTable};
use serde_json::{Value, json};

use crate::lake::Identity;
use crate::log::Log;

/// Why a commit was made; stored in its user metadata as `kind`.
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
    /// The table was written anew after somebody else had changed its rows.
    Repair,
    /// Rows went, or values of them, that the table does not keep for ever.
    Expire,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Create, Kind::Fence, Kind::Publish, Kind::Maintenance, Kind::Repair, Kind::Expire];

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
            Kind::Repair => "repair",
            Kind::Expire => "expire",
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

/// How the name of the application ends whose version is the generation.
pub(crate) const FENCE: &str = "/fence";

/// The application whose version is the generation.
pub(crate) fn fence_app(pipeline: &str) -> String {
    format!("{pipeline}{FENCE}")
}

impl Identity {
    /// The two transactions that every commit carries: so none can slip past a take-over, whoever looks for conflicts by
    /// application ids.
    pub(crate) fn transactions(&self, stamp: Stamp) -> Vec<Value> {
        let held = [(fence_app(&self.pipeline), Some(self.generation)), (epoch_app(&self.pipeline), stamp.epoch)];
        let held = held.into_iter().filter_map(|(app, version)| Some((app, version?)));
        held.map(|(app, version)| json!({ "txn": { "appId": app, "version": version } })).collect()
    }

    /// What the commit says of itself, as JSON: the one member of a commit that every engine shows, and keeps. `digest` is that of
    /// the rest; `before` is what it comes after.
    pub(crate) fn user_metadata(&self, stamp: Stamp, digest: &str, before: Option<&Log>) -> String {
        let mut told = json!({
            "kind": stamp.kind.as_str(),
            "pipeline": self.pipeline,
            "generation": self.generation,
            "lineage": Identity::lineage_text(self.lineage),
            "digest": digest,
        });
        let numbers = [("epoch", stamp.epoch), ("watermark", stamp.watermark)];
        for (name, number) in numbers.into_iter().filter_map(|(name, number)| Some((name, number?))) {
            told[name] = number.into();
        }
        if let Some(checkpoint) = before.and_then(|log| log.checkpoint.as_ref()) {
            told["logCheckpoint"] = checkpoint.to_value();
        }
        if let Some(foreign) = before.and_then(|log| log.foreign.as_ref()) {
            told["foreign"] = json!(foreign);
        }
        told.to_string()
    }
}

/// The transactions of one pipeline that a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The greatest epoch; none before the first publication.
    pub(crate) epoch: Option<i64>,
    /// The generation that has taken the table over last; none where another pipeline created it.
    pub(crate) fence: Option<i64>,
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
