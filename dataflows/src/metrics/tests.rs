//! Both ways to keep totals, side by side.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::rc::SharedStream;
use timely::dataflow::operators::{Capture, capture::Extract};

use super::*;
use crate::event::{Channel, EventType, Micros, Pence, UserId};

/// The fourth metric of the walk-through in the README.
#[path = "../../../docs/tutorial/by_day.rs"]
#[allow(unreachable_pub)]
mod by_day;

/// An event: user, and what else its totals depend on.
type Drawn = (u8, i64, bool);

fn event((user, pence, deposit): Drawn) -> Event {
    Event {
        id: Default::default(),
        user: UserId(format!("user {user}").into()),
        time: Micros(pence * 1000),
        amount: Pence(pence),
        at: Default::default(),
        origin: 0,
        event_type: if deposit { EventType::Deposit } else { EventType::Withdrawal },
        channel: Channel::Web,
        curated: None,
    }
}

type Rows = Vec<Row<UserId>>;

/// What a checkpoint keeps, by the epoch that it was asked for.
type Kept = Vec<(Epoch, BTreeMap<UserId, Totals>)>;

/// The rows and the answers of the arrangement, and of the table.
fn run(epochs: Vec<Vec<Drawn>>, restored: Vec<(UserId, Totals)>, asked: Vec<bool>) -> [(Rows, Kept); 2] {
    let captured = timely::execute_directly(move |worker| {
        let mut events = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Event>>>::new();
        let mut requests = InputHandle::<Epoch, CapacityContainerBuilder<Vec<()>>>::new();
        let captured = worker.dataflow(|scope| {
            let (accepted, requests) = (events.to_stream(scope).shared(), requests.to_stream(scope));
            let arranged = running_totals::<ByUser>(accepted.clone(), restored.clone());
            let changed = changed_totals(arranged.clone(), requests.clone());
            let table = accumulated_totals::<ByUser>(accepted, restored, requests, [1, 2], true);
            [(arranged.capture(), changed.capture()), (table.rows.capture(), table.changed.capture())]
        });
        for ((epoch, drawn), ask) in (1..).zip(epochs).zip(asked.into_iter().chain(std::iter::repeat(true))) {
            events.advance_to(epoch);
            drawn.into_iter().for_each(|drawn| events.send(event(drawn)));
            events.advance_to(epoch + 1);
            // A request comes after the epoch was closed, as in a pipeline.
            worker.step();
            requests.advance_to(epoch);
            if ask {
                requests.send(());
            }
        }
        captured
    });
    captured.map(|(rows, changed)| {
        let mut rows: Rows = rows.extract().into_iter().flat_map(|(_, rows)| rows).collect();
        rows.sort();
        let answers = changed.extract().into_iter().flat_map(|(_, answers)| answers);
        (rows, answers.map(|answer| (answer.epoch, answer.rows.into_iter().collect())).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_table_gives_what_an_arrangement_gives(
        epochs in prop::collection::vec(prop::collection::vec((0u8..40, 1i64..1000, any::<bool>()), 0..200), 0..8),
        restored in prop::collection::btree_map(0u8..50, (1i64..1000, any::<bool>()), 0..30),
        asked in prop::collection::vec(any::<bool>(), 8),
    ) {
        let of = |(user, (pence, deposit))| {
            let event = event((user, pence, deposit));
            (event.user.clone(), Totals::of(&event))
        };
        let restored: Vec<_> = restored.into_iter().map(of).collect();
        let [arrangement, table] = run(epochs, restored, asked);
        prop_assert_eq!(arrangement, table);
    }
}

#[test]
fn the_metric_of_the_walk_through_says_all_there_is_to_say() {
    use by_day::{ByDay, Day};

    let dates =
        [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_740_787_199, "2025-02-28"), (1_740_787_200, "2025-03-01")];
    let mut events: Vec<Event> = Vec::new();
    for (second, date) in dates {
        let mut event = event((1, 250, second % 2 == 0));
        event.time = Micros(second * 1_000_000);
        let day = ByDay::key(&event);
        assert_eq!(Day::from_bytes(&day.to_bytes()), Some(day));
        let shown = ByDay::columns().iter().find_map(|column| match column.value {
            Value::Key(of) => Some(of(&day).into_owned()),
            _ => None,
        });
        assert_eq!(shown.as_deref(), Some(date));
        events.extend([event.clone(), event]);
    }
    let rows = timely::execute_directly(move |worker| {
        let mut accepted = InputHandle::<Epoch, CapacityContainerBuilder<Vec<Event>>>::new();
        let rows =
            worker.dataflow(|scope| running_totals::<ByDay>(accepted.to_stream(scope).shared(), Vec::new()).capture());
        accepted.advance_to(1);
        events.into_iter().for_each(|event| accepted.send(event));
        rows
    });
    let rows: Vec<_> = rows.extract().into_iter().flat_map(|(_, rows)| rows).collect();
    assert_eq!(rows.len(), dates.len());
    for row in rows {
        for column in ByDay::columns() {
            match (column.name, column.value) {
                ("net_flow", Value::Money(of)) => {
                    assert_eq!(of(&row.key, &row.totals), row.totals.deposits - row.totals.withdrawals)
                }
                ("event_count", Value::Count(of)) => assert_eq!(of(&row.key, &row.totals), 2),
                _ => {}
            }
        }
    }
}
