//! The event times that a manifest keeps: what the watermark goes on from.
//!
//! There may be ten of each of thousands of files. So a list of times is written as differences, the greatest time first.

use serde::{Deserialize, Serialize};
use tidemark_dataflows::event::Micros;
use tidemark_dataflows::watermark::Progress;

/// The event times that the watermark goes on from, as of the end of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTimes {
    /// The watermark of the next epoch, where it has one.
    pub watermark_us: Option<i64>,
    /// The greatest event times of all partitions together, ascending: as many as there have to be witnesses, fewer where
    /// there are fewer.
    #[serde(with = "greatest_first")]
    pub newest_us: Vec<i64>,
    /// The greatest event times of each partition, in the order of their numbers. Those without any may be left out.
    pub partitions: Vec<PartitionTimes>,
}

impl From<&Progress> for EventTimes {
    fn from(progress: &Progress) -> Self {
        let numbers = |times: &[Micros]| times.iter().map(|time| time.0).collect();
        let partitions = progress.partitions.iter();
        EventTimes {
            watermark_us: progress.watermark.map(|watermark| watermark.0),
            newest_us: numbers(&progress.overall),
            partitions: partitions
                .map(|(partition, times)| PartitionTimes { index: partition.0, newest_us: numbers(times) })
                .collect(),
        }
    }
}

/// The greatest event times of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Pair", into = "Pair")]
pub struct PartitionTimes {
    /// Its number.
    pub index: u32,
    /// Its greatest event times, ascending: as many as there have to be witnesses, fewer where there are fewer.
    pub newest_us: Vec<i64>,
}

/// The same as it stands in JSON: a list of the number and the times.
#[derive(Serialize, Deserialize)]
struct Pair(u32, #[serde(with = "greatest_first")] Vec<i64>);

impl From<Pair> for PartitionTimes {
    fn from(Pair(index, newest_us): Pair) -> Self {
        PartitionTimes { index, newest_us }
    }
}

impl From<PartitionTimes> for Pair {
    fn from(PartitionTimes { index, newest_us }: PartitionTimes) -> Self {
        Pair(index, newest_us)
    }
}

/// Times that ascend, as a list of numbers: the greatest time, then how much earlier each other one is than the one that is
/// greater by the least.
mod greatest_first {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(times: &[i64], serializer: S) -> Result<S::Ok, S::Error> {
        let earlier = |pair: &[i64]| pair[1].checked_sub(pair[0]).filter(|earlier| *earlier >= 0);
        let mut numbers: Vec<i64> = times.last().copied().into_iter().collect();
        for pair in times.windows(2).rev() {
            numbers.push(earlier(pair).ok_or_else(|| S::Error::custom("event times do not ascend"))?);
        }
        serializer.collect_seq(numbers)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
        let mut times = Vec::<i64>::deserialize(deserializer)?;
        for at in 1..times.len() {
            let earlier = times[at - 1].checked_sub(times[at]).filter(|_| times[at] >= 0);
            times[at] = earlier.ok_or_else(|| D::Error::custom("event times do not ascend"))?;
        }
        times.reverse();
        Ok(times)
    }
}
