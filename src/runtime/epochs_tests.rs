//! The protocol of epochs, driven by hand: events with times in, actions out.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidemark_checkpoint::records::{Behind, Cut, Position, Range};
use tidemark_dataflows::event::Micros;

use super::checkpoint_schedule::CheckpointSchedule;
use super::epochs::{Action, CutRule, Ended, Epochs, Event, StartingPoint};
use crate::cluster::messages::{Quota, Report, Standing};

const SECOND: Duration = Duration::from_secs(1);
const FILES: CutRule = CutRule::Files { events: 10, alignment_us: 100 };
const LIVE: CutRule = CutRule::Live { trigger: SECOND };

fn start(partitions: u32) -> StartingPoint {
    let position = |index: u32| Position { partition: index.to_string(), index, next: 0, digest: None, ended: false };
    let positions = (0..partitions).map(position).collect();
    StartingPoint { epoch: 0, positions, joined: Vec::new(), closed: Micros(0) }
}

fn behind(index: u32, head: Option<i64>) -> Standing {
    Standing { index, behind: true, head: head.map(Micros), until: Micros(i64::MAX) }
}

fn ended(index: u32) -> Standing {
    Standing { index, behind: false, head: None, until: Micros(i64::MAX) }
}

fn range(index: u32, from: u64, to: u64) -> Range {
    Range { partition: index.to_string(), index, from, to, digest: None }
}

fn report(epoch: u64, ranges: Vec<Range>, standings: Vec<Standing>) -> Report {
    Report { epoch, ranges, missing: 0, standings, read: (0, 0) }
}

fn the_cut(actions: &[Action]) -> &Cut {
    let mut cuts = actions.iter().filter_map(|action| if let Action::Cut(cut, _) = action { Some(cut) } else { None });
    cuts.next().unwrap_or_else(|| panic!("no cut in {actions:?}"))
}

#[test]
fn files_are_read_by_head_time_and_those_without_one_first() {
    let now = Instant::now();
    let mut epochs = Epochs::new(FILES, 1, None, start(4));
    assert_eq!(epochs.begin(Micros(5)), [Action::Look(1, Micros(5))]);
    let standings = vec![behind(0, Some(1000)), behind(1, Some(900)), behind(2, Some(1001)), ended(3)];
    let opened = epochs.on(Event::Standings(0, standings), now, Micros(6));
    // 1000 lies within 100 of 900, 1001 does not; three files share nothing with the one that has ended.
    assert_eq!(opened, [Action::Open(1, Micros(5), Quota::Files(vec![(0, 5), (1, 5)]))]);
    // Now a file has nothing valid in sight: it is read away, and alone.
    let part = report(1, vec![range(0, 0, 5), range(1, 0, 5)], vec![behind(0, Some(1002)), behind(1, None), ended(2)]);
    let actions = epochs.on(Event::Report(0, part), now, Micros(7));
    let cut = the_cut(&actions);
    assert_eq!((cut.opened_us, cut.closed_us), (5, 7));
    assert_eq!(cut.behind, Some(vec![Behind { index: 0, head_us: Some(1002) }, Behind { index: 1, head_us: None }]));
    assert_eq!(actions[1..], [Action::Open(2, Micros(7), Quota::Files(vec![(1, 10)]))]);
    // Once all have ended, the inbox is asked, and nothing in it is the end.
    let part = report(2, vec![range(1, 5, 9)], vec![ended(0), ended(1), ended(2)]);
    let actions = epochs.on(Event::Report(0, part), now, Micros(8));
    assert_eq!(the_cut(&actions).behind, Some(Vec::new()));
    assert_eq!(actions[1..], [Action::Open(3, Micros(8), Quota::Rest(10))]);
    assert!(epochs.positions()[1].ended);
    let actions = epochs.on(Event::Report(0, report(3, Vec::new(), Vec::new())), now, Micros(9));
    assert_eq!(actions, [Action::Finish(Ended::Exhausted, 2)]);
}

#[test]
fn an_epoch_of_a_pipe_that_ends_without_another_event_gives_its_number_back() {
    let now = Instant::now();
    let mut epochs = Epochs::new(FILES, 1, None, start(1));
    epochs.begin(Micros(5));
    epochs.on(Event::Standings(0, vec![behind(0, None)]), now, Micros(5));
    epochs.on(Event::Report(0, report(1, vec![range(0, 0, 10)], vec![behind(0, None)])), now, Micros(6));
    let actions = epochs.on(Event::Report(0, report(2, vec![], vec![ended(0)])), now, Micros(7));
    assert_eq!(actions, [Action::Open(2, Micros(7), Quota::Rest(10))]);
    assert_eq!(
        epochs.on(Event::Report(0, report(2, vec![], vec![])), now, Micros(8)),
        [Action::Finish(Ended::Exhausted, 1)]
    );
}

#[test]
fn a_checkpoint_knows_the_partitions_of_the_cuts_before_it_and_no_others() {
    let now = Instant::now();
    let schedule = CheckpointSchedule::new(2 * SECOND, 0, now);
    let mut epochs = Epochs::new(LIVE, 1, Some(schedule), start(1));
    epochs.begin(Micros(1));
    let cut = |epochs: &mut Epochs, epoch: u64, index: u32, from: u64, now: Instant| {
        epochs.on(Event::Wanted(epoch), now, Micros(1));
        epochs.on(Event::Tick, now + SECOND, Micros(2));
        let report = report(epoch, vec![range(index, from, from + 1)], Vec::new());
        epochs.on(Event::Report(0, report), now + SECOND, Micros(2))
    };
    let known = |actions: &[Action]| -> Vec<(u32, u64)> {
        let mut asked = actions.iter().filter_map(|action| match action {
            Action::Checkpoint(_, positions) => Some(positions.iter().map(|at| (at.index, at.next)).collect()),
            _ => None,
        });
        asked.next().unwrap_or_else(|| panic!("no checkpoint in {actions:?}"))
    };
    cut(&mut epochs, 1, 0, 0, now);
    // It joins after the cut that the checkpoint is of.
    let joins = epochs.on(Event::Discovered("1".to_owned(), 7), now, Micros(3));
    assert!(matches!(&joins[..], [Action::Join(joined)] if joined.index == 1 && joined.from == 7), "{joins:?}");
    assert_eq!(known(&epochs.on(Event::Tick, now + 2 * SECOND, Micros(3))), [(0, 1)]);
    epochs.on(Event::Checkpointed(1), now, Micros(3));
    let actions = cut(&mut epochs, 2, 1, 7, now + 3 * SECOND);
    assert_eq!(the_cut(&actions).joined.len(), 1);
    assert_eq!(known(&actions), [(0, 1), (1, 8)]);
}

#[test]
fn a_head_that_waits_for_the_time_of_day_is_looked_at_again() {
    let now = Instant::now();
    let mut epochs = Epochs::new(FILES, 2, None, start(2));
    epochs.begin(Micros(5));
    assert_eq!(epochs.on(Event::Standings(0, vec![behind(0, Some(1))]), now, Micros(5)), []);
    let future = Standing { until: Micros(8), ..behind(1, Some(2)) };
    let opened = epochs.on(Event::Standings(1, vec![future]), now, Micros(6));
    assert_eq!(opened, [Action::Open(1, Micros(5), Quota::Files(vec![(0, 5), (1, 5)]))]);
    let mine = report(1, vec![range(0, 0, 5)], vec![behind(0, Some(1))]);
    assert_eq!(epochs.on(Event::Report(0, mine), now, Micros(7)), []);
    let theirs = report(1, vec![range(1, 0, 5)], vec![future]);
    let actions = epochs.on(Event::Report(1, theirs), now, Micros(8));
    assert_eq!(actions[1..], [Action::Look(2, Micros(8))]);
}

#[test]
fn a_file_epoch_is_never_cut_short() {
    let now = Instant::now();
    let mut epochs = Epochs::new(FILES, 1, Some(CheckpointSchedule::new(SECOND, 0, now)), start(1));
    epochs.begin(Micros(5));
    epochs.on(Event::Standings(0, vec![behind(0, Some(1))]), now, Micros(5));
    let part = report(1, vec![range(0, 0, 10)], vec![behind(0, Some(1))]);
    epochs.on(Event::Report(0, part), now, Micros(6));
    let actions = epochs.on(Event::Stop, now, Micros(7));
    let positions = epochs.positions().to_vec();
    assert_eq!(actions, [Action::Checkpoint(1, positions), Action::Finish(Ended::Stopped, 1)]);
    // What comes later changes nothing any more.
    let late = report(2, vec![range(0, 10, 20)], vec![ended(0)]);
    assert_eq!(epochs.on(Event::Report(0, late), now, Micros(8)), []);
    assert_eq!(epochs.deadline(), None);
}

#[test]
fn a_live_epoch_ends_by_time_by_size_and_by_a_stop_whatever_the_time_of_day() {
    let now = Instant::now();
    let mut epochs = Epochs::new(LIVE, 1, None, start(1));
    assert_eq!(epochs.begin(Micros(100)), []);
    assert_eq!(epochs.deadline(), None, "nothing is closed while nothing comes");
    assert_eq!(epochs.on(Event::Wanted(1), now, Micros(100)), [Action::Open(1, Micros(100), Quota::Whatever)]);
    assert_eq!(epochs.deadline(), Some(now + SECOND));
    // The clock is set back by far; the epoch is closed in time all the same, and not before it was opened.
    assert_eq!(epochs.on(Event::Tick, now + SECOND / 2, Micros(40)), []);
    assert_eq!(epochs.on(Event::Tick, now + SECOND, Micros(41)), [Action::Close(1)]);
    let part = report(1, vec![range(0, 0, 3)], vec![behind(0, None)]);
    let actions = epochs.on(Event::Report(0, part), now + SECOND, Micros(42));
    assert_eq!((the_cut(&actions).opened_us, the_cut(&actions).closed_us), (100, 100));
    // A full one is closed at once, and an old cry is not heard.
    let now = now + 2 * SECOND;
    assert_eq!(epochs.on(Event::Wanted(2), now, Micros(200)), [Action::Open(2, Micros(200), Quota::Whatever)]);
    assert_eq!(epochs.on(Event::Full(1), now, Micros(201)), []);
    assert_eq!(epochs.on(Event::Full(2), now, Micros(202)), [Action::Close(2)]);
    epochs.on(Event::Report(0, report(2, vec![range(0, 3, 4)], vec![ended(0)])), now, Micros(203));
    assert_eq!(epochs.on(Event::Wanted(3), now, Micros(204)), [Action::Open(3, Micros(204), Quota::Whatever)]);
    assert_eq!(epochs.on(Event::Stop, now, Micros(205)), [Action::Close(3)]);
    assert_eq!(epochs.on(Event::Wanted(4), now, Micros(206)), [], "nothing is opened any more");
    let actions = epochs.on(Event::Report(0, report(3, vec![range(0, 4, 5)], vec![])), now, Micros(207));
    assert_eq!((the_cut(&actions).epoch, &actions[1..]), (3, &[Action::Finish(Ended::Stopped, 3)][..]));
}

#[test]
fn an_epoch_is_cut_once_all_readers_have_reported_and_the_next_may_be_open_by_then() {
    let now = Instant::now();
    let mut epochs = Epochs::new(LIVE, 2, None, start(3));
    epochs.on(Event::Wanted(1), now, Micros(1));
    epochs.on(Event::Tick, now + SECOND, Micros(2));
    assert_eq!(epochs.on(Event::Report(1, report(1, vec![range(1, 0, 2)], vec![])), now + SECOND, Micros(3)), []);
    let opened = epochs.on(Event::Wanted(2), now + SECOND, Micros(4));
    assert_eq!(opened, [Action::Open(2, Micros(4), Quota::Whatever)]);
    let actions = epochs.on(Event::Report(0, report(1, vec![range(0, 0, 1)], vec![])), now + SECOND, Micros(5));
    let cut = the_cut(&actions);
    assert_eq!((cut.opened_us, cut.closed_us, cut.ranges.len()), (1, 2, 2));
    // The first reader is told when it is the last one; the end closes what is open.
    assert_eq!(epochs.on(Event::Over(1), now + SECOND, Micros(6)), [Action::OthersOver]);
    assert_eq!(epochs.on(Event::Over(0), now + SECOND, Micros(7)), [Action::Close(2)]);
    epochs.on(Event::Report(1, report(2, vec![], vec![])), now + SECOND, Micros(8));
    let actions = epochs.on(Event::Report(0, report(2, vec![range(0, 1, 2)], vec![])), now + SECOND, Micros(9));
    assert_eq!(actions.last(), Some(&Action::Finish(Ended::Exhausted, 2)));
}

#[test]
fn a_partition_that_joins_is_named_by_the_next_cut_and_read_from_its_beginning() {
    let now = Instant::now();
    let mut epochs = Epochs::new(LIVE, 1, None, start(2));
    let joined = tidemark_checkpoint::records::Joined { partition: "7".to_owned(), index: 2, from: 30 };
    assert_eq!(epochs.on(Event::Discovered("7".to_owned(), 30), now, Micros(1)), [Action::Join(joined.clone())]);
    assert_eq!(epochs.on(Event::Discovered("7".to_owned(), 31), now, Micros(1)), [], "once");
    epochs.on(Event::Wanted(1), now, Micros(1));
    epochs.on(Event::Tick, now + SECOND, Micros(2));
    let ranges = vec![Range { partition: "7".to_owned(), index: 2, from: 30, to: 31, digest: None }];
    let actions = epochs.on(Event::Report(0, report(1, ranges, vec![])), now, Micros(3));
    assert_eq!(the_cut(&actions).joined, [joined]);
    assert_eq!(epochs.positions()[2].next, 31);
}

#[test]
fn checkpoints_are_asked_for_in_time_and_one_at_a_time() {
    let now = Instant::now();
    let mut epochs = Epochs::new(LIVE, 1, Some(CheckpointSchedule::new(3 * SECOND, 0, now)), start(1));
    let run = |epochs: &mut Epochs, epoch: u64, at: u32| {
        let at = now + at * SECOND;
        epochs.on(Event::Wanted(epoch), at - SECOND, Micros(0));
        epochs.on(Event::Tick, at, Micros(0));
        let part = report(epoch, vec![range(0, epoch - 1, epoch)], vec![]);
        let actions = epochs.on(Event::Report(0, part), at, Micros(0));
        actions.into_iter().any(|action| matches!(action, Action::Checkpoint(of, _) if of == epoch))
    };
    assert!(!run(&mut epochs, 1, 1) && !run(&mut epochs, 2, 2));
    assert_eq!(epochs.deadline(), Some(now + 3 * SECOND));
    let asked = epochs.on(Event::Tick, now + 3 * SECOND, Micros(0));
    assert!(matches!(asked[..], [Action::Checkpoint(2, _)]), "{asked:?}");
    assert!(!run(&mut epochs, 3, 9), "the one before is not durable");
    assert_eq!(epochs.deadline(), None);
    let asked = epochs.on(Event::Checkpointed(2), now + 9 * SECOND, Micros(0));
    assert!(matches!(asked[..], [Action::Checkpoint(3, _)]), "{asked:?}");
}

#[test]
fn each_reader_is_told_how_far_the_others_are() {
    let now = Instant::now();
    let mut epochs = Epochs::new(LIVE, 3, None, start(3));
    let told = |action: Action| if let Action::Align(reader, least) = action { (reader, least) } else { panic!() };
    let mut say = |from, at: Option<i64>| {
        epochs.on(Event::InHand(from, at.map(Micros)), now, Micros(0)).into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(say(0, Some(50)), [(1, Some(Micros(50))), (2, Some(Micros(50)))]);
    assert_eq!(say(1, Some(40)), [(0, Some(Micros(40))), (2, Some(Micros(40)))]);
    assert_eq!(say(2, Some(60)), []);
    assert_eq!(say(1, None), [(0, Some(Micros(60))), (2, Some(Micros(50)))]);
}

proptest! {
    /// Whatever the order in which readers report and the clock goes: cuts follow on one another, and no time stamp goes back.
    #[test]
    fn cuts_are_consecutive_and_time_stamps_ascend(
        readers in 1_usize..4,
        steps in proptest::collection::vec((0_usize..4, 0_u8..4, 0_i64..1000, 0_u32..1500), 0..200),
    ) {
        let mut now = Instant::now();
        let mut epochs = Epochs::new(LIVE, readers, None, start(readers as u32));
        let mut at_epoch = vec![1; readers];
        let mut next = vec![0; readers];
        let mut closed = vec![0; readers];
        let (mut cut, mut stamp) = (0, 0);
        for (reader, act, at, passed) in steps {
            let reader = reader % readers;
            now += Duration::from_millis(passed.into());
            let epoch = at_epoch[reader];
            let event = match act {
                0 => Event::Tick,
                1 => Event::Wanted(epoch),
                2 => Event::Full(epoch),
                _ if closed[reader] >= epoch => {
                    at_epoch[reader] += 1;
                    next[reader] += 1;
                    let ranges = vec![range(reader as u32, next[reader] - 1, next[reader])];
                    Event::Report(reader, report(epoch, ranges, vec![]))
                }
                _ => Event::Tick,
            };
            for action in epochs.on(event, now, Micros(at)) {
                match action {
                    Action::Close(epoch) => closed.iter_mut().for_each(|closed| *closed = epoch),
                    Action::Cut(found, _) => {
                        prop_assert_eq!(found.epoch, cut + 1);
                        prop_assert!(stamp <= found.opened_us && found.opened_us <= found.closed_us);
                        prop_assert_eq!(found.ranges.len(), readers);
                        (cut, stamp) = (found.epoch, found.closed_us);
                    }
                    _ => {}
                }
            }
        }
    }
}
