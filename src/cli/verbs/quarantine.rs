//! `tidemark quarantine`: what was rejected, and feeding it to the contract once more.

use super::print;
use crate::cli::Global;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::exit::{ExitStatus, Failure};
use crate::quarantine::replay::Plan;
use crate::quarantine::{Selection, list};
use crate::report::reader::Reader;
use crate::runtime::{RunError, build, clock};
use clap::{ArgGroup, Args, Subcommand};
use std::io::Write;
use tidemark_dataflows::reason::Reason;

const LIST_EXAMPLES: &str = "Examples:
  tidemark quarantine list
  tidemark quarantine list --reason R120 --since 40 --limit 10";

const REPLAY_HELP: &str = "The payloads are put durably into the inbox of the pipeline, as events of a partition named \
`replay`, in the order of epoch, partition and offset. A running instance takes them at once, else the next run does; they count as received again, \
exactly once, and the old rows stay. So a second replay of the same events feeds them again: give --id, and repeat \
with the same one, where a reply may have been lost.

Examples:
  tidemark quarantine replay --reason R140 --dry-run
  tidemark quarantine replay --epoch 12..14 --partition p0.ndjson --id after-the-fix";

/// What can be done with rejected events.
#[derive(Debug, Clone, Subcommand)]
pub enum QuarantineVerb {
    /// Count rejected events by reason, or list single ones
    List(List),
    /// Feed rejected events through the contract again
    Replay(Replay),
}

/// Arguments of `quarantine list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct List {
    /// Single events that broke this rule, such as R120; may be repeated
    #[arg(long, value_name = "RULE", value_parser = rule)]
    pub reason: Vec<Reason>,
    /// Single events of this epoch and later ones
    #[arg(long, value_name = "EPOCH")]
    pub since: Option<u64>,
    /// Most single events to list [default: 100]
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

/// Arguments of `quarantine replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = REPLAY_HELP, group = ArgGroup::new("choice").required(true).multiple(true))]
pub struct Replay {
    /// Events that broke one of these rules, such as R120
    #[arg(long, value_name = "RULE", value_parser = rule, num_args = 1.., group = "choice")]
    pub reason: Vec<Reason>,
    /// Events of these epochs, both included: 3, 3..7, 3.. or ..7
    #[arg(long, value_name = "EPOCHS", value_parser = epochs, group = "choice")]
    pub epoch: Option<Epochs>,
    /// Events of this partition; may be repeated
    #[arg(long, value_name = "NAME", group = "choice")]
    pub partition: Vec<String>,
    /// Events at these offsets
    #[arg(long, value_name = "N", num_args = 1.., group = "choice")]
    pub offset: Vec<u64>,
    /// Every rejected event, those that were replayed included
    #[arg(long, group = "choice", conflicts_with_all = ["reason", "epoch", "partition", "offset"])]
    pub all: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Name of this replay: repeated under the same one, it does nothing [default: drawn at random]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub id: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

/// First and last epoch, where they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epochs {
    from: Option<u64>,
    to: Option<u64>,
}

fn rule(text: &str) -> Result<Reason, String> {
    let code = |reason: &Reason| reason.as_str().split('_').next().unwrap_or_default();
    let known = Reason::ALL.into_iter().find(|r| r.as_str() == text || code(r).eq_ignore_ascii_case(text));
    known.ok_or_else(|| {
        let all: Vec<&str> = Reason::ALL.iter().map(code).collect();
        format!("expected one of {}", all.join(", "))
    })
}

fn epochs(text: &str) -> Result<Epochs, String> {
    let number = |text: &str| match text {
        "" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| "expected 3, 3..7, 3.. or ..7".to_owned()),
    };
    match text.split_once("..") {
        Some((from, to)) => Ok(Epochs { from: number(from)?, to: number(to)? }),
        None if text.is_empty() => Err("expected 3, 3..7, 3.. or ..7".to_owned()),
        None => number(text).map(|epoch| Epochs { from: epoch, to: epoch }),
    }
}

fn name(text: &str) -> Result<String, String> {
    if (1..=200).contains(&text.len()) { Ok(text.to_owned()) } else { Err("expected 1 to 200 bytes".to_owned()) }
}

impl QuarantineVerb {
    /// Does what the verb says.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        match self {
            QuarantineVerb::List(list) => list.execute(global, out),
            QuarantineVerb::Replay(replay) => replay.execute(global, out),
        }
    }
}

/// Single events that are listed unless a number is given.
const DEFAULT_LIMIT: u64 = 100;

impl List {
    fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        let reader = Reader::new(&config)?;
        let selection = Selection { reasons: self.reason.clone(), from_epoch: self.since, ..Selection::default() };
        let single = !self.reason.is_empty() || self.since.is_some() || self.limit.is_some();
        let text = if single {
            list::print_rows(&reader, &selection, self.limit.unwrap_or(DEFAULT_LIMIT), self.json)
        } else {
            list::print_counts(&reader, &selection, self.json)
        };
        print(out, text?)
    }
}

impl Replay {
    fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let config = global.start(&self.settings)?.config;
        config.output.readable_by.keep_others_out();
        if !config.checkpoint.enabled {
            let problem = "without checkpoints there is no inbox; set checkpoint.enabled, or feed a new pipeline";
            return Err(Failure::new(ExitStatus::Usage, problem));
        }
        let Some((store, _)) = build::stored(&config)? else {
            let folder = config.checkpoint_path();
            let problem = format!("{}: no pipeline was ever started here", folder.display());
            return Err(Failure::new(ExitStatus::Unavailable, problem));
        };
        let selection = Selection {
            reasons: self.reason.clone(),
            from_epoch: self.epoch.and_then(|epochs| epochs.from),
            to_epoch: self.epoch.and_then(|epochs| epochs.to),
            partitions: self.partition.clone(),
            offsets: self.offset.clone(),
            event_id: None,
        };
        let plan = Plan::read(&Reader::new(&config)?, &selection)?;
        let plan = plan.map_err(|too_much| Failure::new(ExitStatus::Usage, too_much))?;
        if self.dry_run {
            return print(out, plan.report(None, true, self.json));
        }
        let random = || getrandom::u64().map_err(|error| RunError::Randomness(error.to_string()));
        let id = match &self.id {
            Some(id) => id.clone(),
            None => format!("{:016x}{:016x}", random()?, random()?),
        };
        let done = plan.put(store, &id, clock::now())?;
        print(out, plan.report(done.as_ref(), false, self.json))
    }
}
