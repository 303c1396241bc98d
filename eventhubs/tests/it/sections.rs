//! Bodies that are no bytes.

use azure_core_amqp::message::AmqpMessageBody;
use azure_core_amqp::{AmqpList, AmqpMessage, AmqpOrderedMap, AmqpValue};
use tidemark_eventhubs::batch::Section;

use crate::support::{Reading, bodies, hub, soon};

#[tokio::test]
async fn values_come_as_json_text_and_text_as_what_it_says() {
    let (broker, hub) = hub().await;
    let producer = soon("a producer", hub.producer()).await.unwrap();
    let mut map = AmqpOrderedMap::new();
    map.insert(AmqpValue::from("event_id".to_owned()), AmqpValue::from("a".to_owned()));
    map.insert(AmqpValue::from("amount".to_owned()), AmqpValue::from(12.5f64));
    let list = |number: i64| AmqpList(vec![AmqpValue::from(number), AmqpValue::Null]);
    for body in [
        AmqpMessageBody::Value(AmqpValue::Map(map)),
        AmqpMessageBody::Sequence(vec![list(1), list(2)]),
        AmqpMessageBody::Value(AmqpValue::from("{\"text\": 1}".to_owned())),
        AmqpMessageBody::from(b"bytes".to_vec()),
    ] {
        let message = AmqpMessage::builder().with_body(body).build();
        soon("sending", producer.send_message(message, None)).await.unwrap();
    }
    let mut reading = Reading::from(&hub, 0, true);
    let (mut texts, mut sections) = (Vec::new(), Vec::new());
    while texts.len() < 4 {
        let batch = reading.batch().await;
        sections.extend(batch.sections.iter().map(|(index, section)| (batch.first + u64::from(*index), *section)));
        texts.extend(bodies(&batch).into_iter().map(|(_, text)| text));
    }
    assert_eq!(texts[..2], [r#"{"event_id":"a","amount":12.5}"#, "[[1,null],[2,null]]"]);
    assert_eq!(texts[2..], ["{\"text\": 1}", "bytes"]);
    assert_eq!(sections, [(0, Section::Value), (1, Section::Sequence)]);
    broker.stop().await;
}
