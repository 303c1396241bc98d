//! The notebook of evidence over tables of the program: as they were written, and after somebody else touched them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Case, Ended, finish};
use crate::python::python;

const PACKAGES: &str = "import deltalake, ipykernel, matplotlib, nbclient, nbformat, pyarrow";

/// Executes a notebook and prints what its cells print; status 1 if a cell raises an error.
const EXECUTE: &str = r#"
import sys, nbclient, nbformat
notebook, status = nbformat.read(sys.argv[1], as_version=4), 0
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs = []
try:
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
except nbclient.exceptions.CellExecutionError as error:
    print(error, file=sys.stderr)
    status = 1
for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
    print(output.get("text", ""), end="")
sys.exit(status)
"#;

/// Begins a script that touches tables. It must leave at once: the reader's threads sometimes abort an orderly exit.
const TOUCH: &str = "import os, pyarrow\nfrom deltalake import DeltaTable, write_deltalake\n";

/// A Python that can execute the notebook, and the tables of a small run in which everything happens.
fn prepared() -> Option<(PathBuf, Case)> {
    let python = python(PACKAGES)?;
    let case = Case::of(&crate::data::eventful(11, &[300, 200]));
    case.run("out", &["--epoch-events", "50", "--curated", "--set", "epochs.max_in_flight=1"]);
    Some((python, case))
}

fn execute(python: &Path, case: &Case) -> Ended {
    let notebook = Path::new(env!("CARGO_MANIFEST_DIR")).join("evidence/evidence.ipynb");
    let mut command = Command::new(python);
    command.current_dir(case.root()).args(["-c", EXECUTE]).arg(notebook).env("TIDEMARK_OUTPUT", "out");
    finish(command.env_remove("TIDEMARK_BINARY").env_remove("TIDEMARK_CHECKPOINT"), b"")
}

/// Changes the tables with a script; then exactly the claims that begin with `broken` must fail.
fn fails_once_touched(script: &str, broken: &[&str]) {
    let Some((python, case)) = prepared() else { return };
    let script = format!("{TOUCH}{script}\nos._exit(0)\n");
    let touched = finish(Command::new(&python).current_dir(case.root()).args(["-c", &script]), b"");
    assert_eq!(touched.code(), 0, "{}{}", touched.stdout, touched.stderr);
    let ended = execute(&python, &case);
    assert_eq!(ended.code(), 1, "{}{}", ended.stdout, ended.stderr);
    let failed: Vec<&str> = ended.stdout.lines().filter_map(|line| line.strip_prefix("FAILED  ")).collect();
    let expected = failed.len() == broken.len() && failed.iter().zip(broken).all(|(claim, of)| claim.starts_with(of));
    assert!(expected, "{failed:#?}\n{}", ended.stdout);
    assert!(ended.stderr.contains("checks failed"), "{}", ended.stderr);
}

#[test]
fn the_notebook_passes_on_tables_as_they_were_written() {
    let Some((python, case)) = prepared() else { return };
    let ended = execute(&python, &case);
    assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("checks passed at epoch 10\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("FAILED"), "{}", ended.stdout);
    assert!(ended.stdout.contains("left out: name the program with TIDEMARK_BINARY"), "{}", ended.stdout);
}

#[test]
fn the_notebook_sees_an_epoch_told_twice() {
    let script = "health = 'out/monitoring/stream_health'\n\
        rows = pyarrow.table(DeltaTable(health).to_pyarrow_table())\n\
        write_deltalake(health, rows.sort_by([('events_rejected', 'descending')]).slice(0, 1), mode='append')";
    fails_once_touched(script, &["received =", "The accepted events", "Rejected rows", "Creation, take-over"]);
}

#[test]
fn the_notebook_sees_a_penny_more() {
    let script = "users = DeltaTable('out/metrics/user_metrics')\n\
        one = max(users.to_pyarrow_table().to_pylist(), key=lambda user: user['deposit_count'])['user_id']\n\
        more = 'total_deposits + cast(0.01 as decimal(38,2))'\n\
        users.update(updates={'total_deposits': more}, predicate=f\"user_id = '{one}'\")";
    let broken = ["Counts and amounts", "M1, M2 and M3 agree at every cut", "Creation, take-over"];
    fails_once_touched(script, &broken);
}
