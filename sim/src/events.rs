//! The events of a seed: valid ones, repeated ones, conflicting ones, late ones, wrong dates, and bodies that break a rule.

use crate::rng::Rng;
use crate::scenario::{Arrival, MS, SECOND, SourceKind};

/// The wall clock at the beginning: 2026-01-15T00:00:00Z. Sums of a few days stay within the month.
pub(crate) const START_US: i64 = 1_768_435_200_000_000;
const DAY_US: i64 = 86_400_000_000;

/// What an event says, before it is written down.
#[derive(Clone, Debug)]
struct Payment {
    id: u64,
    user: u64,
    time_us: i64,
    pence: u64,
    kind: u64,
    channel: u64,
}

/// Draws `count` events, in the order in which they come.
pub(crate) fn arrivals(rng: &mut Rng, source: SourceKind, partitions: &[u64], length: u64, count: u64) -> Vec<Arrival> {
    let mut past: Vec<Payment> = Vec::new();
    let mut arrivals = Vec::new();
    // Files are one after the other in time, or beside each other.
    let daily = rng.chance(50);
    for number in 0..count {
        let partition = usize::try_from(rng.below(partitions.len() as u64)).unwrap_or(0);
        let since = partitions[partition];
        let at = match source {
            SourceKind::Files { .. } if rng.chance(80) => since,
            _ if rng.chance(10) => since,
            _ => since.max(rng.below(length)),
        };
        let hour = if daily { partition as u64 * 2 * SECOND } else { 0 };
        let base = match source {
            SourceKind::Files { .. } => hour + number * length / count.max(1),
            SourceKind::Live { .. } => at,
        };
        let payment = payment(rng, number, base.cast_signed(), &past);
        let body = written(rng, &payment);
        past.push(payment);
        arrivals.push(Arrival { at, partition, body });
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

fn payment(rng: &mut Rng, id: u64, base_us: i64, past: &[Payment]) -> Payment {
    if let Some(before) = rng.pick(past).cloned().filter(|_| rng.chance(20)) {
        // The same once more, or another one of the same id.
        let pence = if rng.chance(20) { before.pence + 1 } else { before.pence };
        return Payment { pence, ..before };
    }
    let off = match rng.below(20) {
        0 => -(rng.between(5, 30).cast_signed() * SECOND.cast_signed()),
        1 => rng.between(1, 3_600).cast_signed() * SECOND.cast_signed(),
        // Beyond what may be: R140.
        2 => rng.between(4_000, 9_000).cast_signed() * SECOND.cast_signed(),
        _ => rng.around(500 * MS),
    };
    Payment {
        id,
        user: rng.below(5),
        time_us: START_US + base_us + off,
        pence: rng.between(1, 100_000),
        kind: rng.below(2),
        channel: rng.below(3),
    }
}

fn written(rng: &mut Rng, payment: &Payment) -> String {
    let Payment { id, user, time_us, pence, kind, channel } = payment;
    let kind = ["deposit_completed", "withdrawal_completed"][usize::try_from(*kind).unwrap_or(0)];
    let channel = ["web", "mobile", "api"][usize::try_from(*channel).unwrap_or(0)];
    let currency = if rng.chance(4) { "EUR" } else { "GBP" };
    let time = timestamp(*time_us);
    let body = format!(
        r#"{{"event_id":"e{id}","user_id":"u{user}","event_time":"{time}","ingest_time":"{time}","event_type":"{kind}","amount":{}.{:02},"currency":"{currency}","channel":"{channel}"}}"#,
        pence / 100,
        pence % 100,
    );
    if rng.chance(4) { body[..body.len() / 2].to_owned() } else { body }
}

fn timestamp(time_us: i64) -> String {
    let since = time_us - START_US;
    let (day, of_day) = (15 + since.div_euclid(DAY_US), since.rem_euclid(DAY_US));
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_contract_reads_them() {
        assert_eq!(timestamp(START_US), "2026-01-15T00:00:00.000000Z");
        assert_eq!(timestamp(START_US - 1), "2026-01-14T23:59:59.999999Z");
        assert_eq!(timestamp(START_US + DAY_US + 3_723_000_004), "2026-01-16T01:02:03.000004Z");
    }
}
