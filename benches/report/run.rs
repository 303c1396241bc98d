//! Runs benches and reads what they have written.

use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::figures::{Figure, Measured};
use crate::plan::Command;
use crate::process::cargo;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Programs that start the released `tidemark`, which has to be there.
const STARTS_TIDEMARK: [&str; 2] = ["hub", "idle"];

/// What to type for a command.
pub(crate) fn typed(command: Command) -> String {
    let words = match command {
        Command::Dataflows(bench, arguments) => format!("bench -p tidemark-dataflows --bench {bench} -- {arguments}"),
        Command::Program(program, arguments) => {
            format!("run --release -p tidemark-benches --bin {program} -- {arguments}")
        }
        Command::Criterion(package, bench, _) => format!("bench -p {package} --bench {bench}"),
    };
    format!("cargo {words}")
}

/// Runs a command to its end and returns its figures. What it prints goes to standard error.
pub(crate) fn run(command: Command) -> Result<Vec<Figure>> {
    if matches!(command, Command::Program(program, _) if STARTS_TIDEMARK.contains(&program))
        && !cargo().args(["build", "--release", "--bin", "tidemark"]).status()?.success()
    {
        return Err("the program does not build".into());
    }
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.jsonl");
    let mut process = cargo();
    process.args(typed(command).split_whitespace().skip(1)).stdout(std::io::stderr());
    match command {
        Command::Criterion(..) => process.env("CRITERION_HOME", folder.path()),
        _ => process.arg("--json").arg(&json),
    };
    if !process.status()?.success() {
        return Err(format!("{} failed", typed(command)).into());
    }
    match command {
        Command::Criterion(_, bench, reference) => of_criterion(folder.path(), bench, reference),
        _ => Ok(Measured::read(&json)?.figures),
    }
}

/// What criterion has estimated: the median with its confidence interval stands for three rounds.
fn of_criterion(home: &Path, bench: &str, reference: &str) -> Result<Vec<Figure>> {
    let mut found = Vec::new();
    for place in estimates_below(home)? {
        let read =
            |name: &str| -> Result<Value> { Ok(serde_json::from_str(&std::fs::read_to_string(place.join(name))?)?) };
        let (benchmark, estimates) = (read("benchmark.json")?, read("estimates.json")?);
        let elements = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
        let median = &estimates["median"];
        let interval = &median["confidence_interval"];
        let bounds = [&interval["lower_bound"], &median["point_estimate"], &interval["upper_bound"]];
        found.push(Figure {
            section: String::new(),
            bench: bench.to_owned(),
            reference: Some(reference.to_owned()),
            contender: benchmark["function_id"].as_str().unwrap_or_default().to_owned(),
            at: std::collections::BTreeMap::new(),
            figure: "time".to_owned(),
            unit: "ns".to_owned(),
            values: bounds.iter().filter_map(|bound| bound.as_f64()).map(|ns| ns / elements).collect(),
        });
    }
    Ok(found)
}

/// Folders called `new` that hold estimates, in the order of their names.
fn estimates_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        entries.push(entry?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_dir()) {
        if entry.ends_with("new") && entry.join("estimates.json").is_file() {
            found.push(entry);
        } else {
            found.extend(estimates_below(&entry)?);
        }
    }
    Ok(found)
}
