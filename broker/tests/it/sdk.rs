//! Rust's Event Hubs client.
//!
//! It runs on one thread: this version takes note of what it sent after it was sent, and hangs if the outcome comes in
//! between. Where tasks do not run at the same time nothing can come in between.

use crate::support::{numbered, options, soon, start, until};
use azure_messaging_eventhubs::models::EventData;
use azure_messaging_eventhubs::{
    ConsumerClient, EventDataBatchOptions, EventReceiver, OpenReceiverOptions, ProducerClient, RetryOptions,
    SendEventOptions, StartLocation, StartPosition,
};
use futures::StreamExt as _;
use std::sync::Once;
use tidemark_broker::{Broker, BrokerOptions};

/// The client panics where two providers are linked in and none is chosen.
pub(crate) fn provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

fn no_retries() -> RetryOptions {
    RetryOptions { max_retries: 0, ..RetryOptions::default() }
}

async fn consumer_of(broker: &Broker, group: &str, connection: &str) -> ConsumerClient {
    provider();
    let builder = ConsumerClient::builder().with_consumer_group(group.to_owned()).with_retry_options(no_retries());
    let builder = builder.with_custom_endpoint(format!("amqp://{}", broker.local_addr()));
    soon("opening a consumer", builder.open_with_connection_string(connection, None)).await.unwrap()
}

async fn consumer(broker: &Broker) -> ConsumerClient {
    consumer_of(broker, "$Default", &broker.connection_string()).await
}

async fn producer(broker: &Broker) -> ProducerClient {
    provider();
    let builder = ProducerClient::builder().with_retry_options(no_retries());
    let builder = builder.with_custom_endpoint(format!("amqp://{}", broker.local_addr()));
    soon("opening a producer", builder.open_with_connection_string(&broker.connection_string(), None)).await.unwrap()
}

async fn receiver(client: &ConsumerClient, partition: &str, after: StartLocation, level: Option<i64>) -> EventReceiver {
    let start_position = Some(StartPosition { location: after, inclusive: false });
    let options =
        OpenReceiverOptions { owner_level: level, prefetch: Some(100), start_position, receive_timeout: None };
    let opened = client.open_receiver_on_partition(partition.to_owned(), Some(options));
    soon("opening a receiver", opened).await.unwrap()
}

/// An error with all that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut all = format!("{error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        all += &format!(" <- {error:?}");
        cause = error.source();
    }
    all
}

type Received = Result<Vec<(i64, String)>, String>;

async fn receive(receiver: &EventReceiver, count: usize) -> Received {
    let mut stream = Box::pin(receiver.stream_events());
    let mut found = Vec::new();
    while found.len() < count {
        let event = soon("an event", stream.next()).await.unwrap().map_err(|error| format!("{error:?}"))?;
        let body = String::from_utf8(event.event_data().body().unwrap().to_vec()).unwrap();
        found.push((event.sequence_number().unwrap(), body));
    }
    Ok(found)
}

fn expected(partition: usize, events: std::ops::Range<u64>) -> Received {
    let bodies = numbered(partition, events.clone()).into_iter();
    Ok(events.map(|event| i64::try_from(event).unwrap()).zip(bodies).collect())
}

#[tokio::test]
async fn batches_to_all_partitions_are_received_in_order_with_their_numbers() {
    let broker = start(options()).await;
    let producer = producer(&broker).await;
    for partition in 0..2 {
        let to =
            EventDataBatchOptions { partition_id: Some(partition.to_string()), ..EventDataBatchOptions::default() };
        let batch = soon("a batch", producer.create_batch(Some(to))).await.unwrap();
        for body in numbered(partition, 0..700) {
            assert!(batch.try_add_event_data(body, None).unwrap());
        }
        soon("sending", producer.send_batch(batch, None)).await.unwrap();
        let to = Some(SendEventOptions { partition_id: Some(partition.to_string()) });
        let single = format!("p{partition} e700");
        soon("sending", producer.send_event(single, to)).await.unwrap();
    }
    let consumer = consumer(&broker).await;
    for partition in 0..2 {
        let receiver = receiver(&consumer, &partition.to_string(), StartLocation::Earliest, None).await;
        assert_eq!(receive(&receiver, 701).await, expected(partition, 0..701));
    }
    let found = broker.control().statistics();
    assert_eq!((found.events_in, found.events_out), (1402, 1402));
}

#[tokio::test]
async fn a_receiver_resumes_behind_a_number_and_at_the_oldest_event_if_that_one_is_gone() {
    let broker = start(options()).await;
    broker.control().append(1, numbered(1, 0..100)).unwrap();
    for (oldest, first) in [(0, 41), (90, 90)] {
        broker.control().expire(1, oldest).unwrap();
        // A client of its own: one that has had a receiver of a partition goes on with its link.
        let consumer = consumer(&broker).await;
        let receiver = receiver(&consumer, "1", StartLocation::SequenceNumber(40), None).await;
        let count = usize::try_from(100 - first).unwrap();
        assert_eq!(receive(&receiver, count).await, expected(1, first..100));
    }
}

#[tokio::test]
async fn what_a_producer_sets_comes_with_the_event() {
    let broker = start(options()).await;
    let producer = producer(&broker).await;
    let key = Some("user-42".to_owned());
    let to = EventDataBatchOptions { partition_key: key.clone(), ..EventDataBatchOptions::default() };
    let batch = soon("a batch", producer.create_batch(Some(to))).await.unwrap();
    let event = EventData::builder().with_body(b"body".to_vec()).with_message_id("the id".to_owned());
    let event = event.add_property("colour".to_owned(), "red").with_content_type("text/plain".to_owned()).build();
    assert!(batch.try_add_event_data(event, None).unwrap());
    soon("sending", producer.send_batch(batch, None)).await.unwrap();
    let of = |partition: usize| broker.control().statistics().partitions[partition].last_sequence;
    let partition = if of(0).is_some() { "0" } else { "1" };
    let consumer = consumer(&broker).await;
    let receiver = receiver(&consumer, partition, StartLocation::Earliest, None).await;
    let mut stream = Box::pin(receiver.stream_events());
    let event = soon("the event", stream.next()).await.unwrap().unwrap();
    assert_eq!((event.partition_key(), event.offset().as_deref()), (&key, Some("0")));
    assert!(event.enqueued_time().is_some_and(|time| time.elapsed().unwrap().as_secs() < 60));
    let data = event.event_data();
    assert_eq!((data.body(), data.content_type()), (Some(&b"body"[..]), Some("text/plain")));
    assert!(format!("{:?}", data.message_id()).contains("the id"));
    assert!(format!("{:?}", data.properties()).contains("red"));
}

#[tokio::test]
async fn a_higher_level_displaces_a_lower_one_which_cannot_come_back() {
    let broker = start(options()).await;
    broker.control().append(0, numbered(0, 0..10)).unwrap();
    let (one, two) = (consumer(&broker).await, consumer(&broker).await);
    let low = receiver(&one, "0", StartLocation::Earliest, Some(1)).await;
    assert_eq!(receive(&low, 10).await, expected(0, 0..10));
    let mut stream = Box::pin(low.stream_events());
    let high = receiver(&two, "0", StartLocation::Earliest, Some(2)).await;
    assert_eq!(receive(&high, 10).await, expected(0, 0..10));
    let displaced = soon("being displaced", stream.next()).await.unwrap().unwrap_err();
    assert!(format!("{:?}", displaced.kind).contains("ConsumerDisconnected"), "{displaced:?}");
    let low = receiver(&consumer(&broker).await, "0", StartLocation::Earliest, Some(1)).await;
    let refused = receive(&low, 1).await.unwrap_err();
    assert!(refused.contains("at least one receiver for the endpoint is created with epoch of '2'"), "{refused}");
    let other = consumer_of(&broker, "second", &broker.connection_string()).await;
    let other = receiver(&other, "0", StartLocation::Earliest, Some(0)).await;
    assert_eq!(receive(&other, 10).await, expected(0, 0..10));
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_group_are_told() {
    let broker = start(options()).await;
    let wrong = broker.connection_string().replace("SAS_KEY_VALUE", "another");
    let client = consumer_of(&broker, "$Default", &wrong).await;
    let refused = soon("properties", client.get_eventhub_properties()).await.unwrap_err();
    assert!(causes(&refused).contains("401"), "{}", causes(&refused));
    let client = consumer_of(&broker, "nobody", &broker.connection_string()).await;
    let unknown = receive(&receiver(&client, "0", StartLocation::Earliest, None).await, 1).await.unwrap_err();
    assert!(unknown.contains("could not be found"), "{unknown}");
    let client = consumer(&broker).await;
    let unknown = receive(&receiver(&client, "7", StartLocation::Earliest, None).await, 1).await.unwrap_err();
    assert!(unknown.contains("could not be found"), "{unknown}");
}

#[tokio::test]
async fn properties_say_what_is_there() {
    let broker = start(BrokerOptions { partitions: 3, ..options() }).await;
    let control = broker.control();
    let client = consumer(&broker).await;
    let hub = soon("properties", client.get_eventhub_properties()).await.unwrap();
    assert_eq!((hub.name.as_str(), hub.partition_ids.len()), ("hub", 3));
    let empty = soon("properties", client.get_partition_properties("1")).await.unwrap();
    assert_eq!((empty.is_empty, empty.last_enqueued_sequence_number), (true, -1));
    assert_eq!(empty.last_enqueued_offset, "-1");
    control.append(1, numbered(1, 0..10)).unwrap();
    control.expire(1, 4).unwrap();
    let some = soon("properties", client.get_partition_properties("1")).await.unwrap();
    assert_eq!((some.is_empty, some.beginning_sequence_number, some.last_enqueued_sequence_number), (false, 4, 9));
    control.recreate();
    let again = soon("properties", client.get_eventhub_properties()).await.unwrap();
    assert!(again.created_on > hub.created_on);
    let unknown = soon("properties", client.get_partition_properties("3")).await.unwrap_err();
    assert!(causes(&unknown).contains("404"), "{}", causes(&unknown));
}

#[tokio::test]
async fn an_error_of_the_broker_reaches_the_stream_and_a_new_client_goes_on() {
    let broker = start(options()).await;
    let control = broker.control();
    control.append(0, numbered(0, 0..100)).unwrap();
    let client = consumer(&broker).await;
    let first = receiver(&client, "0", StartLocation::Earliest, None).await;
    assert_eq!(receive(&first, 100).await, expected(0, 0..100));
    let mut stream = Box::pin(first.stream_events());
    let waits = tokio::time::timeout(std::time::Duration::from_millis(20), stream.next()).await;
    assert!(waits.is_err());
    control.detach(Some(0), "amqp:internal-error").unwrap();
    assert!(soon("an error", stream.next()).await.unwrap().is_err());
    control.append(0, numbered(0, 100..200)).unwrap();
    let client = consumer(&broker).await;
    let second = receiver(&client, "0", StartLocation::SequenceNumber(99), None).await;
    assert_eq!(receive(&second, 100).await, expected(0, 100..200));
    let mut stream = Box::pin(second.stream_events());
    let _ = tokio::time::timeout(std::time::Duration::from_millis(20), stream.next()).await;
    control.cut();
    assert!(soon("an error", stream.next()).await.unwrap().is_err());
    until("no connection is left", || control.statistics().connections == 0).await;
}
