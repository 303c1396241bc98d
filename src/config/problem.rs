//! Where a value came from, and what is wrong with it.

use std::{fmt, sync::Arc};

/// Longest text in characters that a message repeats of what a user wrote.
const REPEATED_MAX: usize = 200;

/// `text` without line feeds and other control characters, which could forge lines or steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The place that gave a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The embedded defaults.
    Default,
    /// What a verb changes in the defaults; the field is its name.
    Verb(&'static str),
    /// A configuration file.
    File {
        /// The path as it was given.
        path: Arc<str>,
        /// Line from 1.
        line: usize,
        /// Column in characters from 1.
        column: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A flag as it was written, such as `--trigger` or `--set`.
    Flag(String),
    /// It follows from another key that was given in the same layer.
    Implied(&'static str, Box<Origin>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Verb(verb) => write!(f, "default of {verb}"),
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", one_line(path)),
            Origin::Environment(name) => write!(f, "environment variable {}", one_line(name)),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Implied(key, origin) => write!(f, "implied by {key} from {origin}"),
        }
    }
}

/// One thing that is wrong, as one line for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key, and value where there is one: `epochs.trigger = "1"`; empty where a whole file is at fault.
    pub subject: String,
    /// Where it came from.
    pub origin: Origin,
    /// What is wrong and what is allowed.
    pub complaint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { subject, origin, complaint } = self;
        let complaint = one_line(complaint);
        let mut shown: String = subject.chars().take(REPEATED_MAX).collect();
        if shown.len() < subject.len() {
            shown.push('…');
        }
        match subject.as_str() {
            "" => write!(f, "{origin}: {complaint}"),
            _ => write!(f, "{} ({origin}): {complaint}", one_line(&shown)),
        }
    }
}

/// Everything that is wrong with a configuration, at once and in the order in which the layers are read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_short_line_whatever_the_user_wrote() {
        let subject = format!("a\nerror: \u{1b}[31m{}", "é".repeat(1_000));
        let origin = Origin::Environment("X\n".to_owned());
        let line = Problem { subject, origin, complaint: "no\nno".to_owned() }.to_string();
        assert!(
            line.starts_with("a\\nerror: \\u{1b}[31mé") && line.ends_with("é… (environment variable X\\n): no\\nno")
        );
        assert!(!line.contains(char::is_control) && line.chars().count() < 300, "{line}");
    }
}
