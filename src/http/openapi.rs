//! The description of the API, made from the types of its answers.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

use super::answers::{
    Checkpoints, Contract, Everything, Graph, History, Quarantine, Readiness, Refusal, Status, Tables,
};

static DOCUMENT: LazyLock<Value> = LazyLock::new(describe);

/// The description, as OpenAPI 3.1.
pub fn document() -> &'static Value {
    &DOCUMENT
}

fn describe() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    add::<Status>(&mut paths, &mut schemas, "/api/v1/status", "The pipeline at a glance");
    add::<Graph>(&mut paths, &mut schemas, "/api/v1/graph", "The way of the epochs, stage by stage");
    add::<Contract>(&mut paths, &mut schemas, "/api/v1/contract", "What becomes of events by the rules");
    add::<Quarantine>(&mut paths, &mut schemas, "/api/v1/quarantine", "The newest rejected events, masked");
    add::<Tables>(&mut paths, &mut schemas, "/api/v1/tables", "What readers see: the metrics and every table");
    add::<Checkpoints>(&mut paths, &mut schemas, "/api/v1/checkpoints", "What is kept for a restart");
    add::<History>(&mut paths, &mut schemas, "/api/v1/history", "The last hour");
    add::<Everything>(&mut paths, &mut schemas, "/api/v1/all", "All of it at one instant, but for the history");
    let streamed = schemas.subschema_for::<Everything>();
    let text = json!({"text/event-stream": {"schema": {"type": "string"}, "x-event-data": streamed}});
    let said = "The same every second, as server-sent events";
    paths.insert("/api/v1/stream".to_owned(), operation(said, "200", "A picture every second", &text));
    let readiness = json!({"application/json": {"schema": schemas.subschema_for::<Readiness>()}, "text/plain": {}});
    let mut ready = operation("Whether the process does its work", "200", "It does", &readiness);
    ready["get"]["responses"]["503"] = json!({"description": "It does not, and why", "content": readiness});
    ready["get"]["security"] = json!([]);
    paths.insert("/readyz".to_owned(), ready);
    let mut alive = operation("Whether the process lives", "200", "It does", &json!({"text/plain": {}}));
    alive["get"]["security"] = json!([]);
    paths.insert("/livez".to_owned(), alive);
    let metrics = json!({"application/openmetrics-text": {}});
    paths.insert("/metrics".to_owned(), operation("Metrics for Prometheus", "200", "OpenMetrics", &metrics));
    let refusal = schemas.subschema_for::<Refusal>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemark",
            "version": "1",
            "description": "What a running pipeline says of itself. Nothing can be changed through it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "responses": {"Refused": {
                "description": "Why there is no answer",
                "content": {"application/json": {"schema": refusal}},
            }},
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer", "description": "The value of http.token, where one is set",
            }},
        },
    })
}

fn add<T: JsonSchema>(paths: &mut Map<String, Value>, schemas: &mut SchemaGenerator, path: &str, summary: &str) {
    let content = json!({"application/json": {"schema": schemas.subschema_for::<T>()}});
    paths.insert(path.to_owned(), operation(summary, "200", summary, &content));
}

fn operation(summary: &str, status: &str, description: &str, content: &Value) -> Value {
    let refused = json!({"$ref": "#/components/responses/Refused"});
    json!({"get": {"summary": summary, "responses": {
        status: {"description": description, "content": content}, "default": refused,
    }}})
}
