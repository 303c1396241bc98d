//! Python's Event Hubs client, which is not one line of ours.

use crate::support::{numbered, options, start};
use std::path::{Path, PathBuf};
use tidemark_broker::BrokerOptions;
use tokio::process::Command;

/// A Python that has the client, as `tests/workload/requirements.txt` of the repository names it.
async fn python() -> Option<PathBuf> {
    let named = std::env::var_os("TIDEMARK_PYTHON").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    for python in named.map_or_else(|| vec![usual, PathBuf::from("python3")], |python| vec![python]) {
        let able = Command::new(&python).args(["-c", "import azure.eventhub"]).output().await;
        if able.is_ok_and(|able| able.status.success()) {
            return Some(python);
        }
    }
    let remedy = "no Python with azure-eventhub; name one with TIDEMARK_PYTHON";
    assert!(std::env::var_os("CI").is_none(), "{remedy}");
    eprintln!("skipped: {remedy}");
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_sends_receives_and_is_told_what_is_wrong() {
    let Some(python) = python().await else { return };
    let broker = start(BrokerOptions { control: Some(([127, 0, 0, 1], 0).into()), ..options() }).await;
    broker.control().append(1, numbered(1, 0..1000)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/client.py");
    let mut command = Command::new(python);
    command.arg(script).arg(broker.connection_string()).arg(broker.control_addr().unwrap().port().to_string());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(120), command.kill_on_drop(true).output());
    let ended = ended.await.expect("the client has not ended").unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 9, "{said}");
}
