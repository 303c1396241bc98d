//! A local broker that Event Hubs clients can use, for development and tests. It keeps events in memory.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tidemark_broker::Error> {
//! use tidemark_broker::{Broker, BrokerOptions};
//!
//! let broker = Broker::start(BrokerOptions { partitions: 2, ..BrokerOptions::default() }).await?;
//! broker.control().append(0, ["an event", "another"])?;
//! assert_eq!(broker.control().statistics().partitions[0].last_sequence, Some(1));
//! // Any client of Event Hubs can connect with this:
//! assert!(broker.connection_string().ends_with(";EntityPath=transactions;UseDevelopmentEmulator=true"));
//! broker.stop().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod broker;
mod connection;
mod consumer;
mod control;
pub mod control_port;
mod error;
mod event;
mod filter;
mod hub;
mod inflow;
mod log;
mod management;
mod options;
mod outflow;
mod partition_key;
mod producer;
mod requests;
mod serve;
mod session;
mod switches;
mod tls;
mod tokens;
mod wire;

pub use broker::Broker;
pub use control::{Control, PartitionStatistics, Statistics};
pub use error::Error;
pub use log::Retention;
pub use options::{BrokerOptions, DEFAULT_CONSUMER_GROUP, MAX_PARTITIONS, TlsFiles};
pub use switches::Busy;
