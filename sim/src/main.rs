//! `cargo run -p tidemark-sim -- --seed 7`: runs seeds, and shows what is wrong.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use tidemark_sim::orders::Order;
use tidemark_sim::scenario::{Reduction, Scenario};
use tidemark_sim::shrink::{Failure, attempt, run, shrink};

const USAGE: &str = "\
Simulates the protocol of epochs: processes, stores and tables under a schedule that a seed decides.

  --seed N             run one seed, and show every step
  --seeds FROM..TO     run these, up to the first that fails (0..1000, where no seed is named)
  --order NAME         make things durable in a wrong order, which must be noticed
  --list-orders        name them
  --trace              show every step of all of them
  --shortest           go on after a failure, and show the one with the fewest steps
  --faults 1,4 | none  only these faults of the seed, counted from 0
  --events N           only its first events
  --processes N        so many processes in every instance
  --draw N             another draw of how long everything takes
  --straight           interleave nothing that no fault asks for

The status is 0 if nothing is wrong, 1 if something is, as it must be with --order, 2 for a usage that makes no sense.
What a trace says, and what is simulated, is in sim/README.md.
";

struct Arguments {
    seeds: Range<u64>,
    order: Order,
    trace: bool,
    shortest: bool,
    reduction: Reduction,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "--help" || first == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if arguments.peek().is_some_and(|first| first == "--list-orders") {
        for order in Order::ALL {
            println!("{:<24} {}", order.name(), order.in_words());
        }
        return ExitCode::SUCCESS;
    }
    match parse(arguments) {
        Ok(arguments) => simulate(&arguments),
        Err(problem) => {
            eprint!("{problem}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seeds: 0..1000,
        order: Order::Right,
        trace: false,
        shortest: false,
        reduction: Reduction::default(),
    };
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--trace" => arguments.trace = true,
            "--shortest" => arguments.shortest = true,
            "--straight" => arguments.reduction.straight = true,
            "--seed" => {
                let seed = number(&value()?)?;
                (arguments.seeds, arguments.trace) = (seed..seed + 1, true);
            }
            "--seeds" => {
                let range = value()?;
                let (from, to) = range.split_once("..").ok_or(format!("{range} is no range FROM..TO"))?;
                arguments.seeds = number(from)?..number(to)?;
            }
            "--order" => {
                let name = value()?;
                arguments.order = Order::named(&name).ok_or(format!("there is no order {name}; see --list-orders"))?;
            }
            "--draw" => arguments.reduction.draw = number(&value()?)?,
            "--events" => arguments.reduction.events = Some(number(&value()?)? as usize),
            "--processes" => arguments.reduction.processes = Some((number(&value()?)? as usize).clamp(1, 4)),
            "--faults" => {
                let list = value()?;
                let numbers = list.split(',').filter(|number| *number != "none");
                let kept: Result<BTreeSet<usize>, String> = numbers.map(|n| number(n).map(|n| n as usize)).collect();
                arguments.reduction.faults = Some(kept?);
            }
            other => return Err(format!("{other} is no argument")),
        }
    }
    Ok(arguments)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn simulate(arguments: &Arguments) -> ExitCode {
    let Arguments { seeds, order, trace, shortest, reduction } = arguments;
    let (started, mut steps, mut ran, mut failed) = (Instant::now(), 0, 0_u32, 0);
    let mut least: Option<Box<Failure>> = None;
    for seed in seeds.clone() {
        ran += 1;
        if *trace {
            show(seed, *order, reduction);
        }
        match attempt(seed, *order, reduction) {
            Ok(more) => steps += more,
            Err(failure) => {
                failed += 1;
                eprintln!("seed {seed} fails after {} steps: {}", failure.steps, failure.broken);
                let shrunk = shrink(failure);
                if least.as_ref().is_none_or(|least| shrunk.steps < least.steps) {
                    least = Some(shrunk);
                }
                if !shortest {
                    break;
                }
            }
        }
    }
    let each = started.elapsed() / ran.max(1);
    println!("{ran} seeds, {failed} failed; {steps} steps in those that did not; {each:.1?} each");
    match least {
        Some(failure) => {
            if !trace {
                show(failure.seed, *order, &failure.reduction);
            }
            println!("\n{} steps: {}\ncargo run -p tidemark-sim -- {failure}", failure.steps, failure.broken);
            ExitCode::from(1)
        }
        None if *order != Order::Right => {
            println!("nothing was noticed of the order {order}, which proves nothing: run more seeds");
            ExitCode::SUCCESS
        }
        None => ExitCode::SUCCESS,
    }
}

/// Prints every step of a seed.
fn show(seed: u64, order: Order, reduction: &Reduction) {
    let scenario = Scenario::of(seed).reduced(reduction);
    let Scenario { source, processes, faults, arrivals, .. } = &scenario;
    println!("# seed {seed}, order {order}: {source:?}, processes {processes:?}, {} events", arrivals.len());
    for fault in faults {
        println!("# fault at {:.6}: {:?}", fault.at as f64 / 1e6, fault.kind);
    }
    for line in run(&scenario, order, true).lines {
        println!("{line}");
    }
}
