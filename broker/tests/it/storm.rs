//! All faults at once: a client that comes back where it was still gets every event once, in order.

use crate::support::{Client, next, open_broker};
use fe2o3_amqp::sasl_profile::SaslProfile;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tidemark_broker::{Broker, Busy, Control};

const EVENTS: u64 = 20_000;

/// Reads a partition to its end. Answers how often it had to come back, and how many events came again.
async fn read(broker: &Broker, partition: usize, last: &AtomicI64) -> (usize, usize) {
    let (mut attempts, mut repeated) = (0, 0);
    while last.load(Ordering::Relaxed) + 1 < i64::try_from(EVENTS).unwrap() {
        attempts += 1;
        let Ok(mut client) = Client::connect_as(broker, SaslProfile::Anonymous).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let filter = format!("amqp.annotation.x-opt-sequence-number > '{}'", last.load(Ordering::Relaxed));
        let Ok(mut receiver) = client.try_receiver(partition, &filter).await else { continue };
        while let Ok(event) = next(&mut receiver).await {
            assert_eq!(event.body, format!("p{partition} e{}", event.sequence));
            let before = last.load(Ordering::Relaxed);
            if event.sequence <= before {
                repeated += 1;
                continue;
            }
            assert_eq!(event.sequence, before + 1, "a gap");
            last.store(event.sequence, Ordering::Relaxed);
            if event.sequence + 1 == i64::try_from(EVENTS).unwrap() {
                break;
            }
        }
    }
    (attempts, repeated)
}

/// One fault after the other, each at a place that progress decides.
async fn disturb(control: Control, last: Arc<AtomicI64>) {
    for round in 1u64.. {
        let goal = i64::try_from(round * 700).unwrap();
        while last.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match round % 6 {
            0 => drop(control.detach(None, "amqp:internal-error")),
            1 => drop(control.cut()),
            2 => control.away(Duration::from_millis(30)),
            3 => drop(control.redeliver(0, round * 650, round * 650 + 100)),
            4 => control.busy(Busy::Receivers, Duration::from_millis(20)),
            _ => {
                control.throttle(Some(20_000));
                tokio::time::sleep(Duration::from_millis(30)).await;
                control.throttle(None);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_loses_an_event() {
    let broker = open_broker().await;
    broker.control().seed(EVENTS, |partition, event| format!("p{partition} e{event}")).unwrap();
    let last: Vec<Arc<AtomicI64>> = (0..2).map(|_| Arc::new(AtomicI64::new(-1))).collect();
    let storm = tokio::spawn(disturb(broker.control(), Arc::clone(&last[0])));
    let ((attempts, repeated), _) = tokio::join!(read(&broker, 0, &last[0]), read(&broker, 1, &last[1]));
    storm.abort();
    assert!(attempts > 10 && repeated > 0, "{attempts} {repeated}");
}
