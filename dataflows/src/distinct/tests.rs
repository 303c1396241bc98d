//! The operator against a sequential model, on inputs where lateness, expiry, conflicts and contests are the rule.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

use super::*;
use crate::arrangement::{Settings, SweepRate, TimeBoundedArrangement};
use crate::baselines::event_times;
use crate::event::{Channel, EventId, EventType, Offset, PartitionId, Pence, UserId};
use crate::oracle::EventTime;
use crate::watermark::{self, Horizon};

const SECOND: i64 = 1_000_000;

/// Epochs from 1, each with its events as dealt to workers, in the order in which each worker feeds them.
#[derive(Clone, Debug)]
struct Input {
    rule: watermark::Settings,
    epochs: Vec<Vec<(usize, Event)>>,
    /// For each epoch the partitions that were behind at its end; none where the watermark does not wait.
    cuts: Vec<Option<Vec<Behind>>>,
}

/// All that the operator says, with the accepted events of each epoch in order of position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Output {
    accepted: BTreeMap<Epoch, Vec<Event>>,
    refused: BTreeSet<Refusal>,
    tallies: BTreeMap<Epoch, DistinctTally>,
}

/// The rules about the stream, one event after the other.
fn model(input: &Input) -> Output {
    let Horizon { dedup_retention_us: retention, .. } = input.rule.horizon;
    let bucket = (retention / 24).max(SECOND);
    let forgotten_at = |event: &Event| Micros((event.time.0 / bucket + 1) * bucket + retention);
    let contents = |event: &Event| (event.user.clone(), event.time, event.event_type, event.amount, event.channel);
    let mut output = Output::default();
    let mut remembered: HashMap<EventId, Event> = HashMap::new();
    let mut event_time = EventTime::new(input.rule);
    for ((epoch, dealt), cut) in (1..).zip(&input.epochs).zip(&input.cuts) {
        let event_times: Vec<_> = dealt.iter().map(|(_, event)| (event.at.partition, event.time)).collect();
        let times = event_time.epoch(&event_times, cut.as_deref());
        let watermark = times.watermark;
        remembered.retain(|_, event| Some(forgotten_at(event)) > watermark);
        let mut events: Vec<Event> = dealt.iter().map(|(_, event)| event.clone()).collect();
        events.sort_by_key(|event| event.at);
        let (mut accepted, mut duplicates, mut late, mut conflicting) = (Vec::new(), 0, 0, 0);
        for event in events {
            let reason = match remembered.get(&event.id) {
                Some(first) if contents(first) == contents(&event) => {
                    duplicates += 1;
                    continue;
                }
                Some(_) => Reason::ConflictingDuplicate,
                None if watermark.is_some_and(|watermark| event.time <= watermark) => Reason::LateEvent,
                None => {
                    remembered.insert(event.id, event.clone());
                    accepted.push(event);
                    continue;
                }
            };
            if reason == Reason::LateEvent {
                late += 1
            } else {
                conflicting += 1
            }
            let Event { id, at, origin, time, .. } = event;
            output.refused.insert(Refusal { epoch, at, origin, reason, id, time, watermark });
        }
        let (retained, count) = (remembered.len() as u64, accepted.len() as u64);
        let tally = DistinctTally { epoch, accepted: count, duplicates, late, conflicting, retained, times };
        output.tallies.insert(epoch, tally);
        output.accepted.insert(epoch, accepted);
    }
    output
}

/// What the workers said, as they said it.
#[derive(Default)]
struct Raw {
    accepted: Vec<(Epoch, Event)>,
    refused: Vec<(Epoch, Refusal)>,
    tallies: Vec<(Epoch, DistinctTally)>,
}

fn record<'s, D: Clone + 'static>(
    stream: Stream<'s, Epoch, Vec<D>>,
    raw: &Arc<Mutex<Raw>>,
    push: fn(&mut Raw, Epoch, D),
) -> Stream<'s, Epoch, Vec<D>> {
    let raw = Arc::clone(raw);
    stream.inspect_core(move |happened| {
        if let Ok((stamp, batch)) = happened {
            batch.iter().for_each(|item| push(&mut raw.lock().unwrap(), *stamp.least().unwrap(), item.clone()));
        }
    })
}

/// Runs the operator on this many workers.
fn run(input: &Input, workers: usize, sweep: SweepRate, expected_ids: usize) -> Output {
    let raw = Arc::new(Mutex::new(Raw::default()));
    let (shared_input, shared) = (Arc::new(input.clone()), Arc::clone(&raw));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let input = &shared_input;
        let mut events = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Event>>>::new();
        let mut marks = InputHandle::<Epoch, CapacityContainerBuilder<Vec<EpochMark>>>::new();
        let mut behind = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Behind>>>::new();
        let settings = Settings { horizon: input.rule.horizon, key: [7, 11], expected_ids, sweep };
        let probe = ProbeHandle::new();
        worker.dataflow(|scope| {
            let index = TimeBoundedArrangement::shared(settings);
            let (events, times) = event_times(events.to_stream(scope), input.rule.witnesses);
            let (marks, behind, checkpoints) = (marks.to_stream(scope), behind.to_stream(scope), empty(scope));
            let inputs = Inputs { events, times, marks, behind, checkpoints };
            let watermarks = Watermarks::new(input.rule, Progress::default());
            let distinct = distinct_within_watermark(inputs, index, watermarks, None);
            record(distinct.accepted, &shared, |raw, at, event| raw.accepted.push((at, event)));
            record(distinct.refused, &shared, |raw, at, refusal| raw.refused.push((at, refusal)));
            record(distinct.tallies, &shared, |raw, at, tally| raw.tallies.push((at, tally))).probe_with(&probe);
        });
        for ((epoch, dealt), cut) in (1..).zip(&input.epochs).zip(&input.cuts) {
            events.advance_to(epoch);
            behind.advance_to(epoch);
            marks.advance_to(epoch);
            cut.iter().flatten().for_each(|partition| behind.send(*partition));
            let waits = cut.is_some();
            marks.send(EpochMark { epoch, opened: Micros(0), closed: Micros(0), missing: 0, waits });
            for (_, event) in dealt.iter().filter(|(owner, _)| owner % worker.peers() == worker.index()) {
                events.send(event.clone());
            }
            // Some epochs are waited for, others pile up.
            while epoch % 3 == 0 && probe.less_than(&epoch) {
                worker.step();
            }
        }
    });
    guards.unwrap().join().into_iter().for_each(|guard| guard.unwrap());
    let mut raw = raw.lock().unwrap();
    collect(std::mem::take(&mut *raw), input.epochs.len(), workers)
}

/// Puts together what the workers said; there must be one tally for each epoch and worker, and the times must agree.
fn collect(raw: Raw, epochs: usize, workers: usize) -> Output {
    assert_eq!(raw.tallies.len(), epochs * workers);
    let mut output = Output::default();
    for (at, tally) in raw.tallies {
        output.accepted.entry(at).or_default();
        let counts_aside =
            |tally| DistinctTally { accepted: 0, duplicates: 0, late: 0, conflicting: 0, retained: 0, ..tally };
        let sum = output.tallies.entry(at).or_insert(counts_aside(tally));
        assert_eq!(DistinctTally { epoch: at, ..counts_aside(tally) }, counts_aside(*sum));
        sum.accepted += tally.accepted;
        sum.duplicates += tally.duplicates;
        sum.late += tally.late;
        sum.conflicting += tally.conflicting;
        sum.retained += tally.retained;
    }
    for (at, event) in raw.accepted {
        output.accepted.get_mut(&at).unwrap().push(event);
    }
    output.accepted.values_mut().for_each(|events| events.sort_by_key(|event| event.at));
    for (at, refusal) in raw.refused {
        assert_eq!(refusal.epoch, at);
        assert!(output.refused.insert(refusal), "refused twice: {refusal:?}");
    }
    output
}

/// A generated event, the worker it is dealt to, and which earlier event it repeats, if any.
type Draft = (Event, usize, Option<prop::sample::Index>);

prop_compose! {
    /// An event among few ids, users and instants, `base` seconds after 1970 or a little later.
    fn draft_near(base: i64)(
        id in 0u128..6, user in 0u8..2, amount in 1i64..3, steps in 0i64..40, channel in 0usize..2, owner in 0u16..6,
        repeats in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) -> Draft {
        let event = Event {
            id: EventId(id << 64 | 0x0190_7000),
            user: UserId(if user == 0 { "a".into() } else { "another-user-with-a-long-name".into() }),
            // Half seconds: on the edges of buckets and watermarks, and between them.
            time: Micros((base * 2 + steps) * SECOND / 2),
            amount: Pence(amount),
            at: Position::default(),
            origin: owner % 2,
            event_type: EventType::Deposit,
            channel: Channel::ALL[channel],
            curated: None,
        };
        (event, usize::from(owner), repeats)
    }
}

/// Gives the drafts their positions, turns some into repetitions, and shuffles each epoch.
fn deal(epochs: Vec<Vec<Draft>>, order: &[prop::sample::Index]) -> Vec<Vec<(usize, Event)>> {
    let mut seen: Vec<Event> = Vec::new();
    let mut draws = order.iter().cycle();
    let deal_epoch = |drafts: Vec<Draft>| {
        let mut events = Vec::new();
        for (mut event, owner, repeats) in drafts {
            if let Some(repeats) = repeats.filter(|_| !seen.is_empty()) {
                event = Event { origin: event.origin, ..repeats.get(&seen).clone() };
            }
            let offset = Offset(seen.len() as u64);
            event.at = Position { partition: PartitionId(event.origin.into()), offset };
            seen.push(event.clone());
            events.push((owner, event));
        }
        for last in (1..events.len()).rev() {
            events.swap(last, draws.next().map_or(0, |draw| draw.index(last + 1)));
        }
        events
    };
    epochs.into_iter().map(deal_epoch).collect()
}

prop_compose! {
    /// What a cut says: often that nobody waits, and sometimes nothing at all.
    fn cut()(
        behind in prop::collection::btree_map(0u32..3, prop::option::of(0i64..150), 0..3),
        waits in prop::bool::weighted(0.8),
    ) -> Option<Vec<Behind>> {
        let behind = behind.into_iter().map(|(partition, head)| {
            Behind { partition: PartitionId(partition), head: head.map(|head| Micros(head * SECOND)) }
        });
        waits.then(|| behind.collect())
    }
}

prop_compose! {
    /// Event time runs on by `speed` seconds an epoch.
    fn inputs()(delay in 0i64..30, retention in prop_oneof![0i64..30, 40i64..80], speed in 0i64..12)(
        epochs in (0..12i64).map(|epoch| prop::collection::vec(draft_near(epoch * speed), 0..10)).collect::<Vec<_>>(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 30),
        cuts in prop::collection::vec(cut(), 12), witnesses in 1usize..5,
        uncounted in prop::option::weighted(0.2, Just(PartitionId(1))),
        delay in Just(delay), retention in Just(retention),
    ) -> Input {
        let horizon = Horizon { watermark_delay_us: delay * SECOND, dedup_retention_us: retention * SECOND };
        Input { rule: watermark::Settings { horizon, witnesses, uncounted }, epochs: deal(epochs, &order), cuts }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_number_of_workers_decides_as_the_sequential_model_does(input in inputs(), workers in 1usize..4) {
        prop_assert_eq!(run(&input, workers, SweepRate::default(), 0), model(&input));
    }

    #[test]
    fn when_memory_is_swept_changes_no_answer(input in inputs(), cells in 0usize..100) {
        let sweep = SweepRate { cells_per_event: 0, cells_per_epoch: cells };
        prop_assert_eq!(run(&input, 1, sweep, 10_000), model(&input));
    }
}

/// The inputs above are of use only if every kind of verdict is common in them.
#[test]
fn generated_inputs_hold_every_kind_of_verdict() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut readmitted, mut duplicates, mut late, mut conflicting, mut contested) = (0, 0, 0, 0, 0);
    for _ in 0..200 {
        let input = inputs().new_tree(&mut runner).unwrap().current();
        let output = model(&input);
        duplicates += output.tallies.values().filter(|tally| tally.duplicates > 0).count();
        late += output.tallies.values().filter(|tally| tally.late > 0).count();
        conflicting += output.tallies.values().filter(|tally| tally.conflicting > 0).count();
        let ids: Vec<EventId> = output.accepted.values().flatten().map(|event| event.id).collect();
        readmitted += ids.len() - ids.iter().collect::<BTreeSet<_>>().len();
        for (epoch, dealt) in (1..).zip(&input.epochs) {
            let first_come = |event: &Event| dealt.iter().find(|(_, other)| other.id == event.id).map(|(_, e)| e.at);
            contested += output.accepted[&epoch].iter().filter(|event| first_come(event) != Some(event.at)).count();
        }
    }
    for (kind, count) in [
        ("readmitted", readmitted),
        ("duplicates", duplicates),
        ("late", late),
        ("conflicting", conflicting),
        ("contested", contested),
    ] {
        assert!(count > 100, "{kind}: {count}");
    }
}

fn event(offset: u64, id: u128, seconds: i64) -> (usize, Event) {
    let at = Position { partition: PartitionId(0), offset: Offset(offset) };
    let event = Event {
        id: EventId(id),
        user: UserId("u".into()),
        time: Micros(seconds * SECOND),
        amount: Pence(1),
        at,
        origin: 0,
        event_type: EventType::Deposit,
        channel: Channel::Web,
        curated: None,
    };
    (offset as usize, event)
}

/// A day for everything, and nobody is behind.
fn in_a_day(epochs: Vec<Vec<(usize, Event)>>) -> Input {
    let horizon = Horizon { watermark_delay_us: 86_400 * SECOND, dedup_retention_us: 86_400 * SECOND };
    let cuts = vec![Some(Vec::new()); epochs.len()];
    Input { rule: watermark::Settings { horizon, witnesses: 1, uncounted: None }, epochs, cuts }
}

#[test]
fn an_event_exactly_at_the_watermark_is_late_and_one_a_microsecond_after_it_is_not() {
    let mut after = event(2, 3, 0);
    after.1.time.0 += 1;
    let input = in_a_day(vec![vec![event(0, 1, 86_400)], vec![event(1, 2, 0), after.clone()]]);
    let output = run(&input, 1, SweepRate::default(), 0);
    assert_eq!(output.accepted[&2], [after.1]);
    assert_eq!(output.tallies[&2].late, 1);
    assert_eq!(output, model(&input));
}

#[test]
fn within_an_epoch_a_late_event_is_a_duplicate_only_after_its_id_was_accepted() {
    for rotation in 0..3 {
        let mut second = vec![event(1, 7, 0), event(2, 7, 90_000), event(3, 7, 0)];
        second.rotate_left(rotation);
        let input = in_a_day(vec![vec![event(0, 1, 86_400)], second]);
        let output = run(&input, 2, SweepRate::default(), 0);
        let reasons: Vec<_> = output.refused.iter().map(|refusal| (refusal.at.offset.0, refusal.reason)).collect();
        assert_eq!(reasons, [(1, Reason::LateEvent), (3, Reason::ConflictingDuplicate)]);
        assert_eq!(output.accepted[&2].len(), 1);
    }
}

#[test]
fn every_marked_epoch_is_answered_though_no_event_ever_came() {
    let input = in_a_day(vec![Vec::new(); 5]);
    let output = run(&input, 2, SweepRate::default(), 0);
    assert_eq!(output.tallies.len(), 5);
    assert_eq!(output, model(&input));
}
