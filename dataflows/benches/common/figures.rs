//! What a bench has measured, as lines of JSON, for whoever draws or compares it.
//!
//! With `--json FILE` each figure is appended to the file as one line:
//!
//! ```json
//! {"bench":"dedup","reference":"plain loop","contender":"operator","at":{"ids":1000000},"figure":"steady","unit":"ns/event","values":[71.2,70.9]}
//! ```
//!
//! `values` holds one number for each round, in the order of the rounds, so that contenders can be compared round by round.
//! Without the argument nothing is written.

use std::fs::{File, OpenOptions};
use std::io::Write;

/// Where the figures of a bench go.
pub(crate) struct Figures {
    bench: &'static str,
    /// The contender that all others are compared with.
    reference: Option<&'static str>,
    file: Option<File>,
}

impl Figures {
    /// Opens the file that the command line names, if it names one.
    pub(crate) fn new(bench: &'static str, reference: Option<&'static str>) -> Self {
        let path = std::env::args().skip_while(|argument| argument != "--json").nth(1);
        let file = path.map(|path| {
            let opened = OpenOptions::new().create(true).append(true).open(&path);
            opened.unwrap_or_else(|error| panic!("--json {path}: {error}"))
        });
        Figures { bench, reference, file }
    }

    /// Notes one figure of a contender under the parameters `at`: a number for each round.
    pub(crate) fn note(&mut self, contender: &str, at: &[(&str, f64)], (figure, unit): (&str, &str), values: &[f64]) {
        let Some(file) = &mut self.file else { return };
        let at: serde_json::Map<_, _> = at.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let line = serde_json::json!({
            "bench": self.bench, "reference": self.reference, "contender": contender,
            "at": at, "figure": figure, "unit": unit, "values": values,
        });
        writeln!(file, "{line}").unwrap_or_else(|error| panic!("writing figures: {error}"));
    }
}

/// The middle of some numbers.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The number that follows a name on the command line.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let given = std::env::args().skip_while(|argument| argument != name).nth(1);
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
}

/// The numbers, separated by commas, that follow a name on the command line.
pub(crate) fn numbers(name: &str, default: &[u64]) -> Vec<u64> {
    let given = std::env::args().skip_while(|argument| argument != name).nth(1);
    given.map_or_else(
        || default.to_vec(),
        |text| {
            let parse = |n: &str| n.parse().unwrap_or_else(|_| panic!("{name}: {n:?} is no number"));
            text.split(',').map(parse).collect()
        },
    )
}
