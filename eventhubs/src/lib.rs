//! Tidemark's corner for Azure Event Hubs: who we are, receiving with positions of our own, and sending in batches.
#![forbid(unsafe_code)]
