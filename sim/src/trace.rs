//! One line for each step.

use std::fmt::Write as _;

/// What the columns of a trace are.
pub(crate) const LEGEND: &str = "\
# time       since the beginning, in seconds
# who        instance, and process of it where it matters: i3.1 is process 1 of the third instance that was started; -- is the world
# gen        generation of the instance; -- before it has claimed one
# act        what happens
# store      objects of the checkpoint: generations claimed, objects with cuts, manifests, runs
# tables     epochs of the tables, from the least to the greatest, and the generations that they are fenced with
";

/// The lines so far; none are kept unless somebody wants to read them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The lines, if they are kept.
    pub(crate) lines: Option<Vec<String>>,
    /// Number of steps.
    pub(crate) steps: usize,
}

/// What a line says besides the act.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Who {
    /// The instance.
    pub(crate) instance: Option<usize>,
    /// The process of it.
    pub(crate) process: Option<usize>,
    /// Its generation.
    pub(crate) generation: Option<u64>,
}

impl Trace {
    /// A trace that keeps its lines.
    pub(crate) fn kept() -> Trace {
        Trace { lines: Some(vec![LEGEND.to_owned() + &row("time", "who", "gen", "act", "store", "tables")]), steps: 0 }
    }

    /// Notes a step. What it says is only worked out where it is kept.
    pub(crate) fn step(
        &mut self,
        now: u64,
        who: Who,
        act: impl FnOnce() -> String,
        stores: impl FnOnce() -> (String, String),
    ) {
        self.steps += 1;
        let Some(lines) = &mut self.lines else { return };
        let mut name = who.instance.map_or("--".to_owned(), |instance| format!("i{instance}"));
        if let Some(process) = who.process {
            let _ = write!(name, ".{process}");
        }
        let generation = who.generation.map_or("--".to_owned(), |generation| format!("g{generation}"));
        let (store, tables) = stores();
        let time = format!("{}.{:06}", now / 1_000_000, now % 1_000_000);
        lines.push(row(&time, &name, &generation, &act(), &store, &tables));
    }
}

fn row(time: &str, who: &str, generation: &str, act: &str, store: &str, tables: &str) -> String {
    format!("{time:>10}  {who:<5} {generation:<4} {act:<72} {store:<18} {tables}")
}
