//! The nodes `$cbs` and `$management`: a link with requests, and another with the answers.

use crate::hub::Hub;
use crate::inflow::{Delivery, Inflow};
use crate::management;
use crate::tokens::{Grants, verify};
use crate::wire::{Malformed, check, sections};
use fe2o3_amqp_types::messaging::message::__private::{Deserializable, Serializable};
use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, Message, Properties};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Value};
use std::collections::VecDeque;

/// Requests that may be on their way.
const CREDIT: u32 = 100;
/// Answers that may wait for credit; a client that never takes them is not to fill memory.
const MAX_WAITING: usize = 1000;

/// A node that answers requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Cbs,
    Management,
}

impl Node {
    /// The node of an address, if it is one.
    pub(crate) fn of(address: &str) -> Option<Self> {
        // Some clients put the hub before it.
        match crate::tokens::path(address).last().map(String::as_str) {
            Some("$cbs") => Some(Self::Cbs),
            Some("$management") => Some(Self::Management),
            _ => None,
        }
    }
}

/// The answer to a request, and where it belongs.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) node: Node,
    pub(crate) to: String,
    pub(crate) message: Vec<u8>,
}

/// A link on which requests come in.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) inflow: Inflow,
    node: Node,
}

impl Requests {
    pub(crate) fn new(node: Node, delivery_count: u32) -> Self {
        Self { inflow: Inflow::new(CREDIT, delivery_count), node }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, hub: &Hub, grants: &mut Grants, request: &Delivery<'_>) -> Result<Reply, Malformed> {
        let payload = request.payload.as_deref().ok_or_else(|| Malformed::new("the request is too large"))?;
        for section in sections(payload) {
            check(section?.value)?;
        }
        let read: Deserializable<Message<Body<Value>>> =
            serde_amqp::from_slice(payload).map_err(|error| Malformed::new(error.to_string()))?;
        let message = read.0;
        let properties = message.properties.unwrap_or_default();
        let fields = message.application_properties.unwrap_or_default();
        let field = |name: &str| match fields.get(name) {
            Some(SimpleValue::String(text)) => text.clone(),
            _ => String::new(),
        };
        let (operation, kind, name) = (field("operation"), field("type"), field("name"));
        let (status, description, body) = match self.node {
            Node::Cbs => {
                let token = match message.body {
                    Body::Value(AmqpValue(Value::String(token))) => token,
                    _ => String::new(),
                };
                put_token(hub, grants, &operation, &kind, &name, &token)
            }
            Node::Management if hub.options.require_tokens && !grants.touch(&hub.options.hub) => {
                let description =
                    "Unauthorized access. 'Listen' or 'Send' claim(s) are required to perform this operation.";
                (401, description.to_owned(), Value::Null)
            }
            Node::Management => management::answer(hub, &operation, &kind, &name, &field("partition")),
        };
        tracing::debug!(node = ?self.node, operation, kind, name, status, description, "answered");
        let message = response(&properties, status, description, body)?;
        Ok(Reply { node: self.node, to: properties.reply_to.unwrap_or_default(), message })
    }
}

fn put_token(
    hub: &Hub,
    grants: &mut Grants,
    operation: &str,
    kind: &str,
    name: &str,
    token: &str,
) -> management::Answer {
    if operation != "put-token" {
        return (400, format!("The operation '{operation}' is not supported."), Value::Null);
    }
    match verify(&hub.options, kind, name, token) {
        Ok(grant) => {
            grants.add(grant);
            (202, "Accepted".to_owned(), Value::Null)
        }
        // A broker that asks for no tokens takes any.
        Err(_) if !hub.options.require_tokens => (202, "Accepted".to_owned(), Value::Null),
        Err(reason) => (401, reason, Value::Null),
    }
}

fn response(request: &Properties, status: i32, description: String, body: Value) -> Result<Vec<u8>, Malformed> {
    let mut fields: OrderedMap<String, SimpleValue> = OrderedMap::new();
    // Clients look under different names.
    for name in ["status-code", "statusCode"] {
        fields.insert(name.to_owned(), SimpleValue::Int(status));
    }
    for name in ["status-description", "statusDescription"] {
        fields.insert(name.to_owned(), SimpleValue::String(description.clone()));
    }
    let correlation_id = request.correlation_id.clone().or_else(|| request.message_id.clone());
    let message = Message {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(Properties { correlation_id, ..Properties::default() }),
        application_properties: Some(ApplicationProperties(fields)),
        body: AmqpValue(body),
        footer: None,
    };
    serde_amqp::to_vec(&Serializable(message)).map_err(|error| Malformed::new(error.to_string()))
}

/// A link on which answers go out.
#[derive(Debug)]
pub(crate) struct Replies {
    pub(crate) node: Node,
    /// The address that requests name to get their answers here.
    pub(crate) address: String,
    waiting: VecDeque<Vec<u8>>,
}

impl Replies {
    pub(crate) fn new(node: Node, address: String) -> Self {
        Self { node, address, waiting: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, message: Vec<u8>) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(message);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::BrokerOptions;
    use fe2o3_amqp_types::messaging::{MessageAnnotations, MessageId};
    use std::borrow::Cow;

    fn request(node: Node, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
        let text = |text: &str| SimpleValue::String(text.to_owned());
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        let properties = Properties {
            message_id: Some(MessageId::String(format!("{node:?}"))),
            reply_to: Some("here".to_owned()),
            ..Properties::default()
        };
        let message = Message {
            header: None,
            delivery_annotations: None,
            message_annotations: Some(MessageAnnotations::builder().insert("x", Value::Long(1)).build()),
            properties: Some(properties),
            application_properties: Some(ApplicationProperties(fields)),
            body: AmqpValue(Value::String(body.to_owned())),
            footer: None,
        };
        serde_amqp::to_vec(&Serializable(message)).unwrap()
    }

    fn answer(node: Node, payload: &[u8]) -> Result<Reply, Malformed> {
        let hub = Hub::new(BrokerOptions { require_tokens: false, ..BrokerOptions::default() });
        let delivery = Delivery { id: 0, format: 0, settled: true, payload: Some(Cow::Borrowed(payload)) };
        Requests::new(node, 0).answer(&hub, &mut Grants::default(), &delivery)
    }

    #[test]
    fn no_cut_or_changed_request_makes_answering_panic() {
        let read =
            [("operation", "READ"), ("type", "com.microsoft:partition"), ("name", "transactions"), ("partition", "1")];
        let put = [("operation", "put-token"), ("type", "jwt"), ("name", "amqp://h/hub")];
        for (node, fields) in [(Node::Management, &read[..]), (Node::Cbs, &put[..])] {
            let whole = request(node, fields, "a token");
            let reply = answer(node, &whole).unwrap();
            assert_eq!((reply.to.as_str(), reply.node), ("here", node));
            for at in 0..whole.len() {
                let _ = answer(node, &whole[..at]);
                for byte in (0..=255).step_by(3).chain([0x40, 0x45, 0xc1, 0xd1]) {
                    let mut changed = whole.clone();
                    changed[at] = byte;
                    let _ = answer(node, &changed);
                }
            }
        }
    }

    #[test]
    fn operations_that_are_not_known_are_refused() {
        for (node, operation) in [(Node::Management, "CREATE"), (Node::Cbs, "take-token")] {
            let reply = answer(node, &request(node, &[("operation", operation)], "")).unwrap();
            let read: Deserializable<Message<Body<Value>>> = serde_amqp::from_slice(&reply.message).unwrap();
            assert_eq!(read.0.application_properties.unwrap().get("status-code"), Some(&SimpleValue::Int(400)));
        }
    }
}
