//! `tidemark status`.

use std::process::Stdio;

use super::ask::Served;
use crate::data::Event;
use crate::program::{Case, Running, tidemark};

#[test]
fn a_running_instance_is_shown_at_a_glance() {
    let case = Case::new();
    let (served, _pipe) = Served::with_events(&case, 400, "");
    let shown = case.tidemark(&["status", "--console", &served.address]).well().stdout;
    for word in
        ["running, ready", "400 received", "published", "M", "metrics/net_flow", "R120_non_positive_amount", "net flow"]
    {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let json = case.tidemark(&["status", "--json", "--url", &format!("http://{}", served.address)]).well().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["status"]["ready"], true);
}

#[test]
fn the_status_says_whether_it_is_ready_and_whether_it_is_there() {
    let case = Case::new();
    let served = Served::start(&case, "--rate 10", &[("FAILPOINTS", "generation-claimed=return")]);
    let url = format!("http://{}", served.address);
    let ended = case.tidemark(&["status", "--url", &url]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(ended.stdout.contains("NOT READY") && ended.stdout.contains("starting"), "{}", ended.stdout);
    let ready = served.ask("GET", "/readyz", &[("Host", "localhost"), ("Accept", "application/json")]);
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with(r#"{"ready":false,"reasons":["starting"#), "{}", ready.body);
    drop(served);
    case.tidemark(&["status", "--url", &url]).fails_with(3, &["no answer from", &url]);
    case.tidemark(&["status", "--url", "ftp://x"]).fails_with(2, &["--url ftp://x", "allowed"]);
    case.tidemark(&["status", "--console", "off"]).fails_with(2, &["http.listen = off"]);
}

#[test]
fn a_stage_at_which_epochs_wait_is_named() {
    let case = Case::new();
    // The third publication never begins.
    let stuck = [("FAILPOINTS", "before-table=2*off->return")];
    let served = Served::start(&case, "--rate 100 --trigger 100ms --workers 1", &stuck);
    let all = served.await_that("/api/v1/all", |all| !all["graph"]["stuck_at"].is_null());
    assert_eq!(all["graph"]["stuck_at"], "published");
    assert_eq!(all["status"]["ready"], false);
    let ready = served.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "not ready\nepochs wait: no epoch is published\n"));
    let metrics = served.get("/metrics").body;
    assert!(metrics.contains("tidemark_ready 0"), "{metrics}");
}

#[test]
fn what_ends_the_run_is_told_until_it_has_ended() {
    let case = Case::of(&[(0..40).map(|index| Event::new(&format!("e{index}"), 0).amount("0").line()).collect()]);
    let bound = "--input in --epoch-events 20 --max-rejected-share 0.5 --set breaker.min_events=1 --workers 1";
    // The publication of the epoch stands still.
    let served = Served::start(&case, bound, &[("FAILPOINTS", "before-table=return")]);
    let all = served.await_that("/api/v1/all", |all| all["status"]["services"].to_string().contains("breaker"));
    assert_eq!(all["status"]["ready"], false);
    let ready = served.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("breaker: ") && ready.body.contains("20 of 20 events of epoch 1"), "{}", ready.body);
    let status = case.tidemark(&["status", "--url", &format!("http://{}", served.address)]);
    assert!(status.code() == 1 && status.stdout.contains("breaker fails"), "{}", status.stdout);
}

#[test]
fn watching_ends_when_nobody_answers_any_more() {
    let case = Case::new();
    let served = Served::start(&case, "--rate 100 --trigger 100ms --workers 1", &[]);
    let url = format!("http://{}", served.address);
    let mut command = tidemark(case.root(), ["status", "--watch", "--json", "--url", &url]);
    let out = std::fs::File::create(case.path("watched")).unwrap();
    let watching = Running::start_into(command.stdin(Stdio::null()), out);
    // Two pictures at least: the second comes a second after the first.
    served.await_that("/api/v1/all", |_| std::fs::read_to_string(case.path("watched")).unwrap().lines().count() >= 2);
    served.running.signal("INT");
    served.running.ended().well();
    let ended = watching.ended();
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    for line in std::fs::read_to_string(case.path("watched")).unwrap().lines() {
        let picture: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(picture["status"]["pipeline"], "tidemark");
    }
}
