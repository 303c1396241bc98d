//! What is stored for a restart, for people and for programs. It reads and prints; whether it is sound is the business
//! of `tidemark_checkpoint::verify`.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde_json::{Value, json};
use tidemark_checkpoint::inspect::Stored;
use tidemark_checkpoint::journal::{Past, Restorable};
use tidemark_checkpoint::names;
use tidemark_checkpoint::records::{Cut, Identity, Manifest};
use tidemark_checkpoint::verify::{About, Report};

use super::numbers::{counted, grouped, instant};
use crate::evidence::chain::compared;

/// Stands for what must not be printed.
const MASKED: &str = "(masked)";

/// A table with numbers on the right: every column but the last `texts`.
pub(super) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    texts: usize,
) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(head).add_rows(rows);
    for column in table.column_iter_mut().take(N.saturating_sub(texts)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Size of a manifest's runs in bytes, and their rows.
fn size(manifest: &Manifest) -> (u64, u64) {
    manifest.runs().fold((0, 0), |(bytes, rows), run| (bytes + run.bytes, rows + run.rows))
}

/// All manifests and generations as text.
pub fn list(stored: &Stored) -> String {
    let mut text = String::new();
    let manifests = stored.manifests.iter().filter_map(|object| object.written());
    let row = |manifest: &Manifest| {
        let (bytes, rows) = size(manifest);
        let numbers = [manifest.generation, manifest.sequence, manifest.epoch, rows, bytes].map(grouped);
        let [generation, sequence, epoch, rows, bytes] = numbers;
        [generation, sequence, epoch, rows, bytes, instant(manifest.written_us)]
    };
    let head = ["generation", "sequence", "epoch", "rows", "bytes", "written"];
    let _ = writeln!(text, "manifests\n{}\n", table(head, manifests.map(row), 1));
    let generations = stored.claims.iter().filter_map(|object| object.record()).map(|claim| {
        let mut adopted = stored.adoptions.iter().filter_map(|object| object.record());
        let adopted = adopted.rfind(|adoption| adoption.generation == claim.generation);
        let last_cut = adopted.map_or("nothing adopted".to_owned(), |adoption| match adoption.last_cut {
            0 => "from the beginning".to_owned(),
            epoch => format!("after epoch {}", grouped(epoch)),
        });
        let by = &claim.by;
        let by = format!("{}, process {} on {}", by.program, by.pid, by.host);
        [grouped(claim.generation), instant(claim.by.started_us), last_cut, by]
    });
    let head = ["generation", "claimed by a process started", "went on", "by"];
    let _ = writeln!(text, "generations\n{}", table(head, generations, 3));
    for line in unreadable(stored) {
        let _ = writeln!(text, "cannot be read: {line}");
    }
    text
}

fn unreadable(stored: &Stored) -> Vec<String> {
    let manifests = stored.manifests.iter().filter_map(|object| object.content.as_ref().err());
    let claims = stored.claims.iter().filter_map(|object| object.content.as_ref().err());
    let adoptions = stored.adoptions.iter().filter_map(|object| object.content.as_ref().err());
    manifests.chain(claims).chain(adoptions).map(ToString::to_string).collect()
}

/// The same as an object.
pub fn list_json(stored: &Stored) -> String {
    let manifests = stored.manifests.iter().filter_map(|object| object.written().map(|manifest| (object, manifest)));
    let manifest = |(object, manifest): (&tidemark_checkpoint::inspect::Object<_>, &Manifest)| {
        let (bytes, rows) = size(manifest);
        json!({
            "object": object.name, "generation": manifest.generation, "sequence": manifest.sequence,
            "epoch": manifest.epoch, "written_us": manifest.written_us, "rows": rows, "bytes": bytes,
        })
    };
    let generation = |claim: &tidemark_checkpoint::records::Claim| {
        let mut adopted = stored.adoptions.iter().filter_map(|object| object.record());
        let adopted = adopted.rfind(|adoption| adoption.generation == claim.generation);
        let adopted = adopted.map(
            |adoption| json!({"last_cut": adoption.last_cut, "cuts": adoption.cuts, "manifests": adoption.manifests}),
        );
        json!({"generation": claim.generation, "claimed_by": claim.by, "adopted": adopted})
    };
    let generations = stored.claims.iter().filter_map(|object| object.record());
    let all = json!({
        "manifests": manifests.map(manifest).collect::<Vec<Value>>(),
        "generations": generations.map(generation).collect::<Vec<Value>>(),
        "unreadable": unreadable(stored),
    });
    format!("{all:#}\n")
}

/// What the pipeline is, without its keys.
fn identity(identity: &Identity) -> Value {
    json!({
        "pipeline": identity.pipeline, "lineage": identity.lineage, "created_us": identity.created_us,
        "id_key": MASKED, "index_key": MASKED, "settings": identity.settings, "source": identity.source,
    })
}

/// The state that a restart would go on from, and every cut that is still there, as an object. `from` is the manifest
/// that is shown, if there is one.
pub fn show_json(past: &Past, from: Option<&Restorable>) -> String {
    let manifest = from.map(|found| {
        let mut manifest = json!({
            "object": names::linked(&found.link), "digest": found.link.digest, "generation": found.link.generation,
            "sequence": found.link.sequence, "epoch": found.link.epoch, "written_us": found.manifest.written_us,
            "positions": found.manifest.positions, "counters": found.manifest.counters, "ids": found.manifest.ids,
            "previous": found.manifest.previous,
        });
        found.manifest.metrics.iter().for_each(|(metric, runs)| manifest[metric] = json!(runs));
        manifest
    });
    let all = json!({
        "identity": identity(&past.identity),
        "generation": past.generation(),
        "last_cut": past.last_cut,
        "manifest": manifest,
        "cuts_from_epoch": past.cuts.keys().next(),
        "cuts": past.cuts.values().collect::<Vec<&Cut>>(),
        "warnings": past.warnings.iter().map(ToString::to_string).collect::<Vec<String>>(),
    });
    format!("{all:#}\n")
}

/// The same as text.
pub fn show(past: &Past, from: Option<&Restorable>) -> String {
    let identity = &past.identity;
    let mut text = format!(
        "pipeline {}, begun {}, generation {}\nkeys {MASKED}\nsource {}\n",
        identity.pipeline,
        instant(identity.created_us),
        past.generation(),
        identity.source,
    );
    for (key, value) in &identity.settings {
        let _ = writeln!(text, "{key} = {value}");
    }
    match from {
        Some(found) => text += &state(found),
        None => text += "\nno manifest yet: a restart computes everything from the first epoch on\n",
    }
    let _ = writeln!(text, "\n{}", cuts(past));
    for warning in &past.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn state(found: &Restorable) -> String {
    let Manifest { epoch, written_us, positions, counters, .. } = &found.manifest;
    let mut text = format!(
        "\nstate at the end of epoch {}, written {} as {}\n",
        grouped(*epoch),
        instant(*written_us),
        names::linked(&found.link)
    );
    let rejected = counters.rejected.iter().map(|(reason, count)| (reason.as_str(), *count));
    let counted = [
        ("epochs", counters.epochs),
        ("received", counters.received),
        ("accepted", counters.accepted),
        ("duplicates", counters.duplicates),
        ("remembered ids", counters.retained_ids),
    ];
    let rows = counted.into_iter().chain(rejected).map(|(what, count)| [grouped(count), what.to_owned()]);
    let _ = writeln!(text, "{}", table(["count", "of"], rows, 1));
    let rows = positions.iter().map(|at| [at.index.to_string(), grouped(at.next), at.partition.clone()]);
    let _ = writeln!(text, "{}", table(["partition", "next offset", "name"], rows, 1));
    let rows = found
        .manifest
        .runs()
        .map(|run| [grouped(run.rows), grouped(run.bytes), run.name.clone(), run.digest.to_string()]);
    let _ = writeln!(text, "{}", table(["rows", "bytes", "run", "digest"], rows, 2));
    text
}

fn cuts(past: &Past) -> String {
    let (Some(first), Some(last)) = (past.cuts.keys().next(), past.cuts.keys().next_back()) else {
        return "no cut is there".to_owned();
    };
    let rows = past.cuts.values().flat_map(|cut| {
        let row = |range: &tidemark_checkpoint::records::Range| {
            let times = [instant(cut.opened_us), instant(cut.closed_us)];
            let [opened, closed] = times;
            [grouped(cut.epoch), grouped(range.from), grouped(range.to), range.partition.clone(), opened, closed]
        };
        cut.ranges.iter().map(row)
    });
    let table = table(["epoch", "from", "to", "partition", "opened", "closed"], rows, 3);
    let (first, last) = (grouped(*first), grouped(*last));
    format!("cuts of epochs {first} to {last}; earlier ones are pruned as checkpoints pass them\n{table}")
}

/// A verification as text, a line for each subject and each finding.
pub fn verified(report: &Report) -> String {
    let mut text = String::new();
    for about in About::ALL {
        let findings: Vec<_> = report.findings.iter().filter(|finding| finding.about == about).collect();
        let word = if findings.is_empty() { "sound " } else { "WRONG " };
        let _ = writeln!(text, "{word} {:<12} {}", about.as_str(), compared(about, report));
        for finding in findings {
            let _ = writeln!(text, "         {finding}");
        }
    }
    let _ = match report.findings.len() {
        0 => writeln!(text, "the checkpoint is sound"),
        n => writeln!(text, "{} in the checkpoint", counted(n as u64, "finding")),
    };
    text
}

/// The same as an object.
pub fn verified_json(report: &Report) -> String {
    let subjects = About::ALL.map(|about| {
        let findings = report.findings.iter().filter(|finding| finding.about == about);
        let findings: Vec<Value> =
            findings.map(|finding| json!({"object": finding.object, "what": finding.what})).collect();
        json!({
            "about": about.as_str(), "compared": compared(about, report), "sound": findings.is_empty(),
            "findings": findings,
        })
    });
    let all = json!({
        "sound": report.findings.is_empty(), "generation": report.generation, "checkpointed": report.checkpointed,
        "last_cut": report.last_cut, "subjects": subjects,
    });
    format!("{all:#}\n")
}
