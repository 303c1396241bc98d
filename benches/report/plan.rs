//! What the report consists of: which benches run with which arguments, and what is drawn of their figures.

/// How a bench is run.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Command {
    /// A bench of `tidemark-dataflows` that writes figures.
    Dataflows(&'static str, &'static str),
    /// A program of this package that writes figures.
    Program(&'static str, &'static str),
    /// A bench of a package that criterion runs, and the function that the others are compared with.
    Criterion(&'static str, &'static str, &'static str),
}

/// A part of the report.
pub(crate) struct Section {
    /// What `--only` knows it by.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What is measured, and how to read it.
    pub(crate) text: &'static str,
    /// What `--quick` runs; a section without is measured by `--full` only.
    pub(crate) quick: &'static [Command],
    /// What `--full` runs; where it is empty, the same as `--quick`.
    pub(crate) full: &'static [Command],
    pub(crate) charts: &'static [Chart],
}

/// A drawing of one kind of figure.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) shape: Shape,
    pub(crate) aim: Option<Aim>,
}

/// How it is drawn.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// A bar for each contender.
    Bars,
    /// A line for each contender over a parameter; both axes are logarithmic.
    Lines(&'static str),
}

/// What a figure is to reach.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Aim {
    /// The contender that is judged; an empty name stands for any.
    pub(crate) contender: &'static str,
    pub(crate) value: Value,
    pub(crate) words: &'static str,
}

/// Bounds of a figure, or of its ratio to the reference.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Value {
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

const fn bars(title: &'static str, figure: &'static str) -> Chart {
    Chart { title, figure, shape: Shape::Bars, aim: None }
}

const fn lines(title: &'static str, figure: &'static str, over: &'static str) -> Chart {
    Chart { title, figure, shape: Shape::Lines(over), aim: None }
}

const fn aimed(chart: Chart, contender: &'static str, value: Value, words: &'static str) -> Chart {
    Chart { aim: Some(Aim { contender, value, words }), ..chart }
}

use Command::{Criterion, Dataflows, Program};
use Value::{AtMost, RatioAtLeast, RatioAtMost};

const WHOLE: [Section; 5] = [
    Section {
        name: "pipeline",
        title: "The whole pipeline, file to tables",
        text: "Events of 270 bytes from files into durable Delta tables. The limit is one plain thread that decodes, \
               deduplicates and adds up in hash maps, and keeps nothing: what is lost against it, or won by more workers, \
               buys tables that readers see and a checkpoint that survives a kill.",
        quick: &[Program("pipeline", "--events 1000000 --rounds 3")],
        full: &[Program("pipeline", "--events 4000000 --rounds 5")],
        charts: &[
            aimed(
                bars("Events per second", "speed"),
                "2 workers",
                RatioAtLeast(1.0),
                "2 workers: as fast as the limit",
            ),
            bars("Peak memory of the process", "peak memory"),
            bars("Where the time of one worker goes", "operator"),
        ],
    },
    Section {
        name: "long",
        title: "Twenty million events",
        text: "Long enough for beginning and end not to count, and for memory to show whether it is bounded: remembered ids \
               are most of it.",
        quick: &[],
        full: &[Program("pipeline", "--events 20000000 --rounds 1 --first 3")],
        charts: &[bars("Events per second", "speed"), bars("Peak memory of the process", "peak memory")],
    },
    Section {
        name: "latency",
        title: "From arrival to visible in every table",
        text: "50,000 events per second arrive by a schedule that waits for nobody; latency is counted from there, so a \
               stall is charged to every event that it delays.",
        quick: &[Program("latency", "--seconds 12 --warm-up 3 --trigger 100ms")],
        full: &[
            Program("latency", "--seconds 40 --warm-up 8 --trigger 1s"),
            Program("latency", "--seconds 30 --trigger 100ms"),
        ],
        charts: &[aimed(bars("Latency", "latency"), "p99", AtMost(1_000.0), "p99 within a second")],
    },
    Section {
        name: "idle",
        title: "While nothing happens",
        text: "The released program follows a quiet source. Share of one core, and how often its threads wake up.",
        quick: &[Program("idle", "--seconds 10")],
        full: &[Program("idle", "--seconds 30 --rounds 3")],
        charts: &[
            aimed(bars("Share of a core", "share"), "", AtMost(1.0), "less than one per cent of a core"),
            bars("Wakeups", "wakeups"),
        ],
    },
    Section {
        name: "hub",
        title: "From a broker into tables",
        text: "The local broker, four partitions. The bare loop receives with the official client and does nothing else.",
        quick: &[],
        full: &[Program("hub", "--events 2000000 --rounds 3")],
        charts: &[bars("Events per second", "speed"), bars("Processor time", "processor")],
    },
];

const PARTS: [Section; 8] = [
    Section {
        name: "dataflow",
        title: "The computation alone",
        text: "Blocks in memory to rows of metrics: no files, tables or checkpoints. Wall time; two workers use two cores.",
        quick: &[Dataflows("dataflow", "--events 1000000 --rounds 3")],
        full: &[Dataflows("dataflow", "--events 2000000 --rounds 7")],
        charts: &[
            aimed(
                bars("Wall time", "wall"),
                "1 worker",
                RatioAtMost(1.0),
                "one worker: no slower than the plain thread",
            ),
            bars("Processor time", "processor"),
        ],
    },
    Section {
        name: "dedup",
        title: "Deduplication",
        text: "Each id once, forgotten by watermark. Processor time of one worker at a steady state in which every new id \
               makes another one expire, beside a plain loop and four formulations in differential dataflow.",
        quick: &[Dataflows("dedup", "--ids 1000000,4000000 --rounds 1 --baselines-up-to 1000000")],
        full: &[
            Dataflows("dedup", "--ids 1000000,4000000 --rounds 3 --baselines-up-to 1000000"),
            Dataflows("dedup", "--ids 16000000 --rounds 1 --baselines-up-to 1000000"),
        ],
        charts: &[
            aimed(
                lines("Time for an event", "steady", "ids"),
                "operator",
                RatioAtMost(1.5),
                "at most 1.5 times the plain loop",
            ),
            aimed(
                lines("Memory for a remembered id", "memory", "ids"),
                "operator",
                AtMost(32.0),
                "at most 32 bytes for an id",
            ),
            lines("Slowest epoch of 100,000 events", "slowest epoch", "ids"),
        ],
    },
    Section {
        name: "metrics",
        title: "Totals by user",
        text: "Users drawn evenly, the hardest case. The hash table is in use, the arrangement is what differential dataflow \
               offers.",
        quick: &[Dataflows("metrics", "--users 500,100000,1000000 --events 2000000 --rounds 1")],
        full: &[
            Dataflows("metrics", "--users 500,100000,1000000 --events 2000000 --rounds 3"),
            Dataflows("metrics", "--users 10000000 --events 4000000 --rounds 1"),
        ],
        charts: &[
            lines("Time for an event", "time", "users"),
            lines("Memory for a user", "memory", "users"),
            lines("Slowest epoch of 100,000 events", "slowest epoch", "users"),
        ],
    },
    Section {
        name: "merge",
        title: "Bringing the table of users to an epoch",
        text: "One commit on a local disk. A MERGE rewrites the one file of the table whatever changes; the reference writes \
               the table anew without looking at what was there. Few rows are one in a hundred.",
        quick: &[Program("merge", "--rows 500,100000 --rounds 5")],
        full: &[Program("merge", "--rows 500,10000,100000,1000000 --rounds 7")],
        charts: &[
            lines("Time of a commit", "commit", "rows"),
            lines("Processor time of a commit", "processor", "rows"),
            lines("Bytes written by a commit", "written", "rows"),
        ],
    },
    Section {
        name: "checkpoint",
        title: "Checkpoint and restore",
        text: "Laying down runs of ids and totals, forcing them to the disk, and taking them up again with two workers, at 10 \
               million ids and a million users (1 million and 100,000 with --quick). The references are plain files of the \
               same bytes, and one thread that reads them into a plain hash table.",
        quick: &[Program("checkpoint", "--ids 1000000 --users 100000 --rounds 3")],
        full: &[Program("checkpoint", "--ids 10000000 --users 1000000 --rounds 3")],
        charts: &[bars("Time for an id or a total", "time"), bars("Size of a row", "size")],
    },
    Section {
        name: "runs",
        title: "Runs of a checkpoint, in memory",
        text: "The pure part of the above: encoding, decoding and merging runs, nothing written.",
        quick: &[Criterion("tidemark-checkpoint", "runs", "ids: sorting alone")],
        full: &[],
        charts: &[bars("Time for a row", "time")],
    },
    Section {
        name: "decode",
        title: "Judging one event",
        text: "The contract on the fast path and on the strict one, beside a plain serde_json struct that checks nothing.",
        quick: &[Criterion("tidemark-dataflows", "decode", "serde_json struct, nothing checked")],
        full: &[],
        charts: &[bars("Time for an event", "time")],
    },
    Section {
        name: "codec",
        title: "Carrying an event between processes",
        text: "A round trip through four codecs.",
        quick: &[Criterion("tidemark-dataflows", "codec", "fixed little-endian slots")],
        full: &[],
        charts: &[bars("Time for an event", "time")],
    },
];

const SCALE: [Section; 3] = [
    Section {
        name: "events",
        title: "More events",
        text: "The computation alone, with ever longer inputs: nothing may grow with what is behind. Room for all ids is \
               taken at the start, so longer inputs have larger tables, which leave the cache.",
        quick: &[],
        full: &[
            Dataflows("dataflow", "--events 500000 --rounds 5"),
            Dataflows("dataflow", "--events 2000000 --rounds 5"),
            Dataflows("dataflow", "--events 8000000 --rounds 3"),
        ],
        charts: &[lines("Processor time for an event", "processor", "events")],
    },
    Section {
        name: "epochs",
        title: "Smaller epochs",
        text: "The computation alone, with epochs of 500 events to a million. What an epoch costs by itself shows where they \
               are small.",
        quick: &[],
        full: &[
            Dataflows("dataflow", "--epoch-events 500 --events 1000000 --rounds 3"),
            Dataflows("dataflow", "--epoch-events 2000 --events 1000000 --rounds 3"),
            Dataflows("dataflow", "--epoch-events 10000 --events 1000000 --rounds 3"),
            Dataflows("dataflow", "--epoch-events 100000 --events 1000000 --rounds 3"),
            Dataflows("dataflow", "--epoch-events 1000000 --events 1000000 --rounds 3"),
        ],
        charts: &[lines("Processor time for an event", "processor", "epoch events")],
    },
    Section {
        name: "workers",
        title: "More workers",
        text: "The computation alone. Beyond the number of cores nothing can be won; what is lost there is what exchange and \
               more threads cost.",
        quick: &[],
        full: &[Dataflows("dataflow", "--workers 0,1,2,3,4 --rounds 5")],
        charts: &[bars("Wall time for an event", "wall"), bars("Processor time for an event", "processor")],
    },
];

/// All sections, in the order of the page.
pub(crate) fn sections() -> impl Iterator<Item = &'static Section> {
    WHOLE.iter().chain(&PARTS).chain(&SCALE)
}

/// A figure for the documentation: name of its file, title, and its panels by section and chart.
pub(crate) type Sheet = (&'static str, &'static str, &'static [(&'static str, Chart)]);

/// The figures of `docs/scale.md`.
pub(crate) const SHEETS: [Sheet; 2] = [
    (
        "scale-events.svg",
        "What an event costs as things grow",
        &[
            ("events", lines("Processor time by events of a run", "processor", "events")),
            ("epochs", lines("Processor time by events of an epoch", "processor", "epoch events")),
            ("dedup", lines("Deduplication by remembered ids", "steady", "ids")),
            ("metrics", lines("Totals by number of users", "time", "users")),
        ],
    ),
    (
        "scale-state.svg",
        "What state costs as it grows",
        &[
            ("dedup", lines("Memory by remembered ids", "memory", "ids")),
            ("metrics", lines("Memory by number of users", "memory", "users")),
            ("merge", lines("Processor time of a commit by rows of the table", "processor", "rows")),
            ("merge", lines("Bytes of a commit by rows of the table", "written", "rows")),
        ],
    ),
];
