//! What a run says of late events by itself: a word in the log, once, and the rules in the summary.

use crate::data::{Event, START_US, instant};
use crate::program::Case;

/// Two thousand payments, a minute apart; each twentieth is older than all others by more than a day.
fn case() -> Case {
    let line = |index: i64| match index % 20 {
        7 => Event::new(&format!("late{index}"), 0).at(&instant(START_US - 40 * 3_600_000_000)).line(),
        _ => Event::new(&format!("e{index}"), 60 * index).line(),
    };
    let broken = [Event::new("free", 0).amount("0").line()];
    Case::of(&[(0..2_000).map(line).chain(broken).collect()])
}

fn warnings(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("watermark.warn_late_share")).collect()
}

#[test]
fn many_late_events_are_told_once_with_what_to_look_at() {
    // The first epoch has no watermark: 75 of its successors' events are late, and a broken one comes at last.
    let ended = case().run("out", &["--epoch-events", "500"]);
    let warnings = warnings(&ended.stderr);
    assert!(matches!(warnings.as_slice(), [warning] if warning.contains("WARN")), "{}", ended.stderr);
    for word in ["2.5 %", "late=25", "of=1000", "quarantine list --reason R200_late_event", "#tidemarklateevents"] {
        assert!(warnings[0].contains(word), "{word} in {}", warnings[0]);
    }
    let summary = "rejected 76: 75 R200_late_event, 1 R120_non_positive_amount\n";
    assert!(ended.stdout.contains(summary), "{}", ended.stdout);
}

#[test]
fn the_summary_counts_what_earlier_runs_rejected() {
    let case = case();
    case.run("out", &["--epoch-events", "500"]);
    let again = case.run("out", &["--epoch-events", "500"]);
    assert!(again.stdout.contains("rejected 76: 75 R200_late_event, 1 R120"), "{}", again.stdout);
    assert!(warnings(&again.stderr).is_empty(), "{}", again.stderr);
}

#[test]
fn a_greater_share_can_be_allowed() {
    for share in ["0.05", "1"] {
        let setting = format!("watermark.warn_late_share={share}");
        let ended = case().run("out", &["--epoch-events", "500", "--set", &setting]);
        assert!(warnings(&ended.stderr).is_empty(), "{}", ended.stderr);
    }
}
