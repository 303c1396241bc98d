//! Links of producers.

use crate::event::{BATCH_FORMAT, events};
use crate::hub::{Hub, MAX_MESSAGE};
use crate::inflow::{Delivery, Inflow};
use crate::wire::Outcome;

/// Messages that a producer may have on its way.
const CREDIT: u32 = 1000;

/// A producer that sends to the hub or to one of its partitions.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) inflow: Inflow,
    pub(crate) address: String,
    partition: Option<usize>,
}

fn rejected(condition: &'static str, description: impl Into<String>) -> Outcome {
    Outcome::Rejected { condition, description: description.into() }
}

impl Producer {
    pub(crate) fn new(address: String, partition: Option<usize>, delivery_count: u32) -> Self {
        Self { inflow: Inflow::new(CREDIT, delivery_count), address, partition }
    }

    /// Keeps the events of a message; what becomes of it is told to the producer.
    pub(crate) fn keep(&self, hub: &Hub, delivery: &Delivery<'_>) -> Outcome {
        if hub.switches.producers_busy() {
            return rejected(crate::hub::SERVER_BUSY, "The server is busy. Please retry the operation.");
        }
        let Some(payload) = delivery.payload.as_deref().filter(|payload| payload.len() <= MAX_MESSAGE) else {
            let description = format!("The message is larger than the maximum size of {MAX_MESSAGE} bytes.");
            return rejected("amqp:link:message-size-exceeded", description);
        };
        let (events, key) = match events(payload, delivery.format == BATCH_FORMAT) {
            Ok(found) => found,
            Err(error) => return rejected("amqp:decode-error", format!("The message cannot be read: {error}.")),
        };
        // A key on a link to one partition stays with the event and decides nothing: buffered producers choose by it
        // themselves.
        let partition = self.partition.unwrap_or_else(|| hub.choose_partition(key.as_deref()));
        hub.append(partition, |log, now| events.iter().for_each(|event| log.append(event, now)));
        Outcome::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::BrokerOptions;
    use std::borrow::Cow;

    #[test]
    fn too_much_is_rejected_and_nothing_is_kept_of_it() {
        let hub = Hub::new(BrokerOptions::default());
        let keep = |payload: Option<Vec<u8>>| {
            let delivery = Delivery { id: 0, format: 0, settled: false, payload: payload.map(Cow::Owned) };
            Producer::new("hub/Partitions/0".into(), Some(0), 0).keep(&hub, &delivery)
        };
        let (head, len) = crate::event::data_head(MAX_MESSAGE - 8);
        let largest = [&head[..len], &vec![0; MAX_MESSAGE - 8]].concat();
        assert_eq!(keep(Some(largest.clone())), Outcome::Accepted);
        let more = [&largest[..], b"\x00\x53\x75\xa0\x00"].concat();
        for refused in [keep(Some(more)), keep(None)] {
            assert!(matches!(refused, Outcome::Rejected { condition: "amqp:link:message-size-exceeded", .. }));
        }
        assert_eq!(hub.bounds(0).next, 1);
    }
}
