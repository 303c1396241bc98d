//! `[cluster]`: the processes that run a pipeline together, and the rules by which its settings fit each other.

use super::draft::{Assigned, Draft};
use super::kind::Value;
use super::problem::{Origin, Problem};
use super::secret::{MASK, Secret};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::{path::PathBuf, time::Duration};

/// Port of process 0 where no hosts are given; the others follow.
pub const FIRST_PORT: u16 = 7400;

/// Least length of the shared secret in bytes.
pub const SECRET_BYTES_MIN: usize = 16;

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Number of processes, at least 1.
    pub processes: usize,
    /// Number of this one, less than `processes`.
    pub process: usize,
    /// Where they find each other; none, or one for each process. See [`Cluster::addresses`].
    pub hosts: Vec<String>,
    /// Where this process listens, if that is not its own address.
    pub listen: Option<String>,
    /// What they prove to each other that they know.
    pub secret: Option<Secret>,
    /// The same in a file.
    pub secret_file: Option<PathBuf>,
    /// How long a start waits for the others.
    pub join_timeout: Duration,
    /// A process that gives no sign of life for so long is lost.
    pub lost_after: Duration,
}

impl Cluster {
    /// Whether there are other processes.
    pub fn is_shared(&self) -> bool {
        self.processes > 1
    }

    /// The address of each process.
    pub fn addresses(&self) -> Vec<String> {
        if self.hosts.is_empty() {
            (FIRST_PORT..).take(self.processes).map(|port| format!("127.0.0.1:{port}")).collect()
        } else {
            self.hosts.clone()
        }
    }
}

impl Draft {
    /// Judges the section as a whole.
    pub(super) fn check_cluster(&mut self) {
        let number = |draft: &Draft, key: &str| match draft.sound(key) {
            Some(Assigned { value: Value::Integer(number), origin }) => Some((*number, origin.clone())),
            _ => None,
        };
        let Some((processes, of_processes)) = number(self, "cluster.processes") else { return };
        if let Some((process, origin)) = number(self, "cluster.process").filter(|(process, _)| *process >= processes) {
            let last = processes.saturating_sub(1);
            let complaint =
                format!("processes are counted from 0; allowed: 0 to {last}, as cluster.processes = {processes}");
            self.object(format!("cluster.process = {process}"), origin, complaint);
        }
        if processes < 2 {
            return;
        }
        self.check_hosts(processes);
        let drawn = self.values.get("cluster.secret").is_some_and(|secret| matches!(secret.origin, Origin::Verb(_)));
        if drawn && self.given("cluster.secret_file").is_some() {
            self.values.insert("cluster.secret", Assigned { value: Value::Empty, origin: Origin::Default });
        }
        self.leave_one(&["cluster.secret", "cluster.secret_file"]);
        match self.sound("cluster.secret").cloned() {
            Some(Assigned { value: Value::Secret(secret), origin }) if secret.expose().len() < SECRET_BYTES_MIN => {
                let complaint = format!("too short; allowed: at least {SECRET_BYTES_MIN} bytes, drawn at random");
                self.object(format!("cluster.secret = {MASK}"), origin, complaint);
            }
            Some(Assigned { value: Value::Empty, .. }) if self.given("cluster.secret_file").is_none() => {
                let complaint = "several processes need a shared secret: set TIDEMARK__CLUSTER__SECRET, or \
                                 cluster.secret_file"
                    .to_owned();
                self.object(format!("cluster.processes = {processes}"), of_processes, complaint);
            }
            _ => {}
        }
    }

    fn check_hosts(&mut self, processes: u64) {
        let Some(Assigned { value: Value::List(hosts), origin }) = self.sound("cluster.hosts").cloned() else { return };
        let subject = format!("cluster.hosts = [{}]", hosts.join(", "));
        if !hosts.is_empty() && hosts.len() as u64 != processes {
            let complaint =
                format!("allowed: one for each process, {processes} of them as cluster.processes says, or none");
            self.object(subject, origin, complaint);
        } else if hosts.iter().collect::<BTreeSet<_>>().len() < hosts.len() {
            self.object(subject, origin, "two processes cannot have one address".to_owned());
        }
    }

    fn object(&mut self, subject: String, origin: Origin, complaint: String) {
        self.problems.push(Problem { subject, origin, complaint });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Given;
    use crate::config::kind::Raw;

    fn problems(settings: &[(&str, &str)]) -> Vec<String> {
        let origin = |key: &str| Origin::Environment(key.to_owned());
        let given = |(key, value): &(&str, &str)| Given {
            key: (*key).to_owned(),
            raw: Raw::Word((*value).to_owned()),
            origin: origin(key),
        };
        let mut draft = Draft::default();
        let defaults = ["secret", "secret_file", "listen"].map(|name| (format!("cluster.{name}"), ""));
        let defaults = defaults.iter().map(|(key, value)| (key.as_str(), *value));
        let defaults: Vec<_> = defaults.chain([("cluster.process", "0"), ("cluster.hosts", "")]).collect();
        draft.lay(defaults.iter().map(given).collect());
        draft.lay(settings.iter().map(given).collect());
        draft.check_together();
        draft.problems.iter().map(ToString::to_string).collect()
    }

    const SECRET: (&str, &str) = ("cluster.secret", "0123456789abcdef");

    #[test]
    fn settings_that_fit_are_taken() {
        assert_eq!(problems(&[("cluster.processes", "1")]), Vec::<String>::new());
        assert_eq!(problems(&[("cluster.processes", "2"), ("cluster.process", "1"), SECRET]), Vec::<String>::new());
        let file = ("cluster.secret_file", "/run/secret");
        let hosts = ("cluster.hosts", "a:1,b:1");
        assert_eq!(problems(&[("cluster.processes", "2"), hosts, file]), Vec::<String>::new());
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_with_what_would_be_right() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 6] = [
            (&[("cluster.processes", "2"), ("cluster.process", "2"), SECRET], &["cluster.process = 2", "0 to 1"]),
            (&[("cluster.processes", "2")], &["cluster.processes = 2", "TIDEMARK__CLUSTER__SECRET"]),
            (&[("cluster.processes", "2"), ("cluster.secret", "hunter2")], &["cluster.secret = ****", "16 bytes"]),
            (&[("cluster.processes", "2"), SECRET, ("cluster.secret_file", "f")], &["leave out one"]),
            (&[("cluster.processes", "3"), SECRET, ("cluster.hosts", "a:1,b:1")], &["[a:1, b:1]", "3 of them"]),
            (&[("cluster.processes", "2"), SECRET, ("cluster.hosts", "a:1,a:1")], &["one address"]),
        ];
        for (settings, words) in cases {
            let found = problems(settings);
            assert!(found.len() == 1 && words.iter().all(|word| found[0].contains(word)), "{settings:?}: {found:?}");
            assert!(!found[0].contains("hunter2"), "{found:?}");
        }
    }
}
