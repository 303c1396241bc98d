//! One check: what was compared, the figures, and what came of it.

use std::fmt::Display;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// There was nothing to compare.
    Skipped,
}

impl Outcome {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        }
    }
}

/// A check that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, for programs and for the page that explains it.
    pub name: &'static str,
    /// What must hold.
    pub claim: &'static str,
    /// The figures that were compared.
    pub figures: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What is wrong, one line for each.
    pub findings: Vec<String>,
}

impl Check {
    /// A check that failed where there are `findings`.
    pub fn of(name: &'static str, claim: &'static str, figures: impl Display, findings: Vec<String>) -> Check {
        let outcome = if findings.is_empty() { Outcome::Passed } else { Outcome::Failed };
        Check { name, claim, figures: figures.to_string(), outcome, findings }
    }

    /// A check whose figures say it all.
    pub fn that(name: &'static str, claim: &'static str, figures: impl Display, holds: bool) -> Check {
        let outcome = if holds { Outcome::Passed } else { Outcome::Failed };
        Check { name, claim, figures: figures.to_string(), outcome, findings: Vec::new() }
    }

    /// Lets it pass although it fails: somebody has accepted why.
    pub(super) fn accept(&mut self, why: &str) {
        if self.outcome == Outcome::Failed {
            self.outcome = Outcome::Passed;
            self.figures = format!("{}; accepted: {why}", self.figures);
        }
    }

    /// A check that could not be made, and why that is no violation.
    pub fn skipped(name: &'static str, claim: &'static str, why: impl Display) -> Check {
        Check { name, claim, figures: why.to_string(), outcome: Outcome::Skipped, findings: Vec::new() }
    }
}
