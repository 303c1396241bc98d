//! Who may ask, what a browser is told, and how little whoever asks can do to the pipeline.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use super::ask::{Answer, Served};
use crate::program::{Case, Running, tidemark};

const SLOWLY: &str = "--rate 200 --users 10 --trigger 100ms --workers 1";

#[test]
fn a_page_of_a_stranger_learns_nothing() {
    let case = Case::new();
    let served = Served::start(&case, SLOWLY, &[]);
    for path in ["/", "/metrics", "/api/v1/all", "/livez", "/nothing"] {
        for host in ["evil.example", "evil.example:9464", "127.0.0.1.evil.example"] {
            let answer = served.ask("GET", path, &[("Host", host)]);
            assert_eq!(answer.status, 421, "{path} under {host}: {answer:?}");
            assert!(answer.header("access-control-allow-origin").is_none());
        }
        assert_ne!(served.ask("GET", path, &[("Host", "localhost:1")]).status, 421);
    }
    assert_eq!(served.ask("GET", "/api/v1/all", &[]).status, 421, "under no name at all");
    let page = served.get("/");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("x-frame-options", "deny"), ("cache-control", "no-store")]
    {
        assert_eq!(page.header(name), Some(value), "{name}");
        assert_eq!(served.get("/nothing").header(name), Some(value), "{name}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(served.ask(method, "/api/v1/all", &[("Host", "localhost")]).status, 405, "{method}");
    }
    // What a page loads comes from here alone.
    for foreign in ["http://", "https://", "//"] {
        assert!(!page.body.contains(&format!("=\"{foreign}")), "{foreign}");
    }
}

#[test]
fn a_token_is_asked_for_where_one_is_set() {
    let case = Case::new();
    let token = "correct-horse-battery";
    let served = Served::start(&case, SLOWLY, &[("TIDEMARK__HTTP__TOKEN", token)]);
    let with = |path: &str, header: &str| served.ask("GET", path, &[("Host", "localhost"), ("Authorization", header)]);
    for path in ["/metrics", "/api/v1/all", "/api/v1/stream", "/nothing"] {
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer wrong", "Basic correct-horse-battery", "Bearer correct-horse-batter"]
        {
            let answer = with(path, wrong);
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("bearer")), "{path} {wrong:?}");
            assert!(!answer.body.contains("horse"), "{answer:?}");
        }
    }
    assert_eq!(with("/api/v1/status", &format!("Bearer {token}")).status, 200);
    assert_eq!(with("/metrics", &format!("bearer {token}")).status, 200);
    // The page holds no data, and an orchestrator has no token.
    for open in ["/", "/console.js", "/livez"] {
        assert_eq!(served.get(open).status, 200, "{open}");
    }
    let asked = case.tidemark(&["status", "--url", &format!("http://{}", served.address)]);
    asked.fails_with(2, &["401", "http.token"]);
    let mut command = tidemark(case.root(), ["status", "--url", &format!("http://{}", served.address)]);
    case.file("token", format!("{token}\n"));
    command.env("TIDEMARK__HTTP__TOKEN_FILE", "token");
    assert!(crate::program::finish(&mut command, b"").stdout.contains("received"));
    assert!(!served.running.log().contains("horse"), "{}", served.running.log());
}

#[test]
fn what_is_not_safe_is_refused_at_the_start() {
    let case = Case::new();
    let open = ["run", "--console", "0.0.0.0:0"];
    case.tidemark(&open).fails_with(2, &["http.listen = \"0.0.0.0:0\"", "--console", "TIDEMARK__HTTP__TOKEN"]);
    let token = ["run", "--output", "out", "--console", "127.0.0.1:0", "--set", "http.token_file=token"];
    case.file("token", "short\n");
    case.tidemark(&token).fails_with(2, &["http.token_file = token", "too short", "16 bytes"]);
    std::fs::remove_file(case.path("token")).unwrap();
    case.tidemark(&token).fails_with(2, &["http.token_file = token", "cannot be read"]);
    assert!(!case.path("out").exists(), "nothing was begun");
}

#[test]
fn a_taken_address_is_an_error_where_it_was_asked_for_and_passed_over_where_not() {
    let case = Case::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = case.tidemark(&["run", "--output", "out", "--console", &address]);
    refused.fails_with(3, &["http.listen", &address, "--console", "or off"]);
    // The default's port: whoever has it, this process or another, the run goes on without it.
    let _default = TcpListener::bind("127.0.0.1:9464");
    let args = format!("run --output out {SLOWLY} --log-level warn,tidemark=debug,deltalake_core=error");
    let mut command = tidemark(case.root(), args.split_whitespace());
    command.env_remove("TIDEMARK__HTTP__LISTEN").stdin(Stdio::null());
    let mut running = Running::start(&mut command);
    running.await_line("published");
    let log = running.log();
    assert!(!log.contains("127.0.0.1:9464/"), "{log}");
    assert!(log.contains("console on http://127.0.0.1:94") || log.contains("no console"), "{log}");
    running.signal("INT");
    running.ended().well();
}

#[test]
fn nobody_who_asks_can_hold_the_pipeline_up() {
    let case = Case::new();
    let mut served = Served::start(&case, SLOWLY, &[]);
    // A head that is too large, and one of too many lines.
    let long = "x".repeat(40_000);
    assert!(matches!(served.ask("GET", "/", &[("Host", "localhost"), ("X-Long", &long)]).status, 0 | 431));
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("X-Many", "1"), 100).chain([("Host", "localhost")]).collect();
    assert!(matches!(served.ask("GET", "/", &many).status, 0 | 431));
    // More connections than there is room for, which ask without end and take no answer: the oldest go, and a probe is answered.
    let idle: Vec<_> = (0..150).map(|_| served.connect()).collect();
    let flood = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000);
    for mut stream in &idle {
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(flood.as_bytes());
    }
    for _ in 0..20 {
        assert_eq!(served.get("/livez").status, 200);
    }
    // Meanwhile epochs are published as ever.
    let published = served.running.log().matches("published").count();
    assert!(served.running.says_times(published + 5, "published"));
    // A client that never sends a whole head is not kept.
    drop(idle);
    let mut first = served.connect();
    first.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    first.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let answer = Answer::read(&mut first);
    assert!(matches!(answer.status, 0 | 408), "{answer:?}");
    let samples = served.get("/metrics").body;
    let turned_away =
        samples.lines().find_map(|line| line.strip_prefix("tidemark_http_connections_turned_away_total "));
    assert!(turned_away.is_some_and(|count| count.parse::<u64>().unwrap() >= 100), "{samples}");
    served.running.signal("INT");
    served.running.ended().well();
}

#[test]
fn listeners_beyond_the_sixteenth_are_told_so() {
    let case = Case::new();
    let served = Served::start(&case, SLOWLY, &[]);
    let listen = || {
        let mut stream = served.connect();
        let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\n\r\n", served.address);
        stream.write_all(request.as_bytes()).unwrap();
        super::ask::next_event(&mut stream, &mut Vec::new());
        stream
    };
    let listeners: Vec<_> = (0..16).map(|_| listen()).collect();
    let refused = served.get("/api/v1/stream");
    assert_eq!(refused.status, 503, "{refused:?}");
    drop(listeners);
}

#[test]
fn other_processes_serve_their_own_only_where_that_was_asked_for() {
    let case = Case::new();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let hosts: Vec<String> =
        (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()).collect();
    let start = |process: usize, console: &str| {
        let args = format!(
            "run --output out --processes 2 --process {process} --hosts {} {} --console {console} {SLOWLY}",
            hosts[0], hosts[1]
        );
        let mut command = tidemark(case.root(), args.split_whitespace());
        command.env("TIDEMARK__CLUSTER__SECRET", "0123456789abcdef").stdin(Stdio::null());
        Running::start(&mut command)
    };
    let leader = Served::of(start(0, &format!("127.0.0.1:{port}")));
    let follower = Served::of(start(1, "127.0.0.1:0"));
    leader.await_that("/api/v1/all", |all| all["tables"]["publications"].as_u64() > Some(1));
    assert_eq!(follower.get("/readyz").status, 200);
    let metrics = follower.get("/metrics").body;
    assert!(metrics.contains("tidemark_source_events_total") && metrics.contains("tidemark_index_bytes"), "{metrics}");
    assert_eq!(follower.get("/").status, 404);
    assert_eq!(follower.get("/api/v1/all").status, 404);
    assert_eq!(leader.json("/api/v1/status")["processes"], 2);
    leader.running.signal("INT");
    leader.running.ended().well();
    follower.running.ended().well();
}

#[test]
fn probes_by_the_address_of_a_pod_need_no_name_and_no_token() {
    let case = Case::new();
    case.file("token", "correct-horse-battery");
    let args = format!("run --output out {SLOWLY} --console 0.0.0.0:0 --set http.token_file=token");
    let mut command = tidemark(case.root(), args.split_whitespace());
    let served = Served::of(Running::start(command.stdin(Stdio::null())));
    for host in [&served.address, "10.244.1.7:9464", "tidemark-0.tidemark:9464"] {
        let ask = |path: &str, token: &str| served.ask("GET", path, &[("Host", host), ("Authorization", token)]);
        assert_eq!(ask("/livez", "").status, 200, "{host}");
        assert!(matches!(ask("/readyz", "").status, 200 | 503), "{host}");
        assert_eq!(ask("/metrics", "").status, 401, "{host}");
        assert_eq!(ask("/metrics", "Bearer correct-horse-battery").status, 200, "{host}");
    }
}

#[test]
fn a_process_that_waits_for_the_others_is_alive_and_not_ready() {
    let case = Case::new();
    let args = format!("run --output out --processes 2 --process 0 {SLOWLY} --console 127.0.0.1:0");
    let mut command = tidemark(case.root(), args.split_whitespace());
    let hosts: Vec<String> =
        (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()).collect();
    command.env("TIDEMARK__CLUSTER__SECRET", "0123456789abcdef").env("TIDEMARK__CLUSTER__HOSTS", hosts.join(","));
    let served = Served::of(Running::start(command.stdin(Stdio::null())));
    assert_eq!(served.get("/livez").status, 200);
    assert_eq!(served.get("/readyz").status, 503);
}
