//! First arrival by `reduce`: group by id, keep the least.
//!
//! What one would write first, and general: any function of the group would do. It costs a second trace for the output
//! and the history of every key that is touched, ten times [`crate::distinct`] and more.
//!
//! Not used because it keeps every arrival for ever, duplicates included, and looks at all arrivals of an id whenever
//! one more comes: what a sender repeats without end costs more each time.

use timely::dataflow::Stream;
use timely::dataflow::operators::vec::Map;

use crate::event::{Epoch, Event};

use super::updates;

/// The first event of each id.
pub fn reduce<'s>(events: Stream<'s, Epoch, Vec<Event>>) -> Stream<'s, Epoch, Vec<Event>> {
    // Positions order the events of one epoch only, hence the epoch before them.
    updates(events, |event, epoch, updates| updates.push(((event.id, (epoch, event.at, event)), epoch, 1isize)))
        .reduce(|_, arrivals, first| first.extend(arrivals.first().map(|(arrival, _)| ((*arrival).clone(), 1isize))))
        .inner
        .flat_map(|((_, (_, _, event)), _, change)| (change > 0).then_some(event))
}
