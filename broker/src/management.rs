//! The node `$management`: what it answers to READ.

use crate::hub::Hub;
use fe2o3_amqp_types::primitives::{Array, OrderedMap, Timestamp, Value};

/// Status, description and body of an answer.
pub(crate) type Answer = (i32, String, Value);

fn map(fields: Vec<(&str, Value)>) -> Value {
    let fields: OrderedMap<Value, Value> =
        fields.into_iter().map(|(name, value)| (Value::String(name.to_owned()), value)).collect();
    Value::Map(fields)
}

fn long(number: u64) -> Value {
    Value::Long(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Answers a request by its operation, type, name and partition.
pub(crate) fn answer(hub: &Hub, operation: &str, kind: &str, name: &str, partition: &str) -> Answer {
    if !operation.eq_ignore_ascii_case("READ") {
        return (400, format!("The operation '{operation}' is not supported."), Value::Null);
    }
    if !hub.is_hub(name) {
        return (404, format!("The messaging entity '{name}' could not be found."), Value::Null);
    }
    match kind {
        "com.microsoft:eventhub" => (200, "OK".to_owned(), describe_hub(hub)),
        "com.microsoft:partition" => match hub.partition_id(partition) {
            Some(index) => (200, "OK".to_owned(), describe_partition(hub, index)),
            None => {
                let what = format!("{name}/Partitions/{partition}");
                (404, format!("The messaging entity '{what}' could not be found."), Value::Null)
            }
        },
        _ => (400, format!("The entity type '{kind}' is not supported."), Value::Null),
    }
}

fn describe_hub(hub: &Hub) -> Value {
    let ids: Vec<Value> = (0..hub.partitions().len()).map(|index| Value::String(index.to_string())).collect();
    map(vec![
        ("name", Value::String(hub.options.hub.clone())),
        ("type", Value::String("com.microsoft:eventhub".to_owned())),
        ("created_at", Value::Timestamp(Timestamp::from_milliseconds(hub.created()))),
        ("partition_count", Value::Int(i32::try_from(ids.len()).unwrap_or(i32::MAX))),
        ("partition_ids", Value::Array(Array::from(ids))),
        ("georeplication_factor", Value::Int(1)),
    ])
}

fn describe_partition(hub: &Hub, index: usize) -> Value {
    let bounds = hub.bounds(index);
    let last = i64::try_from(bounds.next).unwrap_or(i64::MAX) - 1;
    let (offset, time) = bounds.last.map_or(("-1".to_owned(), 0), |(offset, time)| (offset.to_string(), time));
    map(vec![
        ("name", Value::String(hub.options.hub.clone())),
        ("type", Value::String("com.microsoft:partition".to_owned())),
        ("partition", Value::String(index.to_string())),
        ("begin_sequence_number", long(bounds.begin)),
        ("begin_sequence_number_epoch", Value::Long(0)),
        ("last_enqueued_sequence_number", Value::Long(last)),
        ("last_enqueued_sequence_number_epoch", Value::Long(0)),
        ("last_enqueued_offset", Value::String(offset)),
        ("last_enqueued_time_utc", Value::Timestamp(Timestamp::from_milliseconds(time))),
        ("is_partition_empty", Value::Bool(bounds.begin == bounds.next)),
        ("runtime_info_retrieval_time_utc", Value::Timestamp(Timestamp::from_milliseconds(crate::hub::now()))),
    ])
}
