//! Tokens over `$cbs`, and what becomes of links when they expire.

use crate::support::{Client, FROM_START, end_of, numbered, options, sequences, soon, start};
use base64::Engine as _;
use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, Message, Properties};
use fe2o3_amqp_types::primitives::{SimpleValue, Value};
use hmac::{Hmac, Mac as _};
use std::time::{SystemTime, UNIX_EPOCH};
use tidemark_broker::BrokerOptions;

/// A token for a resource, written with percent signs, that lives for so long.
fn token(resource: &str, seconds: u64) -> String {
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds;
    let mut code = Hmac::<sha2::Sha256>::new_from_slice(b"SAS_KEY_VALUE").unwrap();
    code.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(code.finalize().into_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=RootManageSharedAccessKey")
}

struct Cbs {
    sender: Sender,
    receiver: Receiver,
}

impl Cbs {
    async fn attach(client: &mut Client) -> Self {
        let session = &mut client.session;
        let sender = soon("attaching", Sender::attach(session, "to-cbs", "$cbs")).await.unwrap();
        let builder = Receiver::builder().name("from-cbs").source("$cbs").target("mine").auto_accept(true);
        let receiver = soon("attaching", builder.attach(session)).await.unwrap();
        Self { sender, receiver }
    }

    /// Puts a token. Answers status and description.
    async fn put(&mut self, kind: &str, name: &str, token: String) -> (i32, String) {
        let properties =
            Properties { message_id: Some(1u64.into()), reply_to: Some("mine".into()), ..Properties::default() };
        let text = |text: &str| SimpleValue::String(text.to_owned());
        let fields = [("operation", text("put-token")), ("type", text(kind)), ("name", text(name))];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let message = Message::builder().properties(properties).application_properties(ApplicationProperties(fields));
        soon("sending", self.sender.send(message.body(AmqpValue(Value::String(token))).build())).await.unwrap();
        let answer = soon("an answer", self.receiver.recv::<Body<Value>>()).await.unwrap().into_message();
        assert_eq!(answer.properties.unwrap().correlation_id, Some(1u64.into()));
        let fields = answer.application_properties.unwrap();
        let Some(SimpleValue::Int(status)) = fields.get("status-code") else { panic!("no status") };
        let Some(SimpleValue::String(description)) = fields.get("status-description") else { panic!("no description") };
        (*status, description.clone())
    }
}

const SAS: &str = "servicebus.windows.net:sastoken";

#[tokio::test]
async fn a_link_lives_as_long_as_its_token() {
    let broker = start(options()).await;
    broker.control().append(0, numbered(0, 0..3)).unwrap();
    let mut client = Client::connect(&broker).await;
    let mut cbs = Cbs::attach(&mut client).await;
    assert_eq!(cbs.put(SAS, "amqp://h/hub", token("amqp%3a%2f%2fh%2fhub", 2)).await.0, 202);
    let mut receiver = client.receiver(0, FROM_START).await;
    assert_eq!(sequences(&mut receiver, 0, 3).await, [0, 1, 2]);
    assert!(end_of(&mut receiver).await.contains("UnauthorizedAccess"));
    assert_eq!(cbs.put(SAS, "amqp://h/hub", token("amqp%3a%2f%2fh%2fhub", 3600)).await.0, 202);
    let mut receiver = client.receiver(0, "amqp.annotation.x-opt-offset >= '0'").await;
    assert_eq!(sequences(&mut receiver, 0, 3).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_token_covers_its_resource_and_tokens_of_entra_are_a_matter_of_options() {
    let broker = start(options()).await;
    let mut client = Client::connect(&broker).await;
    let mut cbs = Cbs::attach(&mut client).await;
    let (status, why) = cbs.put(SAS, "amqp://h/hub", token("amqp%3a%2f%2fh%2fother", 60)).await;
    assert_eq!((status, why.split(':').next()), (401, Some("InvalidAudience")));
    let group = "amqp%3a%2f%2fh%2fhub%2fConsumerGroups%2fsecond";
    assert_eq!(cbs.put(SAS, "amqp://h/hub/ConsumerGroups/second/Partitions/0", token(group, 60)).await.0, 202);
    let mut receiver = client.receiver(0, FROM_START).await;
    assert!(end_of(&mut receiver).await.contains("UnauthorizedAccess"));
    let (status, why) = cbs.put("jwt", "amqp://h/hub", "a.b.c".to_owned()).await;
    assert_eq!((status, why.split(':').next()), (401, Some("InvalidToken")));
    let broker = start(BrokerOptions { accept_jwt: true, ..options() }).await;
    broker.control().append(0, numbered(0, 0..1)).unwrap();
    let mut client = Client::connect(&broker).await;
    let mut cbs = Cbs::attach(&mut client).await;
    assert_eq!(cbs.put("jwt", "amqp://h/hub", "a.b.c".to_owned()).await.0, 202);
    let mut receiver = client.receiver(0, FROM_START).await;
    assert_eq!(sequences(&mut receiver, 0, 1).await, [0]);
}
