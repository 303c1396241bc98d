//! Runs seeds, and cuts a failure down: fewer faults, fewer events, fewer processes, as long as something is still wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::orders::Order;
use crate::scenario::{Reduction, Scenario};
use crate::trace::Trace;
use crate::world::World;

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong, if anything is.
    pub broken: Option<String>,
    /// Number of steps.
    pub steps: usize,
    /// The trace, if it was kept.
    pub lines: Vec<String>,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, order: Order, traced: bool) -> Outcome {
    let trace = if traced { Trace::kept() } else { Trace::default() };
    let mut world = World::new(scenario, order, trace);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = match ran {
        Ok(ran) => ran.err(),
        Err(_) => Some("it has panicked (above)".to_owned()),
    };
    Outcome { broken, steps: world.trace.steps, lines: world.trace.lines.take().unwrap_or_default() }
}

/// A failure, and how to have it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The order of durable effects.
    pub order: Order,
    /// What is left of the scenario.
    pub reduction: Reduction,
    /// What is wrong.
    pub broken: String,
    /// Number of steps.
    pub steps: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reduction { faults, events, processes, straight, draw } = &self.reduction;
        write!(f, "--seed {}", self.seed)?;
        if self.order != Order::Right {
            write!(f, " --order {}", self.order)?;
        }
        if let Some(faults) = faults {
            let numbers: Vec<String> = faults.iter().map(usize::to_string).collect();
            let numbers = if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") };
            write!(f, " --faults {numbers}")?;
        }
        if let Some(events) = events {
            write!(f, " --events {events}")?;
        }
        if let Some(processes) = processes {
            write!(f, " --processes {processes}")?;
        }
        if *straight {
            f.write_str(" --straight")?;
        }
        if *draw > 0 { write!(f, " --draw {draw}") } else { Ok(()) }
    }
}

/// Runs a part of a seed. Returns the failure, if there is one.
pub fn attempt(seed: u64, order: Order, reduction: &Reduction) -> Result<usize, Box<Failure>> {
    let scenario = Scenario::of(seed).reduced(reduction);
    let Outcome { broken, steps, .. } = run(&scenario, order, false);
    match broken {
        None => Ok(steps),
        Some(broken) => Err(Box::new(Failure { seed, order, reduction: reduction.clone(), broken, steps })),
    }
}

/// Other draws of how long everything takes that are tried for each smaller scenario.
const DRAWS: u64 = 6;

/// Cuts a failure down until nothing can be left out.
pub fn shrink(mut failure: Box<Failure>) -> Box<Failure> {
    let smallest = |failure: &Failure| {
        let draws = |smaller: Reduction| (0..DRAWS).map(move |draw| Reduction { draw, ..smaller.clone() });
        let smaller = smaller(failure).into_iter().flat_map(draws);
        smaller.into_iter().find_map(|smaller| attempt(failure.seed, failure.order, &smaller).err())
    };
    while let Some(smaller) = smallest(&failure) {
        failure = smaller;
    }
    failure
}

/// The scenarios that have a little less than that of a failure, those that have much less first.
fn smaller(failure: &Failure) -> Vec<Reduction> {
    let of = &failure.reduction;
    let Scenario { faults, arrivals, .. } = Scenario::of(failure.seed);
    let kept = of.faults.clone().unwrap_or_else(|| (0..faults.len()).collect());
    let count = of.events.unwrap_or(arrivals.len());
    let mut smaller = Vec::new();
    for fewer in [count / 4, count / 2, count * 3 / 4, count.saturating_sub(2), count.saturating_sub(1)] {
        if fewer < count {
            smaller.push(Reduction { events: Some(fewer), ..of.clone() });
        }
    }
    let without = |left_out: &[usize]| {
        let faults: BTreeSet<usize> = kept.iter().filter(|kept| !left_out.contains(kept)).copied().collect();
        Reduction { faults: Some(faults), ..of.clone() }
    };
    for first in &kept {
        smaller.extend(kept.iter().filter(|second| *second > first).map(|second| without(&[*first, *second])));
    }
    smaller.extend(kept.iter().map(|fault| without(&[*fault])));
    for processes in 1..of.processes.unwrap_or(3) {
        smaller.push(Reduction { processes: Some(processes), ..of.clone() });
    }
    if !of.straight {
        smaller.push(Reduction { straight: true, ..of.clone() });
    }
    smaller
}
