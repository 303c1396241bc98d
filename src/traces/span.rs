//! A span, and how OTLP writes it in JSON: ids as hexadecimal text, 64-bit numbers as decimal text.

use serde_json::{Value, json};
use tidemark_dataflows::event::Micros;

/// What a span belongs to, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace: u128,
    pub(super) span: u64,
}

impl Ids {
    /// Those of a new trace.
    pub(super) fn new() -> Ids {
        Ids { trace: (u128::from(drawn()) << 64) | u128::from(drawn()), span: drawn() }
    }

    /// Those of another span of the same trace.
    pub(super) fn beside(self) -> Ids {
        Ids { span: drawn(), ..self }
    }
}

/// A number other than 0, which stands for no id.
fn drawn() -> u64 {
    // Without random numbers of the system, a count is still no other span of this process.
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let counted = || COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    getrandom::u64().ok().filter(|number| *number != 0).unwrap_or_else(counted)
}

/// Something that took from one instant to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) ids: Ids,
    pub(super) parent: Option<u64>,
    pub(super) from: Micros,
    pub(super) to: Micros,
    pub(super) attributes: Vec<(&'static str, Value)>,
}

impl Span {
    fn to_json(&self) -> Value {
        let nanos = |at: Micros| (i128::from(at.0) * 1_000).to_string();
        let attributes: Vec<Value> = self.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
        let mut span = json!({
            "traceId": format!("{:032x}", self.ids.trace),
            "spanId": format!("{:016x}", self.ids.span),
            "name": self.name,
            // Internal: neither asked for nor asking.
            "kind": 1,
            "startTimeUnixNano": nanos(self.from),
            "endTimeUnixNano": nanos(self.to),
            "attributes": attributes,
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = format!("{parent:016x}").into();
        }
        span
    }
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Bool(on) => json!({ "boolValue": on }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": key, "value": value })
}

/// The body of a request.
pub(super) fn envelope(pipeline: &str, spans: &[Span]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [("service.name", "tidemark"), ("service.version", version), ("tidemark.pipeline", pipeline)];
    let resource: Vec<Value> = resource.iter().map(|(key, value)| attribute(key, &json!(value))).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": "tidemark", "version": version },
            "spans": spans.iter().map(Span::to_json).collect::<Vec<_>>(),
        }],
    }] })
}
