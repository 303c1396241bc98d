//! What a day in an object store asks for, roughly: each request is paid for, whether anything happened or not.
//!
//! The numbers for each publication and checkpoint were counted; see the table in `docs/azure-storage.md`.

use std::time::Duration;

use crate::config::Config;
use crate::sink::tables::specs;

/// Milliseconds.
const DAY: u64 = 86_400_000;

/// Objects of a checkpoint: its manifest, and the runs that it adds or takes together.
const WRITES_OF_A_CHECKPOINT: u64 = 8;

/// What a checkpoint reads and lists.
const READS_OF_A_CHECKPOINT: u64 = 10;

/// A lease is renewed three times in its life, and read as often.
const RENEWALS: u64 = 3;

/// Requests of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Those that write.
    pub writes: u64,
    /// Those that read or list.
    pub reads: u64,
}

/// The requests of a day in which something happens in every epoch, maintenance aside.
pub fn of_a_day(config: &Config) -> Requests {
    let a_day = |every: Duration| DAY / u64::try_from(every.as_millis()).unwrap_or(DAY).max(1);
    let publishing = config.publish_interval().max(config.epochs.trigger);
    // A commit and a file for each table.
    let publications = a_day(publishing) * 2 * specs(config.output.curated).len() as u64;
    let checkpoints = a_day(config.checkpoint.interval.max(publishing));
    let cuts = a_day(config.cut_linger().max(config.epochs.trigger));
    let renewals = a_day(config.checkpoint.lease_ttl) * RENEWALS;
    Requests {
        writes: publications + checkpoints * WRITES_OF_A_CHECKPOINT + cuts + renewals,
        // Once a second somebody looks for events that are to be replayed.
        reads: DAY / 1_000 + checkpoints * READS_OF_A_CHECKPOINT + renewals,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Effective, Layers};

    /// What was counted on Azurite, with one trigger a second and a checkpoint every five.
    #[test]
    fn the_estimate_is_near_what_was_counted() {
        for (interval, counted) in [(1, 1_234_075.0), (10, 210_239.0), (30, 82_080.0)] {
            let mut config = Effective::load(Layers::default()).expect("the defaults are sound").config;
            config.output.path = "az://lake/payments".to_owned().try_into().expect("it is a place");
            config.sink.publish_interval = Some(Duration::from_secs(interval));
            let ratio = of_a_day(&config).writes as f64 / counted;
            assert!((0.8..1.25).contains(&ratio), "{interval} s: {ratio}");
        }
    }
}
