//! What was measured: figures and runs, read from and kept in a file of JSON lines.
//!
//! Benches write figures (see `dataflows/benches/common/figures.rs`); here each gets the section of the report that it was
//! measured for, and beside them stands when, where and by which command.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One figure of one contender, measured in some rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The section that it was measured for; benches do not know it.
    #[serde(default)]
    pub(crate) section: String,
    pub(crate) bench: String,
    /// The contender that all others are compared with.
    pub(crate) reference: Option<String>,
    pub(crate) contender: String,
    /// Under which parameters.
    pub(crate) at: BTreeMap<String, f64>,
    pub(crate) figure: String,
    pub(crate) unit: String,
    /// One number for each round.
    pub(crate) values: Vec<f64>,
}

impl Figure {
    /// The median.
    pub(crate) fn middle(&self) -> f64 {
        median(&self.values)
    }

    /// The least and the greatest.
    pub(crate) fn spread(&self) -> (f64, f64) {
        self.values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
    }

    /// How many times the reference it is: the median over rounds, as whatever disturbs a round disturbs both.
    pub(crate) fn ratio_to(&self, reference: &Figure) -> f64 {
        if self.values.len() != reference.values.len() {
            return self.middle() / reference.middle();
        }
        let ratios: Vec<f64> = self.values.iter().zip(&reference.values).map(|(own, light)| own / light).collect();
        median(&ratios)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// That a section was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) section: String,
    pub(crate) commands: Vec<String>,
    /// `--quick` or `--full`.
    pub(crate) extent: String,
    pub(crate) began: String,
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
}

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) figures: Vec<Figure>,
    pub(crate) runs: Vec<Run>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Run { run: Run },
    Figure(Figure),
}

impl Measured {
    /// What a file holds; nothing where there is none.
    pub(crate) fn read(path: &Path) -> io::Result<Measured> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Measured::default()),
            read => read?,
        };
        let mut measured = Measured::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match serde_json::from_str(line)? {
                Line::Run { run } => measured.runs.push(run),
                Line::Figure(figure) => measured.figures.push(figure),
            }
        }
        Ok(measured)
    }

    /// Writes all of it in place of what the file held.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let runs = self.runs.iter().map(|run| Line::Run { run: run.clone() });
        let lines = runs.chain(self.figures.iter().cloned().map(Line::Figure));
        let text: Result<String, serde_json::Error> =
            lines.map(|line| serde_json::to_string(&line).map(|line| line + "\n")).collect();
        std::fs::write(path, text?)
    }

    /// Takes what was measured now for a section in place of what was known of it.
    pub(crate) fn replace(&mut self, run: Run, figures: Vec<Figure>) {
        self.runs.retain(|known| known.section != run.section);
        self.figures.retain(|known| known.section != run.section);
        self.figures.extend(figures.into_iter().map(|figure| Figure { section: run.section.clone(), ..figure }));
        self.runs.push(run);
    }

    /// One kind of figure of a section, in the order of measuring.
    pub(crate) fn of(&self, section: &str, figure: &str) -> Vec<&Figure> {
        self.figures.iter().filter(|known| known.section == section && known.figure == figure).collect()
    }

    /// What a figure is compared with: the same of the reference, under the same parameters but for the number of workers,
    /// of which a reference has none.
    pub(crate) fn reference_of(&self, figure: &Figure) -> Option<&Figure> {
        let alike = |other: &&Figure| {
            Some(&other.contender) == figure.reference.as_ref()
                && other.section == figure.section
                && other.figure == figure.figure
                && other.unit == figure.unit
                && other.at.iter().all(|(name, value)| name == "workers" || figure.at.get(name) == Some(value))
        };
        self.figures.iter().find(alike)
    }

    /// When and how a section was measured.
    pub(crate) fn run_of(&self, section: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.section == section)
    }
}
