//! Runs benches and draws what they have measured: one page, with what the figures depend on.
//!
//! ```text
//! cargo measure [--quick | --full] [--only SECTION,…] [--list] [--draw] [--figures FILE] [--page FILE] [--sheets FOLDER]
//! cargo measure --plan rate=1000000,hours=24,id_bytes=32
//! ```
//!
//! which `.cargo/config.toml` makes of `cargo run --release -p tidemark-benches --bin report --`. `--quick` (the default)
//! takes some ten minutes besides building, `--full` about an hour. Figures are kept in a file, `target/report/figures.jsonl`,
//! and a run replaces those of the sections that it measures; so `--only` adds to what is there, and `--draw` measures nothing.
//! `--sheets` also writes the figures of the documentation. `--plan` calculates what a rate asks for, and does nothing else.
//! Benches run one after the other: leave the machine alone.

#![allow(missing_docs)]

mod chart;
mod figures;
mod machine;
mod page;
mod plan;
#[path = "../process.rs"]
mod process;
mod run;
mod scale;
mod svg;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use figures::{Measured, Run};
use machine::{Machine, said};
use plan::{SHEETS, Section, sections};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Arguments {
    full: bool,
    list: bool,
    draw: bool,
    only: Option<Vec<String>>,
    figures: Option<PathBuf>,
    page: Option<PathBuf>,
    sheets: Option<PathBuf>,
    plan: Option<String>,
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments::default();
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--quick" => arguments.full = false,
            "--full" => arguments.full = true,
            "--list" => arguments.list = true,
            "--draw" => arguments.draw = true,
            "--only" => arguments.only = Some(value()?.split(',').map(str::to_owned).collect()),
            "--figures" => arguments.figures = Some(value()?.into()),
            "--page" => arguments.page = Some(value()?.into()),
            "--sheets" => arguments.sheets = Some(value()?.into()),
            "--plan" => arguments.plan = Some(rest.next().unwrap_or_default()),
            _ => return Err(format!("unknown argument {flag}; the head of benches/report/main.rs lists them").into()),
        }
    }
    let unknown = |name: &&String| sections().all(|section| section.name != name.as_str());
    if let Some(name) = arguments.only.iter().flatten().find(unknown) {
        return Err(format!("unknown section {name}; --list names them").into());
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| report(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &Arguments) -> Result<()> {
    if let Some(changes) = &arguments.plan {
        println!("{}", scale::plan(changes)?);
        return Ok(());
    }
    if arguments.list {
        for Section { name, title, quick, .. } in sections() {
            println!("{name:<12} {title}{}", if quick.is_empty() { " (--full)" } else { "" });
        }
        return Ok(());
    }
    let folder = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("report");
    std::fs::create_dir_all(&folder)?;
    let file = arguments.figures.clone().unwrap_or_else(|| folder.join("figures.jsonl"));
    let mut measured = Measured::read(&file)?;
    if !arguments.draw {
        measure(arguments, &mut measured, |measured| measured.write(&file))?;
    }
    let page = arguments.page.clone().unwrap_or_else(|| folder.join("index.html"));
    std::fs::write(&page, page::page(&measured))?;
    println!("{}", page.display());
    if let Some(folder) = &arguments.sheets {
        for (name, title, panels) in SHEETS {
            if let Some(sheet) = chart::sheet(&measured, title, panels) {
                std::fs::write(folder.join(name), sheet.file(title))?;
                println!("{}", folder.join(name).display());
            }
        }
    }
    Ok(())
}

/// Measures section by section, and keeps each as soon as it is there.
fn measure(
    arguments: &Arguments,
    measured: &mut Measured,
    keep: impl Fn(&Measured) -> std::io::Result<()>,
) -> Result<()> {
    let wanted = |section: &&Section| match &arguments.only {
        Some(names) => names.iter().any(|name| name == section.name),
        None => arguments.full || !section.quick.is_empty(),
    };
    let machine = Machine::here();
    for section in sections().filter(wanted) {
        let full = (arguments.full || section.quick.is_empty()) && !section.full.is_empty();
        let commands = if full { section.full } else { section.quick };
        eprintln!("\n== {}", section.title);
        let (begun, began) = (Instant::now(), said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]));
        let mut figures = Vec::new();
        for command in commands {
            figures.extend(run::run(*command)?);
        }
        let run = Run {
            section: section.name.to_owned(),
            commands: commands.iter().map(|command| run::typed(*command)).collect(),
            extent: if full { "full" } else { "quick" }.to_owned(),
            began,
            seconds: begun.elapsed().as_secs_f64(),
            machine: machine.clone(),
        };
        measured.replace(run, figures);
        keep(measured)?;
    }
    Ok(())
}
