//! `compose.yaml`, and what its Prometheus and Grafana are given.

use serde_json::Value;
use tidemark::config::Config;
use tidemark::config::http::TOKEN_BYTES_MIN;

use super::files::{Variables, at, configured, list, named, path, port, text, word, words, yaml};

const CONSOLE: &str = "packaging/compose/console-token";

fn service(name: &str) -> Value {
    at(&yaml("compose.yaml"), &format!("/services/{name}")).clone()
}

fn variables(service: &Value) -> Variables {
    let given = service["environment"].as_object().expect("a map");
    given.iter().map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect()
}

fn of_pipeline() -> Config {
    let pipeline = service("pipeline");
    configured(&words(list(&pipeline, "/command")), &variables(&pipeline), None).unwrap()
}

/// What is mounted in a service, by where it is found there.
fn mounts(service: &Value) -> Vec<(String, String)> {
    let mounted = words(list(service, "/volumes"));
    let parts = mounted.iter().map(|volume| volume.split(':').collect::<Vec<_>>());
    let checked = parts.map(|parts| match parts.as_slice() {
        [from, to, "ro"] => ((*to).to_owned(), from.trim_start_matches("./").to_owned()),
        other => panic!("expected FROM:TO:ro, found {other:?}"),
    });
    checked.collect()
}

#[test]
fn every_command_line_and_variable_is_taken() {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().unwrap();
    let mut asked = Vec::new();
    for (name, service) in services.iter().filter(|(_, service)| service["image"] == "tidemark") {
        let args = words(list(service, "/command"));
        configured(&args, &variables(service), None).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        asked.push(args[0].clone());
        // What says whether it is well is a command line as well.
        if let [command, program, args @ ..] = words(list(service, "/healthcheck/test")).as_slice() {
            assert_eq!((command.as_str(), program.as_str()), ("CMD", "tidemark"));
            configured(args, &variables(service), None).unwrap();
        }
        for dependency in words(list(service, "/depends_on")) {
            assert!(services.contains_key(&dependency), "{name} waits for {dependency}");
        }
    }
    asked.sort();
    assert_eq!(asked, ["broker", "generate", "run"]);
}

#[test]
fn everybody_is_asked_where_they_listen() {
    let (pipeline, broker) = (of_pipeline(), service("broker"));
    let broker = words(list(&broker, "/command"));
    let hub = format!("sb://broker:{};", port(&broker[broker.iter().position(|word| word == "--listen").unwrap() + 1]));
    assert!(pipeline.eventhubs.connection_string.unwrap().expose().contains(&hub), "{hub}");
    let storage = pipeline.azure.endpoint.unwrap();
    assert!(storage.starts_with("http://azurite:"), "{storage}");
    assert!(text("tests/azure/Dockerfile").contains(&format!("\"{}\"", port(&storage))));
    let container = text("tests/azure/Dockerfile").contains("\"lake\"");
    assert!(container && pipeline.output.path.display().to_string().contains("lake"));
}

#[test]
fn nothing_is_published_beyond_this_machine_and_images_have_versions() {
    let compose = yaml("compose.yaml");
    let mut published = Vec::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        for ports in words(list(service, "/ports")) {
            let parts: Vec<&str> = ports.split(':').collect();
            assert!(matches!(parts[..], ["127.0.0.1", from, to] if from == to), "{name}: {ports}");
            published.push(port(&ports));
        }
        if service.get("build").is_none() {
            let (_, version) = word(service, "/image").rsplit_once(':').expect("a version");
            assert_eq!(version.matches('.').count(), 2, "{name}: {version}");
        }
    }
    published.sort_unstable();
    assert_eq!(published, [3000, 9090, port(&of_pipeline().http.listen.unwrap())]);
}

#[test]
fn prometheus_finds_the_pipeline_the_token_and_the_rules() {
    let (pipeline, console) = (service("pipeline"), of_pipeline().http);
    let prometheus = service("prometheus");
    let mounts = mounts(&prometheus);
    let found = |at: &str| mounts.iter().find(|(to, _)| to == at).map(|(_, from)| from.as_str());
    assert_eq!(found("/etc/prometheus/prometheus.yml"), Some("packaging/compose/prometheus.yml"));

    let settings = yaml("packaging/compose/prometheus.yml");
    let rules = words(list(&settings, "/rule_files"));
    let rules: Vec<_> = rules.iter().map(|file| found(&format!("/etc/prometheus/{file}"))).collect();
    assert_eq!(rules, [Some("docs/monitoring/alerts.yaml")]);

    let job = at(&settings, "/scrape_configs/0");
    assert!(text("docs/monitoring/alerts.yaml").contains(&format!("job=\"{}\"", word(job, "/job_name"))));
    let target = format!("pipeline:{}", port(&console.listen.unwrap()));
    assert_eq!(words(list(job, "/static_configs/0/targets")), [target]);

    // Both are given the file that holds the token, under the name that they look for.
    let given = word(job, "/authorization/credentials_file");
    assert_eq!(console.token_file.unwrap().to_str(), Some(given));
    let secret = given.strip_prefix("/run/secrets/").unwrap();
    for service in [&pipeline, &prometheus] {
        assert_eq!(words(list(service, "/secrets")), [secret]);
    }
    assert_eq!(word(&yaml("compose.yaml"), &format!("/secrets/{secret}/file")), CONSOLE);
    assert!(text(CONSOLE).trim().len() >= TOKEN_BYTES_MIN);
}

#[test]
fn grafana_finds_prometheus_and_the_dashboard() {
    let grafana = service("grafana");
    let mounts = mounts(&grafana);
    assert_eq!(mounts[0], ("/etc/grafana/provisioning".to_owned(), "packaging/compose/grafana".to_owned()));
    let (dashboard, from) = &mounts[1];
    assert_eq!(from, "docs/monitoring/dashboard.json");
    assert_eq!(word(&grafana, "/environment/GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"), dashboard);
    for (_, from) in &mounts {
        assert!(path(from).exists(), "{from}");
    }

    let sources = yaml("packaging/compose/grafana/datasources/prometheus.yaml");
    let source = named(list(&sources, "/datasources"), "Prometheus");
    let published = words(list(&service("prometheus"), "/ports"));
    assert_eq!(word(source, "/url"), format!("http://prometheus:{}", port(&published[0])));
    // The dashboard asks for a source of this type, and takes the default one.
    assert_eq!((&source["type"], &source["isDefault"]), (&"prometheus".into(), &true.into()));
    let dashboards = yaml("packaging/compose/grafana/dashboards/tidemark.yaml");
    let folder = word(&dashboards, "/providers/0/options/path");
    assert_eq!(dashboard.rsplit_once('/').unwrap().0, folder);
}
