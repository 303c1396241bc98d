//! A temporal filter before `distinct`: each event is inserted now and retracted some epochs later.
//!
//! This is how a database on differential dataflow bounds its memory (`mz_now()` in a view). The retraction stands in
//! the future until its time comes, and `distinct` forgets because its input does.
//!
//! Not used because of the price: each retained event is an update that waits in the batcher, and whenever
//! the frontier moves all waiting updates are merged again, some 35 ns each. With 100 million retained that is seconds
//! for each epoch, however few events come. It forgets by the number of epochs, and it keeps whole events as keys, since a
//! payload in the difference cannot be retracted.

use differential_dataflow::operators::ThresholdTotal;
use timely::dataflow::Stream;
use timely::dataflow::operators::vec::{Filter, Map};

use crate::event::{Epoch, Event, Position};

use super::updates;

/// Each event that has not been seen within the last `epochs` epochs, without position, origin and curated members:
/// events are equal if all the rest is.
pub fn temporal<'s>(events: Stream<'s, Epoch, Vec<Event>>, epochs: Epoch) -> Stream<'s, Epoch, Vec<Event>> {
    updates(events, move |event, epoch, updates| {
        let contents = (event.id, event.user, event.time, event.amount, event.event_type, event.channel);
        updates.push((contents.clone(), epoch, 1isize));
        updates.push((contents, epoch.saturating_add(epochs), -1));
    })
    .distinct_total()
    .inner
    // The end of its time is news for nobody.
    .filter(|(_, _, change)| *change > 0)
    .map(|((id, user, time, amount, event_type, channel), _, _)| Event {
        id,
        user,
        time,
        amount,
        at: Position::default(),
        origin: 0,
        event_type,
        channel,
        curated: None,
    })
}
