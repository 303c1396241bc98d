//! What a rate of events asks for: hosts, memory, network, partitions, commits and checkpoints, calculated from what one
//! event, one id and one user were measured to cost. The result stands in `docs/scale.md`.

use std::fmt::Write;

use crate::svg::readable;

/// A name that `--plan` knows, a value, and what it is.
type Input = (&'static str, f64, &'static str);

/// What is asked for, and what was measured on the machine that `docs/scale.md` names.
const INPUTS: [Input; 19] = [
    ("rate", 1e6, "events a second"),
    ("hours", 24.0, "event time for which ids are remembered"),
    ("users", 1e7, "users"),
    ("accepted", 0.95, "share of events that are new"),
    ("event_bytes", 270.0, "bytes of an event"),
    ("id_bytes", 32.0, "bytes of memory for a remembered id"),
    ("user_bytes", 154.0, "bytes of memory for a user"),
    ("computation_ns", 540.0, "processor time of the computation for an event"),
    ("client_ns", 6_000.0, "processor time of the Event Hubs client for an event"),
    ("exchange_ns", 68.0, "processor time on each side of an exchange between processes for an event"),
    ("exchange_bytes", 73.0, "bytes of an event between processes"),
    ("headroom", 2.0, "cores provided for each that is busy"),
    ("checkpoint_bytes", 24.0, "bytes of an id in a checkpoint"),
    ("rewritten", 5.0, "times that an id is written in the life of a checkpoint"),
    ("merge_ms", 350.0, "milliseconds of a MERGE for a million rows of the table"),
    ("row_bytes", 13.0, "bytes of a row in the table's file"),
    ("host_gb", 512.0, "memory of a host"),
    ("usable", 0.75, "share of it for ids and users"),
    ("host_cores", 32.0, "cores of a host"),
];

/// The inputs, with those that `changes` gives as `name=value,…`.
pub(crate) fn plan(changes: &str) -> Result<String, String> {
    let mut inputs = INPUTS;
    for change in changes.split(',').filter(|change| !change.is_empty()) {
        let (name, value) = change.split_once('=').ok_or_else(|| format!("{change:?} is not name=value"))?;
        let input = inputs.iter_mut().find(|input| input.0 == name);
        let input =
            input.ok_or_else(|| format!("unknown input {name}: there are {:?}", INPUTS.map(|input| input.0)))?;
        input.1 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
    }
    let of = |name: &str| inputs.iter().find(|input| input.0 == name).map_or(f64::NAN, |input| input.1);
    let mut text = String::from("| input | value | |\n|---|---|---|\n");
    for (name, value, what) in inputs {
        let _ = writeln!(text, "| `{name}` | {} | {what} |", readable(value, ""));
    }
    text += "\n| asked for | value | from |\n|---|---|---|\n";
    for (what, value, unit, from) in demand(of) {
        let _ = writeln!(text, "| {what} | {} | {from} |", readable(value, unit));
    }
    Ok(text)
}

type Demand = (&'static str, f64, &'static str, &'static str);

fn demand(of: impl Fn(&str) -> f64) -> Vec<Demand> {
    let rate = of("rate");
    let new = rate * of("accepted");
    let ids = new * of("hours") * 3600.0;
    let memory = ids * of("id_bytes") + of("users") * of("user_bytes");
    let by_memory = (memory / (of("host_gb") * 1e9 * of("usable"))).ceil();
    let busy = rate * (of("computation_ns") + of("client_ns") + 2.0 * of("exchange_ns")) / 1e9;
    let by_cores = (busy * of("headroom") / of("host_cores")).ceil();
    let hosts = by_memory.max(by_cores).max(1.0);
    let incoming = rate * of("event_bytes");
    let exchanged = rate * of("exchange_bytes") * (hosts - 1.0) / hosts;
    let stored = ids * of("checkpoint_bytes");
    let commit = of("users") / 1e6 * of("merge_ms") / 1e3;
    let table = of("users") * of("row_bytes");
    vec![
        ("events in that time", rate * of("hours") * 3600.0, "", "`rate` × `hours`"),
        ("ids remembered", ids, "", "of which `accepted` are new"),
        ("memory for ids and users", memory, "bytes", "ids × `id_bytes` + `users` × `user_bytes`"),
        ("hosts for memory", by_memory, "", "`host_gb` × `usable` each"),
        ("cores busy", busy, "", "`rate` × (computation + client + both ends of the exchange)"),
        ("hosts for cores", by_cores, "", "with `headroom`, `host_cores` each"),
        ("**hosts**", hosts, "", "the greater of the two"),
        ("memory used on each", memory / hosts, "bytes", ""),
        ("cores busy on each", busy / hosts, "", ""),
        ("network, from the event hub", incoming / hosts, "bytes/s each host", "`rate` × `event_bytes`"),
        (
            "network, between hosts",
            exchanged / hosts,
            "bytes/s each host",
            "each way; an id stays at home once in so many hosts",
        ),
        (
            "Event Hubs, throughput units by bytes",
            (incoming / 1e6).max(incoming / 2e6).ceil(),
            "",
            "1 MB/s in, 2 MB/s out",
        ),
        ("Event Hubs, throughput units by events", (rate / 1e3).ceil(), "", "1,000 a second in, if sent one by one"),
        ("Event Hubs, processing units", (incoming / 5e6).ceil(), "", "5 MB/s in each, the lower end"),
        ("Event Hubs, partitions", (incoming / 1e6).ceil(), "", "about 1 MB/s each"),
        ("commit of the table of users", commit, "s", "`users` × `merge_ms`"),
        ("commits a day, one after the other", 86_400.0 / commit.max(0.02), "", "no more than that"),
        ("written by such a commit", table, "bytes", "the one file of the table"),
        (
            "written by the table, a day",
            table * 86_400.0 / commit.max(0.02),
            "bytes",
            "removed again by vacuum after an hour",
        ),
        ("checkpoint, new bytes", new * of("checkpoint_bytes"), "bytes/s", "`checkpoint_bytes` for each new id"),
        (
            "checkpoint, with merging of runs",
            new * of("checkpoint_bytes") * of("rewritten"),
            "bytes/s",
            "× `rewritten`",
        ),
        ("checkpoint, kept", stored, "bytes", "all remembered ids"),
        ("checkpoint, for each host", stored / hosts, "bytes", ""),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn inputs_can_be_changed_and_unknown_ones_are_told() {
        let text = plan("rate=1000,hours=1,id_bytes=50,users=0,accepted=1").unwrap();
        assert!(text.contains("| ids remembered | 3.6 M |"), "{text}");
        assert!(text.contains("| memory for ids and users | 180 MB |"), "{text}");
        assert!(text.contains("| **hosts** | 1 |"), "{text}");
        assert!(plan("speed=1").unwrap_err().contains("unknown input speed"));
        assert!(plan("rate=much").unwrap_err().contains("no number"));
    }
}
