//! One pipeline that is started again and again: its input, its output, and the settings that must stay the same.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::oracle::{Partition, Rules, check};
use crate::program::{Case, Ended, Running, tidemark_in};
use crate::tables::Tables;

/// Shows each publication and checkpoint in the log.
const CHATTY: &str =
    "--set log.level=warn,tidemark=debug,deltalake_core=error,buoyant_kernel=off --set store.give_up_after=1s";

/// Publishes and checkpoints as often as can be. How often may change from one start to the next.
pub(crate) const EAGER: &str = "--checkpoint-interval 0s --set sink.publish_interval=0ms --set epochs.max_in_flight=1";

/// Where the events come from.
pub(crate) enum Input {
    /// The files in `in`.
    Files,
    /// Standard input, from its first byte at each start.
    Stdin(Arc<Vec<u8>>),
}

/// A pipeline from `in`, or standard input, to `out`.
pub(crate) struct Job {
    pub(crate) case: Case,
    pub(crate) rules: Rules,
    pub(crate) input: Input,
    settings: String,
}

impl Job {
    /// A pipeline over files with these lines. `settings` are those that stay the same at each start.
    pub(crate) fn new(partitions: &[Vec<String>], rules: Rules, settings: &str) -> Job {
        Job { case: Case::of(partitions), rules, input: Input::Files, settings: settings.to_owned() }
    }

    /// The same over standard input.
    pub(crate) fn on_stdin(rules: Rules, settings: &str) -> Job {
        Job { case: Case::new(), rules, input: Input::Stdin(Arc::default()), settings: settings.to_owned() }
    }

    /// The same pipeline with a copy of everything that it has so far, over files.
    pub(crate) fn copy(&self) -> Job {
        let case = self.case.copy();
        Job { case, rules: self.rules, input: Input::Files, settings: self.settings.clone() }
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.case.path("out")
    }

    /// Starts it with so many workers and further arguments, and with fail points in the form of `FAILPOINTS`.
    pub(crate) fn start(&self, workers: usize, more: &str, fail_points: &str) -> Running {
        self.start_in(&[], workers, more, fail_points)
    }

    /// The same as an argument of another command, such as one that runs it somewhere else.
    pub(crate) fn start_in(&self, around: &[&str], workers: usize, more: &str, fail_points: &str) -> Running {
        let given = if matches!(self.input, Input::Files) { "in" } else { "-" };
        let workers = workers.to_string();
        let mut args = vec!["run", "--output", "out", "--workers", &workers];
        if !more.contains("--input") {
            args.extend(["--input", given]);
        }
        let flags = self.rules.flags();
        // Other values for the rules may stand in `more`.
        let rules = flags.chunks(2).filter(|pair| !more.contains(pair[0].as_str()));
        args.extend(rules.flatten().map(String::as_str));
        args.extend([self.settings.as_str(), more, CHATTY].iter().flat_map(|words| words.split_whitespace()));
        let mut command = tidemark_in(around, self.case.root(), args);
        command.env("FAILPOINTS", fail_points);
        match &self.input {
            Input::Files => Running::start(command.stdin(Stdio::null())),
            Input::Stdin(bytes) => {
                let mut running = Running::start(command.stdin(Stdio::piped()));
                let (mut pipe, bytes) = (running.take_stdin(), Arc::clone(bytes));
                // The program may be killed at any byte.
                std::thread::spawn(move || pipe.write_all(&bytes));
                running
            }
        }
    }

    /// What standard input gives from now on, from its first byte.
    pub(crate) fn feed(&mut self, bytes: Vec<u8>) {
        self.input = Input::Stdin(Arc::new(bytes));
    }

    /// Adds lines to an input file.
    pub(crate) fn append(&self, file: &str, lines: &[String]) {
        let mut file = std::fs::File::options().append(true).open(self.case.path("in").join(file)).unwrap();
        file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    }

    /// Runs it to its end, which must be a good one.
    pub(crate) fn finish(&self, workers: usize) -> Ended {
        self.start(workers, "--checkpoint-interval 0s", "").ended().well()
    }

    /// Starts it, waits until it stops at a place, and kills it there.
    pub(crate) fn kill_at(&self, workers: usize, stop: &Stop) {
        let mut running = self.start(workers, EAGER, &stop.fail_points());
        let word = format!("stopped at {}", stop.place);
        assert!(running.says(&word), "never came to {stop:?}:\n{}", running.log());
        running.kill().unwrap_or_else(|ended| panic!("ended at {stop:?}: {ended:?}"));
    }

    pub(crate) fn partitions(&self) -> Vec<Partition> {
        match &self.input {
            Input::Files => Partition::of_directory(&self.case.path("in")),
            Input::Stdin(bytes) => vec![Partition::new("stdin", bytes)],
        }
    }

    /// Compares the tables with those of an undisturbed run.
    pub(crate) fn check(&self) -> Tables {
        check(&self.output(), &self.partitions(), self.rules)
    }
}

/// Where to stop the program: at a named place, having passed it so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) place: &'static str,
    pub(crate) passed: usize,
}

impl Stop {
    /// At the first hit.
    pub(crate) fn first(place: &'static str) -> Stop {
        Stop { place, passed: 0 }
    }

    /// Stops there for good.
    pub(crate) fn fail_points(&self) -> String {
        format!("{}={}return", self.place, self.before())
    }

    /// Stops there for a while, long enough to be sent a signal, and goes on.
    pub(crate) fn pause(&self) -> String {
        format!("{}={}1*return(3000)->off", self.place, self.before())
    }

    fn before(&self) -> String {
        if self.passed == 0 { String::new() } else { format!("{}*off->", self.passed) }
    }
}

/// Says in which of many cases a test failed.
pub(crate) struct Named(pub(crate) String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0);
        }
    }
}

/// Takes the cases two at a time: the program waits for storage often enough.
pub(crate) fn side_by_side<T: Sync + std::fmt::Debug>(cases: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _named = Named(format!("{case:?}"));
                    run(case);
                }
            });
        }
    });
}
