//! Plain AMQP.

use crate::support::{Client, FROM_START, end_of, next, numbered, open_broker, options, sequences, soon, start, text};
use crate::support::{annotation, until};
use fe2o3_amqp::Sender;
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp_types::messaging::{
    AmqpSequence, AmqpValue, Batch, Body, Data, Message, MessageAnnotations, Outcome, Properties,
};
use fe2o3_amqp_types::primitives::{Binary, Value};
use std::time::Duration;
use tidemark_broker::{BrokerOptions, Retention};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const EARLIEST: &str = FROM_START;

async fn sender(client: &mut Client, address: &str) -> Sender {
    soon("attaching a sender", Sender::attach(&mut client.session, address.to_owned(), address)).await.unwrap()
}

#[tokio::test]
async fn bodies_of_all_kinds_come_as_they_were_sent() {
    let broker = open_broker().await;
    let mut client = Client::connect(&broker).await;
    let mut sender = sender(&mut client, "hub/Partitions/0").await;
    let parts = Batch::new(vec![Data(Binary::from(b"one".to_vec())), Data(Binary::from(b"two".to_vec()))]);
    let rows = AmqpSequence::new(vec![Value::Long(1), Value::String("x".into())]);
    let properties = Properties { subject: Some("subject".into()), ..Properties::default() };
    let sent = [
        soon("sending", sender.send(Message::builder().properties(properties).body(parts).build())).await,
        soon("sending", sender.send(Message::builder().body(AmqpValue(Value::Bool(true))).build())).await,
        soon("sending", sender.send(Message::builder().body(rows).build())).await,
    ];
    assert!(sent.iter().all(|outcome| matches!(outcome, Ok(Outcome::Accepted(_)))), "{sent:?}");
    let mut receiver = client.receiver(0, EARLIEST).await;
    let mut bodies = Vec::new();
    for sequence in 0..3 {
        let delivery = soon("an event", receiver.recv::<Body<Value>>()).await.unwrap();
        assert_eq!(annotation(delivery.message(), "x-opt-sequence-number"), Some(Value::Long(sequence)));
        if sequence == 0 {
            let read = delivery.message().properties.as_ref().unwrap();
            assert_eq!((read.subject.as_deref(), text(delivery.message()).as_str()), (Some("subject"), "onetwo"));
        }
        bodies.push(delivery.into_body());
    }
    assert!(matches!(&bodies[1], Body::Value(AmqpValue(Value::Bool(true)))));
    assert!(matches!(&bodies[2], Body::Sequence(_)));
}

#[tokio::test]
async fn a_message_that_is_too_large_or_broken_is_rejected_and_the_link_lives_on() {
    let broker = open_broker().await;
    let mut client = Client::connect(&broker).await;
    let mut sender = sender(&mut client, "hub/Partitions/1").await;
    // The client knows the limit and refuses itself, so the message comes in a batch that is no batch.
    let broken =
        Sendable::builder().message(Message::builder().data(vec![1u8; 100]).build()).message_format(0x8001_3700);
    let outcome = soon("sending", sender.send(broken.build())).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Rejected(rejected) if format!("{rejected:?}").contains("DecodeError")),
        "{outcome:?}"
    );
    let largest = Message::builder().data(vec![b'x'; 1024 * 1024 - 200]).build();
    assert!(matches!(soon("sending", sender.send(largest)).await, Ok(Outcome::Accepted(_))));
    assert_eq!(broker.control().statistics().partitions[1].last_sequence, Some(0));
    let mut receiver = client.receiver(1, EARLIEST).await;
    assert_eq!(next(&mut receiver).await.unwrap().body.len(), 1024 * 1024 - 200);
}

#[tokio::test]
async fn a_key_on_a_link_to_one_partition_stays_with_the_event_and_decides_nothing() {
    let broker = open_broker().await;
    let mut client = Client::connect(&broker).await;
    // 1867 % 2: without the link, the key would choose the other one.
    let mut sender = sender(&mut client, "hub/Partitions/0").await;
    let key = MessageAnnotations::builder().insert("x-opt-partition-key", Value::String("user-42".into())).build();
    let message = Message::builder().message_annotations(key).data(b"x".to_vec()).build();
    assert!(matches!(soon("sending", sender.send(message)).await, Ok(Outcome::Accepted(_))));
    let mut receiver = client.receiver(0, EARLIEST).await;
    let delivery = soon("the event", receiver.recv::<Body<Value>>()).await.unwrap();
    let key = annotation(delivery.message(), "x-opt-partition-key");
    assert_eq!(key, Some(Value::String("user-42".into())));
}

#[tokio::test]
async fn keys_choose_a_partition_and_without_one_they_take_turns() {
    let broker = start(BrokerOptions { require_tokens: false, partitions: 4, ..options() }).await;
    let mut client = Client::connect(&broker).await;
    let mut sender = sender(&mut client, "hub").await;
    let keyed = |key: &str| {
        let key = MessageAnnotations::builder().insert("x-opt-partition-key", Value::String(key.into())).build();
        Message::builder().message_annotations(key).data(b"x".to_vec()).build()
    };
    for _ in 0..3 {
        soon("sending", sender.send(keyed("user-42"))).await.unwrap();
    }
    let last = || broker.control().statistics().partitions.iter().map(|p| p.last_sequence).collect::<Vec<_>>();
    // 1867 % 4, as the service computes it.
    assert_eq!(last(), [None, None, None, Some(2)]);
    for _ in 0..8 {
        soon("sending", sender.send(Message::builder().data(b"x".to_vec()).build())).await.unwrap();
    }
    assert_eq!(last(), [Some(1), Some(1), Some(1), Some(4)]);
}

#[tokio::test]
async fn filters_begin_where_they_say_and_at_the_oldest_event_if_that_is_gone() {
    let broker = open_broker().await;
    broker.control().append(0, numbered(0, 0..100)).unwrap();
    let mut client = Client::connect(&broker).await;
    let mut all = client.receiver(0, EARLIEST).await;
    let mut offsets = Vec::new();
    for _ in 0..100 {
        let delivery = soon("an event", all.recv::<Body<Value>>()).await.unwrap();
        let Some(Value::String(offset)) = annotation(delivery.message(), "x-opt-offset") else { panic!("no offset") };
        offsets.push(offset);
    }
    let first = async |client: &mut Client, filter: String| {
        let mut receiver = client.receiver(0, &filter).await;
        let sequence = next(&mut receiver).await.unwrap().sequence;
        receiver.close().await.unwrap();
        sequence
    };
    let offset = &offsets[50];
    assert_eq!(first(&mut client, format!("amqp.annotation.x-opt-offset > '{offset}'")).await, 51);
    assert_eq!(first(&mut client, format!("amqp.annotation.x-opt-offset >= '{offset}'")).await, 50);
    broker.control().expire(0, 70).unwrap();
    assert_eq!(first(&mut client, format!("amqp.annotation.x-opt-offset >= '{offset}' ")).await, 70);
    assert_eq!(first(&mut client, "amqp.annotation.x-opt-sequence-number > '80'".into()).await, 81);
    assert_eq!(first(&mut client, "amqp.annotation.x-opt-sequence-number >= '3'".into()).await, 70);
    // Five receivers are allowed; the sixth needs another connection's place, so these are given back.
    drop(client);
    until("links are gone", || broker.control().statistics().partitions[0].receivers == 0).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(first(&mut client, "amqp.annotation.x-opt-enqueued-time > '0'".into()).await, 70);
    let mut latest = client.receiver(0, "amqp.annotation.x-opt-offset > '@latest'").await;
    let mut beyond = client.receiver(0, "amqp.annotation.x-opt-sequence-number > '5000'").await;
    broker.control().append(0, numbered(0, 100..101)).unwrap();
    assert_eq!(sequences(&mut latest, 0, 1).await, [100]);
    assert_eq!(sequences(&mut beyond, 0, 1).await, [100]);
}

#[tokio::test]
async fn no_more_is_delivered_than_there_is_credit_for() {
    let broker = open_broker().await;
    broker.control().append(0, numbered(0, 0..100)).unwrap();
    let mut client = Client::connect(&broker).await;
    let path = "hub/ConsumerGroups/$Default/Partitions/0";
    let mut receiver = client.receiver_at(path, EARLIEST, CreditMode::Manual).await;
    soon("giving credit", receiver.set_credit(7)).await.unwrap();
    assert_eq!(sequences(&mut receiver, 0, 7).await, (0..7).collect::<Vec<_>>());
    let more = tokio::time::timeout(Duration::from_millis(50), receiver.recv::<Body<Value>>()).await;
    assert!(more.is_err());
    assert_eq!(broker.control().statistics().events_out, 7);
    soon("giving credit", receiver.set_credit(5)).await.unwrap();
    assert_eq!(sequences(&mut receiver, 0, 5).await, (7..12).collect::<Vec<_>>());
}

#[tokio::test]
async fn entities_that_do_not_exist_and_sixth_receivers_are_refused() {
    let broker = open_broker().await;
    let mut client = Client::connect(&broker).await;
    for path in ["hub/ConsumerGroups/nobody/Partitions/0", "hub/ConsumerGroups/$Default/Partitions/2", "other", "hub"] {
        let mut receiver = client.receiver_at(path, EARLIEST, CreditMode::Auto(1)).await;
        let error = end_of(&mut receiver).await;
        assert!(error.contains("NotFound"), "{path}: {error}");
    }
    let mut receivers = Vec::new();
    for index in 0..5 {
        receivers.push(client.receiver(1, &format!("amqp.annotation.x-opt-offset > '{index}'")).await);
    }
    let mut sixth = client.receiver(1, EARLIEST).await;
    assert!(end_of(&mut sixth).await.contains("ResourceLimitExceeded"));
    let mut odd = client.receiver(0, "a filter of another kind").await;
    assert!(end_of(&mut odd).await.contains("InvalidField"));
}

#[tokio::test]
async fn without_a_token_nothing_is_given_and_a_key_in_the_handshake_is_as_good() {
    let broker = start(options()).await;
    broker.control().append(0, numbered(0, 0..3)).unwrap();
    let mut client = Client::connect(&broker).await;
    let mut receiver = client.receiver(0, EARLIEST).await;
    assert!(end_of(&mut receiver).await.contains("UnauthorizedAccess"));
    let plain = |password: &str| SaslProfile::Plain {
        username: "RootManageSharedAccessKey".to_owned(),
        password: password.to_owned(),
    };
    assert!(Client::connect_as(&broker, plain("wrong")).await.is_err());
    let mut client = Client::connect_as(&broker, plain("SAS_KEY_VALUE")).await.unwrap();
    let mut receiver = client.receiver(0, EARLIEST).await;
    assert_eq!(sequences(&mut receiver, 0, 3).await, [0, 1, 2]);
}

#[tokio::test]
async fn retention_forgets_the_oldest_and_a_slow_receiver_goes_on_behind_the_gap() {
    let retention = Retention { events: Some(50), ..Retention::default() };
    let broker = start(BrokerOptions { require_tokens: false, retention, ..options() }).await;
    broker.control().append(0, numbered(0, 0..50)).unwrap();
    let mut client = Client::connect(&broker).await;
    let path = "hub/ConsumerGroups/$Default/Partitions/0";
    let mut receiver = client.receiver_at(path, EARLIEST, CreditMode::Manual).await;
    soon("giving credit", receiver.set_credit(2)).await.unwrap();
    assert_eq!(sequences(&mut receiver, 0, 2).await, [0, 1]);
    broker.control().append(0, numbered(0, 50..100)).unwrap();
    soon("giving credit", receiver.set_credit(2)).await.unwrap();
    assert_eq!(sequences(&mut receiver, 0, 2).await, [50, 51]);
}

#[tokio::test]
async fn stopping_says_good_bye_to_clients() {
    let broker = open_broker().await;
    let mut client = Client::connect(&broker).await;
    let _receiver = client.receiver(0, EARLIEST).await;
    soon("stopping", broker.stop()).await;
    let closed = soon("being told", client.connection.on_close()).await;
    assert!(format!("{closed:?}").contains("ConnectionForced"), "{closed:?}");
}

/// Sends bytes and reads what comes until the broker ends the connection.
async fn answer_to(broker: &tidemark_broker::Broker, bytes: &[u8]) -> Vec<u8> {
    let mut stream = soon("connecting", TcpStream::connect(broker.local_addr())).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn what_is_no_amqp_ends_its_connection_and_nothing_else() {
    let broker = open_broker().await;
    let greeting = b"AMQP\x00\x01\x00\x00";
    let hostile: [(&[u8], &[u8]); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b""),
        (greeting, b"\xff\xff\xff\xff\x02\x00\x00\x00"),
        (greeting, b"\x00\x00\x00\x09\x02\x00\x00\x00\x00"),
        (greeting, b"\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x14\x45"),
        (b"AMQP\x03\x01\x00\x00", b"\x00\x00\x00\x0c\x02\x01\x00\x00\x00\x53\x41\x45"),
    ];
    for (header, rest) in hostile {
        answer_to(&broker, &[header, rest].concat()).await;
    }
    until("no connection is left", || broker.control().statistics().connections == 0).await;
    broker.control().append(0, numbered(0, 0..1)).unwrap();
    let mut client = Client::connect(&broker).await;
    let mut receiver = client.receiver(0, EARLIEST).await;
    assert_eq!(sequences(&mut receiver, 0, 1).await, [0]);
}
