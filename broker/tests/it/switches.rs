//! Each switch does what it says, and no more.

use crate::support::{Client, FROM_START, annotation, end_of, numbered, open_broker, sequences, soon, until};
use fe2o3_amqp::Sender;
use fe2o3_amqp_types::messaging::{Body, Message, Outcome};
use fe2o3_amqp_types::primitives::Value;
use std::time::{Duration, Instant};
use tidemark_broker::{Broker, Busy};

/// A broker with events, and a client with a receiver of partition 0 that has had the first `taken` of them.
async fn receiving(events: u64, taken: usize) -> (Broker, Client, fe2o3_amqp::Receiver) {
    let broker = open_broker().await;
    broker.control().seed(events, |partition, event| format!("p{partition} e{event}")).unwrap();
    let mut client = Client::connect(&broker).await;
    let mut receiver = client.receiver(0, FROM_START).await;
    assert_eq!(sequences(&mut receiver, 0, taken).await.len(), taken);
    (broker, client, receiver)
}

async fn resume(broker: &Broker, after: i64, count: usize) -> Vec<i64> {
    let mut client = Client::connect(broker).await;
    let filter = format!("amqp.annotation.x-opt-sequence-number > '{after}'");
    let mut receiver = client.receiver(0, &filter).await;
    sequences(&mut receiver, 0, count).await
}

#[tokio::test]
async fn detach_ends_the_links_of_its_partition_with_its_condition() {
    let (broker, mut client, mut zero) = receiving(10, 10).await;
    let mut one = client.receiver(1, FROM_START).await;
    assert_eq!(sequences(&mut one, 1, 10).await.len(), 10);
    assert_eq!(broker.control().detach(Some(0), "com.microsoft:server-busy").unwrap(), 1);
    assert!(end_of(&mut zero).await.contains("com.microsoft:server-busy"));
    broker.control().append(1, numbered(1, 10..11)).unwrap();
    assert_eq!(sequences(&mut one, 1, 1).await, [10]);
    assert_eq!(broker.control().detach(None, "amqp:internal-error").unwrap(), 1);
    assert!(end_of(&mut one).await.contains("InternalError"));
    assert!(broker.control().detach(Some(2), "amqp:internal-error").is_err());
}

#[tokio::test]
async fn cut_resets_connections_and_keeps_events() {
    let (broker, client, mut receiver) = receiving(10, 4).await;
    assert_eq!(broker.control().cut(), 1);
    end_of(&mut receiver).await;
    drop(client);
    assert_eq!(resume(&broker, 3, 6).await, [4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn away_refuses_until_it_is_over_and_keeps_events() {
    let (broker, _client, mut receiver) = receiving(10, 10).await;
    let begun = Instant::now();
    broker.control().away(Duration::from_millis(300));
    end_of(&mut receiver).await;
    let mut refused = 0;
    while Client::connect_as(&broker, fe2o3_amqp::sasl_profile::SaslProfile::Anonymous).await.is_err() {
        refused += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused > 0 && begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(resume(&broker, 7, 2).await, [8, 9]);
}

#[tokio::test]
async fn delay_makes_deliveries_wait() {
    let (broker, _client, mut receiver) = receiving(1, 1).await;
    broker.control().delay(Duration::from_millis(150));
    let begun = Instant::now();
    broker.control().append(0, numbered(0, 1..3)).unwrap();
    assert_eq!(sequences(&mut receiver, 0, 2).await, [1, 2]);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    broker.control().delay(Duration::ZERO);
}

#[tokio::test]
async fn throttle_delivers_at_its_rate() {
    let (broker, _client, mut receiver) = receiving(1, 1).await;
    broker.control().throttle(Some(200));
    broker.control().append(0, numbered(0, 1..61)).unwrap();
    let begun = Instant::now();
    assert_eq!(sequences(&mut receiver, 0, 60).await.len(), 60);
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    broker.control().throttle(None);
    broker.control().append(0, numbered(0, 61..2000)).unwrap();
    assert_eq!(sequences(&mut receiver, 0, 1939).await.last(), Some(&1999));
}

#[tokio::test]
async fn busy_rejects_messages_and_refuses_receivers_until_it_is_over() {
    let (broker, mut client, mut receiver) = receiving(5, 5).await;
    let mut sender =
        soon("attaching", Sender::attach(&mut client.session, "sender", "hub/Partitions/0")).await.unwrap();
    broker.control().busy(Busy::All, Duration::from_secs(3600));
    assert!(end_of(&mut receiver).await.contains("server-busy"));
    let mut refused = client.receiver(0, "amqp.annotation.x-opt-offset >= '0'").await;
    assert!(end_of(&mut refused).await.contains("server-busy"));
    let message = || Message::builder().data(b"p0 e5".to_vec()).build();
    let outcome = soon("sending", sender.send(message())).await.unwrap();
    assert!(matches!(&outcome, Outcome::Rejected(rejected) if format!("{rejected:?}").contains("server-busy")));
    broker.control().busy(Busy::All, Duration::ZERO);
    assert!(matches!(soon("sending", sender.send(message())).await, Ok(Outcome::Accepted(_))));
    assert_eq!(resume(&broker, -1, 6).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn redeliver_sends_old_events_again_in_the_middle_of_the_stream() {
    let (broker, _client, mut receiver) = receiving(10, 10).await;
    assert_eq!(broker.control().redeliver(0, 3, 5).unwrap(), 1);
    assert_eq!(broker.control().redeliver(0, 9, 12).unwrap(), 1);
    broker.control().append(0, numbered(0, 10..15)).unwrap();
    let expected = [3, 4, 5, 10, 11, 12, 13, 14, 9, 10, 11, 12];
    assert_eq!(sequences(&mut receiver, 0, 12).await, expected);
    broker.control().append(0, numbered(0, 15..16)).unwrap();
    assert_eq!(sequences(&mut receiver, 0, 1).await, [15]);
    assert!(broker.control().redeliver(0, 5, 4).is_err());
}

#[tokio::test]
async fn drop_leaves_a_gap_and_expire_begins_later() {
    let broker = open_broker().await;
    broker.control().drop_range(0, 3, 6).unwrap();
    broker.control().append(0, numbered(0, 0..10)).unwrap();
    assert_eq!(resume(&broker, -1, 6).await, [0, 1, 2, 7, 8, 9]);
    broker.control().expire(0, 8).unwrap();
    assert_eq!(resume(&broker, -1, 2).await, [8, 9]);
    assert_eq!(broker.control().statistics().partitions[0].first_sequence, 8);
}

#[tokio::test]
async fn partitions_that_are_added_are_there_for_those_who_are_connected() {
    let (broker, mut client, mut zero) = receiving(5, 5).await;
    let control = broker.control();
    let mut early = client.receiver(2, FROM_START).await;
    assert!(end_of(&mut early).await.contains("NotFound"), "there is none yet");
    assert!(control.append(2, numbered(2, 0..1)).is_err());
    control.set_partitions(4).unwrap();
    assert_eq!(control.append(2, numbered(2, 0..3)).unwrap(), 3);
    let mut two = client.receiver(2, FROM_START).await;
    assert_eq!(sequences(&mut two, 2, 3).await, [0, 1, 2]);
    control.append(0, numbered(0, 5..6)).unwrap();
    assert_eq!(sequences(&mut zero, 0, 1).await, [5], "links to the old ones go on");
    let mut sender = soon("attaching", Sender::attach(&mut client.session, "sender", "hub")).await.unwrap();
    for _ in 0..4 {
        soon("sending", sender.send(Message::builder().data(b"x".to_vec()).build())).await.unwrap();
    }
    let last = control.statistics().partitions.iter().map(|partition| partition.last_sequence).collect::<Vec<_>>();
    assert_eq!(last, [Some(6), Some(5), Some(3), Some(0)], "all of them take turns");
    for refused in [3, 0, tidemark_broker::MAX_PARTITIONS + 1] {
        assert!(control.set_partitions(refused).is_err(), "{refused}");
    }
    control.set_partitions(4).unwrap();
}

#[tokio::test]
async fn the_clock_dates_what_comes_and_does_not_go_back() {
    let (broker, mut client, _zero) = receiving(0, 0).await;
    let day = 86_400_000;
    for (clock, event) in [(Some(day), 0), (Some(3 * day), 1), (Some(2 * day), 2), (None, 3)] {
        broker.control().clock(clock);
        broker.control().append(1, numbered(1, event..event + 1)).unwrap();
    }
    let mut receiver = client.receiver(1, FROM_START).await;
    let mut dated = Vec::new();
    for _ in 0..4 {
        let delivery = soon("an event", receiver.recv::<Body<Value>>()).await.unwrap();
        let Some(Value::Timestamp(at)) = annotation(delivery.message(), "x-opt-enqueued-time") else {
            panic!("no time")
        };
        dated.push(at.milliseconds());
    }
    assert_eq!(dated[..3], [day, 3 * day, 3 * day]);
    assert!(dated[3] > 10_000 * day, "then it is the real time again");
}

#[tokio::test]
async fn recreate_begins_again() {
    let (broker, mut client, mut receiver) = receiving(10, 10).await;
    broker.control().recreate();
    assert!(end_of(&mut receiver).await.contains("DetachForced"));
    broker.control().append(0, numbered(0, 0..2)).unwrap();
    let mut again = client.receiver(0, "amqp.annotation.x-opt-offset >= '0'").await;
    assert_eq!(sequences(&mut again, 0, 2).await, [0, 1]);
}

#[tokio::test]
async fn silence_keeps_links_open_and_delivers_nothing() {
    let (broker, mut client, mut zero) = receiving(1, 1).await;
    let mut one = client.receiver(1, FROM_START).await;
    assert_eq!(sequences(&mut one, 1, 1).await, [0]);
    broker.control().silence(Some(0), true).unwrap();
    broker.control().append(0, numbered(0, 1..2)).unwrap();
    broker.control().append(1, numbered(1, 1..2)).unwrap();
    assert_eq!(sequences(&mut one, 1, 1).await, [1]);
    assert!(tokio::time::timeout(Duration::from_millis(50), zero.recv::<Body<Value>>()).await.is_err());
    broker.control().silence(Some(0), false).unwrap();
    assert_eq!(sequences(&mut zero, 0, 1).await, [1]);
}

#[tokio::test]
async fn statistics_count() {
    let (broker, client, receiver) = receiving(10, 10).await;
    let found = broker.control().statistics();
    assert_eq!((found.events_in, found.events_out, found.connections, found.connections_ever), (20, 10, 1, 1));
    assert_eq!((found.partitions[0].receivers, found.partitions[0].last_sequence), (1, Some(9)));
    drop((receiver, client));
    until("the connection is gone", || broker.control().statistics().connections == 0).await;
    assert_eq!(broker.control().statistics().partitions[0].receivers, 0);
}
