//! The manifests of `packaging/kubernetes`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tidemark::config::Config;
use tidemark::config::cluster::SECRET_BYTES_MIN;
use tidemark::config::http::TOKEN_BYTES_MIN;

use super::files::{at, configured, list, named, number, path, text, word, words, yaml};

const SETTINGS: &str = "packaging/kubernetes/tidemark.toml";

/// What the webhook of workload identity sets in each container.
const OF_THE_WEBHOOK: [(&str, &str); 4] = [
    ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000000"),
    ("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000000"),
    ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/tokens/azure-identity-token"),
    ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
];

fn manifest(name: &str) -> Value {
    yaml(&format!("packaging/kubernetes/{name}.yaml"))
}

fn pod() -> Value {
    at(&manifest("statefulset"), "/spec/template/spec").clone()
}

fn container() -> Value {
    named(list(&pod(), "/containers"), "tidemark").clone()
}

/// What the process of that number runs with.
fn process(number: u64) -> Config {
    let container = container();
    let mut environment: Vec<_> = OF_THE_WEBHOOK.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for variable in list(&container, "/env") {
        assert_eq!(word(variable, "/valueFrom/fieldRef/fieldPath"), "metadata.labels['apps.kubernetes.io/pod-index']");
        environment.push((word(variable, "/name").to_owned(), number.to_string()));
    }
    configured(&words(list(&container, "/args")), &environment, Some(&path(SETTINGS))).unwrap()
}

/// The port of that name.
fn port_of(name: &str) -> u64 {
    number(named(list(&container(), "/ports"), name), "/containerPort")
}

#[test]
fn every_process_is_taken_and_there_are_as_many_as_replicas() {
    let set = manifest("statefulset");
    let (replicas, service) = (number(&set, "/spec/replicas"), word(&set, "/spec/serviceName"));
    let hosts: Vec<String> = (0..replicas)
        .map(|pod| format!("{}-{pod}.{service}:{}", word(&set, "/metadata/name"), port_of("peers")))
        .collect();
    for number in 0..replicas {
        let cluster = process(number).cluster;
        assert_eq!((cluster.process as u64, cluster.processes as u64), (number, replicas));
        assert_eq!(cluster.hosts, hosts);
        assert_eq!(cluster.listen, Some(format!("0.0.0.0:{}", port_of("peers"))));
        // A container that ends again and again is started after five minutes at the latest.
        assert!(cluster.join_timeout.as_secs() > 300);
    }
    let workers = process(0).runtime.workers.to_string();
    assert_eq!(word(&container(), "/resources/requests/cpu"), workers, "a core for each worker");
}

#[test]
fn services_probes_and_policies_name_the_ports_that_are_listened_on() {
    let console = port_of("console");
    assert_eq!(process(0).http.listen, Some(format!("0.0.0.0:{console}")));
    let service = manifest("service");
    assert_eq!(
        (word(&service, "/spec/clusterIP"), at(&service, "/spec/publishNotReadyAddresses")),
        ("None", &true.into())
    );
    assert_eq!(word(&service, "/metadata/name"), word(&manifest("statefulset"), "/spec/serviceName"));
    for name in ["peers", "console"] {
        assert_eq!(number(named(list(&service, "/spec/ports"), name), "/port"), port_of(name));
    }
    let probes = [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")];
    for (probe, path) in probes {
        let container = container();
        let asked = at(&container, &format!("/{probe}/httpGet"));
        assert_eq!((word(asked, "/path"), word(asked, "/port")), (path, "console"));
    }
    let policy = manifest("networkpolicy");
    let open: Vec<u64> = list(&policy, "/spec/ingress").iter().map(|rule| number(rule, "/ports/0/port")).collect();
    assert_eq!(open, [port_of("peers"), console]);
    let peers = at(&policy, "/spec/ingress/0/from/0/podSelector/matchLabels");
    assert_eq!(peers, at(&policy, "/spec/podSelector/matchLabels"), "only processes reach processes");
}

#[test]
fn everything_selects_the_pods() {
    let set = manifest("statefulset");
    let labels = at(&set, "/spec/template/metadata/labels");
    for (name, pointer) in [
        ("statefulset", "/spec/selector/matchLabels"),
        ("service", "/spec/selector"),
        ("poddisruptionbudget", "/spec/selector/matchLabels"),
        ("networkpolicy", "/spec/podSelector/matchLabels"),
        ("podmonitor", "/spec/selector/matchLabels"),
    ] {
        let manifest = manifest(name);
        let selected = at(&manifest, pointer).as_object().unwrap();
        assert!(!selected.is_empty() && selected.iter().all(|(key, value)| labels.get(key) == Some(value)), "{name}");
    }
    assert_eq!(word(&pod(), "/serviceAccountName"), word(&manifest("serviceaccount"), "/metadata/name"));
    assert_eq!(labels["azure.workload.identity/use"], "true");
    assert!(manifest("serviceaccount").pointer("/metadata/annotations/azure.workload.identity~1client-id").is_some());
    // The alert rules are for a job of this name.
    let job =
        word(labels, &format!("/{}", word(&manifest("podmonitor"), "/spec/jobLabel").replace('/', "~1"))).to_owned();
    assert!(text("docs/monitoring/alerts.yaml").contains(&format!("job=\"{job}\"")));
    assert_eq!(word(&manifest("podmonitor"), "/spec/podMetricsEndpoints/0/port"), "console");
}

#[test]
fn settings_and_secrets_lie_where_they_are_looked_for_and_examples_are_refused() {
    let (pod, container, example) = (pod(), container(), manifest("secret.example"));
    let mounted = |volume: &str| word(named(list(&container, "/volumeMounts"), volume), "/mountPath").to_owned();
    let kustomization = manifest("kustomization");
    let generated = named(list(&kustomization, "/configMapGenerator"), "tidemark");
    assert_eq!(word(named(list(&pod, "/volumes"), "settings"), "/configMap/name"), "tidemark");
    let file = &words(list(generated, "/files"))[0];
    assert_eq!(words(list(&container, "/args")).last(), Some(&format!("{}/{file}", mounted("settings"))));

    let secrets = named(list(&pod, "/volumes"), "secrets");
    assert_eq!(word(secrets, "/secret/secretName"), word(&example, "/metadata/name"));
    let config = process(0);
    let keys =
        [(config.cluster.secret_file.unwrap(), SECRET_BYTES_MIN), (config.http.token_file.unwrap(), TOKEN_BYTES_MIN)];
    for (file, least) in &keys {
        assert_eq!(file.parent(), Some(Path::new(&mounted("secrets"))));
        let key = file.file_name().unwrap().to_str().unwrap();
        assert!(word(&example, &format!("/stringData/{key}")).len() < *least, "{key} would be taken");
    }
    let credentials = manifest("podmonitor");
    let credentials = at(&credentials, "/spec/podMetricsEndpoints/0/authorization/credentials");
    assert_eq!(credentials["name"], example["metadata"]["name"]);
    assert_eq!(keys[1].0.file_name().unwrap().to_str(), credentials["key"].as_str());
}

#[test]
fn pods_have_no_rights_that_they_do_not_need() {
    let (pod, container) = (pod(), container());
    let user = number(&pod, "/securityContext/runAsUser");
    assert!(text("Dockerfile").contains(&format!("--uid {user} ")), "the user of the image");
    assert_eq!(at(&pod, "/securityContext/runAsNonRoot"), &Value::from(true));
    assert_eq!(at(&container, "/securityContext/readOnlyRootFilesystem"), &Value::from(true));
    assert_eq!(at(&container, "/securityContext/allowPrivilegeEscalation"), &Value::from(false));
    assert_eq!(words(list(&container, "/securityContext/capabilities/drop")), ["ALL"]);
    // Nothing but the settings lies on a file system of the pod.
    let config = process(0);
    assert!(config.output.path.azure().is_some() && config.checkpoint.path.is_none());
}

#[test]
fn the_kustomization_names_what_is_there_and_the_version_of_the_program() {
    let kustomization = manifest("kustomization");
    let mut named_there: BTreeSet<String> = words(list(&kustomization, "/resources")).into_iter().collect();
    for resource in &named_there {
        let manifest = yaml(&format!("packaging/kubernetes/{resource}"));
        assert!(manifest.pointer("/metadata/namespace").is_none(), "{resource}");
    }
    // These are for some clusters, or for nobody.
    named_there
        .extend(["kustomization.yaml", "podmonitor.yaml", "secret.example.yaml", "tidemark.toml"].map(str::to_owned));
    let files = std::fs::read_dir(path("packaging/kubernetes")).unwrap();
    let there: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, named_there);
    let image = named(list(&kustomization, "/images"), word(&container(), "/image")).clone();
    assert_eq!(word(&image, "/newTag"), env!("CARGO_PKG_VERSION"));
}
