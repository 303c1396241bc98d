//! Kills at random instants, until enough of them hit a running program, while a reader watches the tables.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crash::job::{Input, Job};
use crate::crash::watch::{Reader, Watch};
use crate::data::{Eventful, Random};
use crate::oracle::Rules;
use crate::program::Running;
use crate::tables::NET_FLOW;

/// What is asked for.
pub(crate) struct Plan {
    /// So many kills must hit a program that runs.
    pub(crate) kills: usize,
    pub(crate) seed: u64,
    /// Numbers of workers to choose from.
    pub(crate) workers: Vec<usize>,
    /// Events of an epoch and partition.
    pub(crate) epoch_events: usize,
    /// Files; none for standard input.
    pub(crate) files: usize,
    /// At least so many events are fed in the end.
    pub(crate) events: usize,
}

/// What the program was doing when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It had not yet recorded what it goes on from.
    BeforeAdoption,
    /// It had not yet published anything.
    BeforePublication,
    /// It was publishing.
    Running,
}

/// What happened.
pub(crate) struct Report {
    pub(crate) kills: BTreeMap<Phase, usize>,
    /// Kills since the one before which an epoch was published or cut.
    pub(crate) after_progress: usize,
    /// Starts, with those that came to their end by themselves.
    pub(crate) starts: usize,
    pub(crate) epochs: usize,
    pub(crate) events: usize,
    /// How often the reader has looked at all rows.
    pub(crate) looks: usize,
    pub(crate) generations: i64,
    pub(crate) took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "killed {} times in {} starts and {:.1} s:", self.killed(), self.starts, self.took.as_secs_f64())?;
        for (phase, kills) in &self.kills {
            writeln!(f, "  {kills:>5} {}", phase.in_words())?;
        }
        writeln!(f, "  {:>5} after an epoch had been published or cut since the kill before", self.after_progress)?;
        writeln!(f, "{} events in {} epochs, {} generations", self.events, self.epochs, self.generations)?;
        write!(f, "{} looks of a reader at all tables: epochs, versions and counts only grew", self.looks)
    }
}

impl Phase {
    fn in_words(self) -> &'static str {
        match self {
            Phase::BeforeAdoption => "before it had adopted what it goes on from",
            Phase::BeforePublication => "after that, before its first publication",
            Phase::Running => "after its first publication",
        }
    }
}

impl Report {
    pub(crate) fn killed(&self) -> usize {
        self.kills.values().sum()
    }
}

/// The input, which always holds whole epochs, so that it can grow between two starts without another cut.
struct Stream {
    events: Eventful,
    epochs: usize,
    next: usize,
}

impl Stream {
    fn grow_to(&mut self, epochs: usize, plan: &Plan, job: &mut Job) {
        let rows = epochs.saturating_sub(self.epochs) * plan.epoch_events;
        let mut texts = vec![String::new(); plan.files.max(1)];
        for index in self.next..self.next + rows {
            for text in &mut texts {
                text.push_str(&self.events.line(index));
                text.push('\n');
            }
        }
        for (index, text) in texts.iter().enumerate() {
            match &mut job.input {
                Input::Stdin(bytes) => Arc::make_mut(bytes).extend_from_slice(text.as_bytes()),
                Input::Files => {
                    let path = job.case.path(&format!("in/p{index}.ndjson"));
                    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
                    file.write_all(text.as_bytes()).unwrap();
                }
            }
        }
        self.next += rows;
        self.epochs = self.epochs.max(epochs);
    }
}

/// Epochs that a start may come through before it is killed.
const HEADROOM: usize = 150;

/// When to kill.
#[derive(Clone, Copy, Debug)]
enum Moment {
    AfterStart,
    /// After it has said that so often.
    AfterLine(usize, &'static str),
}

/// Kills and restarts a pipeline until the plan is fulfilled, lets it finish, and compares its tables with the oracle.
/// `say` is told of the progress.
pub(crate) fn storm(plan: &Plan, mut say: impl FnMut(&str)) -> Report {
    let started = Instant::now();
    let rules = Rules::epochs_of(plan.epoch_events);
    let mut job = if plan.files == 0 { Job::on_stdin(rules, "") } else { Job::new(&[], rules, "") };
    let events = Eventful::new(plan.seed, (plan.kills / 40).max(4));
    say(&format!("in {}", job.case.root().display()));
    let mut stream = Stream { events, epochs: 0, next: 0 };
    let mut random = Random(plan.seed);
    let mut reader = Reader::new(&job.output());
    let watch = Watch::start(&job.output());
    let (mut kills, mut starts, mut after_progress) = (BTreeMap::new(), 0, 0);
    let mut startup = Duration::from_millis(300);
    let mut progress = (0, 0);
    while kills.values().sum::<usize>() < plan.kills {
        stream.grow_to(usize::try_from(reader.epoch()).unwrap() + HEADROOM, plan, &mut job);
        assert!(!watch.has_failed(), "{:?}", watch.end().epoch());
        starts += 1;
        assert!(starts <= 3 * plan.kills + 10, "it ends by itself too often: {kills:?} in {starts} starts");
        let (log, phase) = match strike(&job, plan, &mut random, &mut startup) {
            Ok(killed) => killed,
            Err(()) => continue,
        };
        *kills.entry(phase).or_default() += 1;
        reader.read_logs();
        let now = (reader.epoch(), newest_cut(&job.output()));
        after_progress += usize::from(now > progress);
        say(&format!("kill {}: {phase:?}, {} lines of log, epoch {}", starts, log.lines().count(), now.0));
        progress = now;
    }
    let whole = plan.events.div_ceil(plan.epoch_events * plan.files.max(1));
    stream.grow_to(whole, plan, &mut job);
    job.finish(plan.workers[random.below(plan.workers.len())]);
    let reader = watch.end();
    let epochs = job.check().marks().len();
    assert_eq!(reader.epoch(), i64::try_from(epochs).unwrap());
    Report {
        kills,
        after_progress,
        starts: starts + 1,
        epochs,
        events: stream.next * plan.files.max(1),
        looks: reader.looks,
        generations: reader.seen(&NET_FLOW).generation,
        took: started.elapsed(),
    }
}

/// Starts the program and kills it at a random instant; an error if it ended well before.
fn strike(job: &Job, plan: &Plan, random: &mut Random, startup: &mut Duration) -> Result<(String, Phase), ()> {
    let workers = plan.workers[random.below(plan.workers.len())];
    let interval = ["0s", "100ms", "1s"][random.below(3)];
    let in_flight = 1 + random.below(4);
    let pace = format!("--checkpoint-interval {interval} --set epochs.max_in_flight={in_flight}");
    let moment = match random.below(8) {
        0 | 1 => Moment::AfterStart,
        2 => Moment::AfterLine(1, " running"),
        3 => Moment::AfterLine(1, "published"),
        // The first publication after a restart may bring nothing new.
        _ => Moment::AfterLine(2, "published"),
    };
    let begun = Instant::now();
    let mut running = job.start(workers, &format!("{pace} --set sink.publish_interval=0ms"), "");
    let alive = match moment {
        Moment::AfterStart => wait(&mut running, random, *startup * 3 / 2),
        Moment::AfterLine(times, word) => {
            let said = running.says_times(times, word);
            if word != "published" {
                // Grows with a machine that is busy with other things.
                *startup = (*startup + begun.elapsed()) / 2;
            }
            said && wait(&mut running, random, *startup)
        }
    };
    let killed = if alive { running.kill() } else { Err(running.ended()) };
    match killed {
        Ok(log) => {
            let phase = phase(&job.output(), &log);
            Ok((log, phase))
        }
        Err(ended) => {
            ended.well();
            Err(())
        }
    }
}

/// Lets it run for a random time, at most `longest`.
fn wait(running: &mut Running, random: &mut Random, longest: Duration) -> bool {
    let micros = random.below(usize::try_from(longest.as_micros()).unwrap().max(1));
    running.runs_until(Instant::now() + Duration::from_micros(micros as u64))
}

fn phase(output: &Path, log: &str) -> Phase {
    let newest = |folder: &str| names(&output.join("_tidemark").join(folder)).pop();
    if log.contains("published") {
        Phase::Running
    } else if newest("adoptions").is_some() && newest("generations") == newest("adoptions") && log.contains(" running")
    {
        Phase::BeforePublication
    } else {
        Phase::BeforeAdoption
    }
}

/// The first epoch in the newest object of cuts.
fn newest_cut(output: &Path) -> u64 {
    let cuts = output.join("_tidemark/cuts");
    let all = names(&cuts).into_iter().flat_map(|generation| names(&cuts.join(generation)));
    all.filter_map(|name| name.parse().ok()).max().unwrap_or(0)
}

/// Names in a directory, in order; none if it is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
