//! A pipeline from files to a container: started, killed, checked.

use std::process::Stdio;

use tidemark::config::kind::Raw;
use tidemark::config::{Config, Effective, Given, Layers, Origin};
use tidemark::storage::Storage;

use super::azurite::Container;
use crate::crash::job::Stop;
use crate::oracle::{PRESENT, Partition, Rules, cuts_of_files, judge};
use crate::program::{Case, Ended, Running, finish, tidemark};
use crate::tables::Tables;

/// Publishes and checkpoints as often as can be, and shows it. A lease that is short, so that tests need not wait long.
const EAGER: [&str; 5] = [
    "checkpoint.interval=0s",
    "sink.publish_interval=0ms",
    "epochs.max_in_flight=1",
    "checkpoint.lease_ttl=2s",
    "log.level=warn,tidemark=debug,deltalake_core=error,buoyant_kernel=off",
];

/// A pipeline from `in` to a place in a container of its own.
pub(crate) struct Remote {
    pub(crate) case: Case,
    pub(crate) container: Container,
    pub(crate) output: String,
    rules: Rules,
}

/// Without warnings of what passes: on a machine that is busy with other things a short lease runs out, and Azurite drops
/// a connection now and then.
fn calm(ended: Ended) -> Ended {
    let passing = ["the lease has run out", "failed; nothing is lost, it is tried again"];
    let stderr = ended.stderr.lines().filter(|line| !passing.iter().any(|words| line.contains(words)));
    Ended { stderr: stderr.flat_map(|line| [line, "\n"]).collect(), ..ended }
}

impl Remote {
    /// `None` where there is no Azurite.
    pub(crate) fn new(partitions: &[Vec<String>], rules: Rules) -> Option<Remote> {
        let container = Container::new()?;
        let output = container.az("pay/v1");
        Some(Remote { case: Case::of(partitions), container, output, rules })
    }

    /// The configuration of the program, for this process.
    pub(crate) fn config(&self) -> Config {
        let flag = Given {
            key: "output.path".to_owned(),
            raw: Raw::Word(self.output.clone()),
            origin: Origin::Flag("--output".to_owned()),
        };
        let environment = self.container.environment().map(|(name, value)| (name.into(), value.into()));
        let layers = Layers { flags: vec![flag], environment: environment.into(), ..Layers::default() };
        Effective::load(layers).unwrap().config
    }

    /// Any verb, with `--output` if it takes one.
    pub(crate) fn verb(&self, args: &[&str]) -> Ended {
        let args = args.iter().copied().chain(["--output", &self.output]);
        finish(tidemark(self.case.root(), args).envs(self.container.environment()), b"")
    }

    /// Starts it, with further arguments and fail points.
    pub(crate) fn start(&self, more: &str, fail_points: &str) -> Running {
        let args = ["run", "--input", "in", "--workers", "2", "--output", &self.output].map(str::to_owned);
        let args = args.into_iter().chain(self.rules.flags());
        // Other values for the same settings may stand in `more`.
        let usual = EAGER.iter().filter(|setting| !more.contains(setting.split('=').next().unwrap_or_default()));
        let usual = usual.flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]);
        let args = args.chain(usual).chain(more.split_whitespace().map(str::to_owned));
        let mut command = tidemark(self.case.root(), args);
        command.envs(self.container.environment()).env("FAILPOINTS", fail_points).stdin(Stdio::null());
        Running::start(&mut command)
    }

    /// Starts it, waits until it stops at a place, and kills it there.
    pub(crate) fn kill_at(&self, more: &str, stop: &Stop) {
        let mut running = self.start(more, &stop.fail_points());
        let word = format!("stopped at {}", stop.place);
        assert!(running.says(&word), "never came to {stop:?}:\n{}", running.log());
        running.kill().unwrap_or_else(|ended| panic!("ended at {stop:?}: {ended:?}"));
    }

    /// Runs it to its end, which must be a good one.
    pub(crate) fn finish(&self, more: &str) -> Ended {
        calm(self.start(more, "").ended()).well()
    }

    /// Compares the tables with those of an undisturbed run.
    pub(crate) fn check(&self) -> Tables {
        let partitions = Partition::of_directory(&self.case.path("in"));
        let cuts = cuts_of_files(&partitions, self.rules, |_| PRESENT);
        let config = self.config();
        let location = Storage::new(&config).tables(tidemark_store::Patience::default()).unwrap();
        judge(Tables::at(&location), &partitions, &cuts, self.rules)
    }
}
