//! What the metrics and the API say is what happened, and what their description says.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemark::http::openapi;

use super::ask::{Answer, Served};
use crate::data::Event;
use crate::program::Case;
use crate::tables::{MANIFEST, REJECTED, Tables};

/// Every sample of `/metrics`, by name with labels.
fn samples(answer: &Answer) -> BTreeMap<String, f64> {
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    lines.map(sample).collect()
}

fn sum(samples: &BTreeMap<String, f64>, prefix: &str) -> f64 {
    samples.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
}

#[test]
fn events_by_outcome_sum_to_what_was_received() {
    let case = Case::new();
    let (served, pipe) = Served::with_events(&case, 4_000, "--workers 2");
    let samples = samples(&served.get("/metrics"));
    assert_eq!(samples["tidemark_received_events_total"], 4_000.0);
    assert_eq!(sum(&samples, "tidemark_events_total{"), 4_000.0);
    let rejected = samples["tidemark_events_total{outcome=\"rejected\"}"];
    assert!(rejected > 100.0, "{rejected}");
    assert_eq!(sum(&samples, "tidemark_rejected_events_total{"), rejected);
    assert_eq!(samples["tidemark_source_events_total"], 4_000.0);
    for stage in ["cut", "decoded", "distinct", "aggregated", "delivered", "published"] {
        assert_eq!(samples[&format!("tidemark_epoch{{stage=\"{stage}\"}}")], 4.0, "{stage}");
    }
    // Each publication is one commit to every table, and each of them is timed.
    let commits = "tidemark_commit_duration_seconds_count{table=\"metrics/net_flow\"}";
    assert_eq!(samples[commits], samples["tidemark_publication_duration_seconds_count"]);
    let infinite = samples["tidemark_publication_latency_seconds_bucket{le=\"+Inf\"}"];
    assert_eq!(infinite, samples["tidemark_publication_latency_seconds_count"]);
    assert!(samples["tidemark_index_bytes"] > 0.0 && samples["process_resident_memory_bytes"] > 1e6);
    // The same figures are in the tables.
    let all = served.json("/api/v1/all");
    let accepted = &samples["tidemark_events_total{outcome=\"accepted\"}"];
    let net = &all["tables"]["net_flow"];
    assert_eq!(net["deposit_count"].as_f64().unwrap() + net["withdrawal_count"].as_f64().unwrap(), *accepted);
    let events = &all["contract"]["events"];
    assert_eq!(events["received"], json!(4_000));
    drop(pipe);
    served.running.ended().well();
    let tables = Tables::read(&case.path("out"));
    for (column, outcome) in [
        ("total_events_received", "received"),
        ("total_events_valid", "accepted"),
        ("total_duplicate_events", "duplicates"),
        ("total_events_rejected", "rejected"),
    ] {
        assert_eq!(json!(u64::try_from(tables.wholes(&MANIFEST, column)[0]).unwrap()), events[outcome], "{column}");
    }
}

/// The schema of the answer to a path, with everything that it refers to.
fn schema(path: &str) -> Value {
    let document = openapi::document();
    let mut schema =
        document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{path} is not described");
    schema["components"] = document["components"].clone();
    schema
}

#[test]
fn answers_are_as_they_are_described() {
    let case = Case::new();
    let (served, _pipe) = Served::with_events(&case, 4_000, "--checkpoint-interval 0s");
    served.await_that("/api/v1/all", |all| all["checkpoints"]["count"] != 0 && all["newest"]["at"] != 0.0);
    let document = served.json("/api/v1/openapi.json");
    assert_eq!(&document, openapi::document());
    let mut asked = 0;
    for path in document["paths"].as_object().unwrap().keys() {
        if path == "/api/v1/stream" || path == "/metrics" || path == "/livez" {
            continue;
        }
        let answer = served.ask("GET", path, &[("Host", "localhost"), ("Accept", "application/json")]);
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{path}: {answer:?}"));
        let validator = jsonschema::validator_for(&schema(path)).unwrap();
        let wrong: Vec<String> =
            validator.iter_errors(&answer).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{path}: {wrong:?}\n{answer:#}");
        // A description that allows anything describes nothing.
        assert!(!validator.is_valid(&json!({"nothing": 1})), "{path}");
        asked += 1;
    }
    assert_eq!(asked, 9);
    // What is streamed is described by the same schema as what is asked for.
    let streamed = served.await_that("/api/v1/all", |_| true);
    assert!(jsonschema::is_valid(&schema("/api/v1/all"), &streamed));
    assert_eq!(served.get("/livez").body, "alive\n");
    assert_eq!(served.get("/readyz").body, "ready\n");
}

#[test]
fn what_holds_the_watermark_back_is_told() {
    let case = Case::new();
    let served = Served::held_back(&case);
    let all = served.await_that("/api/v1/all", |all| all["status"]["time"]["held_back"].is_object());
    let held = &all["status"]["time"]["held_back"];
    assert_eq!(held["partition"], "slow.ndjson");
    // Of as many events of both, those of one are half an hour later; the tenth newest of the slow one is its time.
    assert_eq!(held["behind_seconds"], 1_809.0, "{held}");
    assert!(held["event_time"].as_str().unwrap() < all["status"]["time"]["newest_event_time"].as_str().unwrap());
    assert!(held["since"].as_str().unwrap() <= all["status"]["time"]["now"].as_str().unwrap());
    assert!(jsonschema::is_valid(&schema("/api/v1/all"), &all));
    let samples = samples(&served.get("/metrics"));
    assert_eq!(samples["tidemark_watermark_held_back_seconds{partition=\"slow.ndjson\"}"], 1_809.0);
    let since = samples["tidemark_watermark_held_back_since_timestamp_seconds{partition=\"slow.ndjson\"}"];
    assert!(since > samples["process_start_time_seconds"] - 1.0, "{since}");
    let shown = case.tidemark(&["status", "--url", &format!("http://{}", served.address)]).stdout;
    assert!(shown.contains("held back by partition slow.ndjson for "), "{shown}");
    assert!(shown.contains(", 30m 9s behind\n"), "{shown}");
}

#[test]
fn rejected_events_are_shown_masked() {
    let case = Case::new();
    let (served, mut pipe) = Served::with_events(&case, 400, "");
    let secret = r#"{"event_id":"told-apart","user_id":"Zoe-4711","event_time":"2025-01-01T00:00:00Z","ingest_time":"2025-01-01T00:00:00Z","event_type":"deposit_completed","amount":-47.11,"currency":"GBP","channel":"web"}"#;
    let events = format!("{secret}\n").repeat(100);
    std::io::Write::write_all(&mut pipe, events.as_bytes()).unwrap();
    let all = served.await_that("/api/v1/all", |all| all["tables"]["epoch"] == 5);
    let newest = &all["quarantine"]["events"][0];
    assert_eq!(newest["event_id"], "told-apart");
    assert_eq!(newest["reason"], "R120_non_positive_amount");
    assert_eq!(newest["epoch"], 5);
    let payload = newest["masked_payload"].as_str().unwrap();
    assert!(payload.contains(r#""amount":-99.99,"currency":"GBP","channel":"web""#), "{payload}");
    assert!(!all.to_string().contains("4711"), "{all}");
    assert_eq!(all["quarantine"]["events"].as_array().unwrap().len(), 50);
}

#[test]
fn what_was_counted_before_a_restart_is_shown_after_it() {
    let case = Case::new();
    let args = "--input in --epoch-events 500 --workers 1";
    case.tidemark(&["generate", "--out", "in", "--events", "2000", "--seed", "3", "--partitions", "1"]).well();
    case.tidemark(&["run", "--output", "out", "--input", "in", "--epoch-events", "500"]).well();
    let stopped = [("FAILPOINTS", "source-ended=return")];
    let served = Served::start(&case, args, &stopped);
    let all = served.await_that("/api/v1/all", |all| all["status"]["state"] == "running");
    assert_eq!(all["contract"]["events"]["received"], 2_000);
    let net = &all["tables"]["net_flow"];
    let count = net["deposit_count"].as_u64().unwrap() + net["withdrawal_count"].as_u64().unwrap();
    assert_eq!(all["contract"]["events"]["accepted"], count);
    assert_eq!(all["tables"]["top_users"].as_array().unwrap().len(), 10);
    assert_eq!((all["checkpoints"]["restore"]["epoch"].as_u64(), all["tables"]["epoch"].as_u64()), (Some(4), Some(4)));
    // What was rejected is read beside, and comes when it comes.
    let all = served.await_that("/api/v1/all", |all| all["quarantine"]["events"] != json!([]));
    let tables = Tables::read(&case.path("out"));
    let rejected = tables.texts(&REJECTED, "rejection_reason").len().min(50);
    let events = all["quarantine"]["events"].as_array().unwrap();
    assert_eq!(events.len(), rejected);
    let place = |event: &Value| (event["epoch"].as_u64(), event["offset"].as_u64());
    assert!(events.is_sorted_by_key(|event| std::cmp::Reverse(place(event))) && place(&events[0]).0 == Some(4));
    let masked =
        |event: &Value| event["masked_payload"].as_str().unwrap().chars().all(|c| !c.is_ascii_digit() || c == '9');
    assert!(rejected > 10 && events.iter().all(masked), "{events:?}");
    // Counters of the process are another thing: they begin anew.
    assert_eq!(samples(&served.get("/metrics"))["tidemark_received_events_total"], 0.0);
}

#[test]
fn payloads_that_are_left_out_are_counted() {
    let lines: Vec<String> = (10..30).map(|index| Event::new(&format!("e{index}"), 0).amount("0").line()).collect();
    let case = Case::of(std::slice::from_ref(&lines));
    let flags = format!("--input in --epoch-events 20 --max-quarantine-bytes {}B", 3 * lines[0].len());
    let mut served = Served::start(&case, &flags, &[("FAILPOINTS", "group-published=return")]);
    served.running.await_line("stopped at group-published");
    let metrics = served.get("/metrics").body;
    assert!(metrics.contains("tidemark_omitted_payloads_total 17"), "{metrics}");
    assert_eq!(served.json("/api/v1/quarantine")["events"][0]["masked_payload"], "(omitted)");
}
