//! What can go wrong with what survives a crash, and what the person who reads of it should do.

use crate::envelope::OLDEST_VERSION;
use crate::lease::Holder;

/// Everything that this crate refuses or fails at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed, or somebody else has used a name.
    #[error(transparent)]
    Store(#[from] tidemark_store::Error),

    /// An object is not what was written.
    #[error("'{name}' is damaged: {what}; restore it from a copy, or start from an older checkpoint")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong with it.
        what: String,
    },

    /// An object that others name is not there.
    #[error("{what} is missing; restore it from a copy, or start from an older checkpoint")]
    Missing {
        /// The object.
        what: String,
    },

    /// A later generation has taken over. This one can make nothing durable any more.
    #[error("taken over: generation {by} has begun, and this instance has generation {ours}")]
    Fenced {
        /// The later generation.
        by: u64,
        /// Ours.
        ours: u64,
    },

    /// An object of a format that this program does not know.
    #[error(
        "'{name}' has format version {found}, and this program knows versions {} to {known} only: \
         run the version of the program that wrote it, or a newer one",
        OLDEST_VERSION
    )]
    Version {
        /// The object.
        name: String,
        /// The version it names.
        found: u16,
        /// The newest version that can be read.
        known: u16,
    },

    /// Another process is at work.
    #[error("{place} is in use by {}: end that process first, or take over explicitly", in_words(.holder.as_deref()))]
    Held {
        /// The lock or lease.
        place: String,
        /// Who holds it, if that can be read.
        holder: Option<Box<Holder>>,
    },

    /// The lock or lease was ours and is not any more.
    #[error("{place} is lost: {what}; this process must stop, and may be started again once the other one has ended")]
    Lost {
        /// The lock or lease.
        place: String,
        /// How that was noticed.
        what: String,
    },
}

fn in_words(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

impl Error {
    /// An object that is not what was written.
    pub fn damaged(name: &str, what: impl Into<String>) -> Self {
        Error::Damaged { name: name.to_owned(), what: what.into() }
    }
}
