//! `/api/v1/stream`: every second the whole picture, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::Response;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::board::Board;

/// Time between two events.
const EVERY: Duration = Duration::from_secs(1);

/// Events of one answer. Whoever goes on listening asks again, so nobody who has gone away unnoticed is kept for long.
const EVENTS: u32 = 600;

struct Listener {
    board: Arc<Board>,
    ticks: Interval,
    left: u32,
    _place: OwnedSemaphorePermit,
}

/// An answer that goes on. A listener that takes nothing is told nothing: pictures do not pile up.
pub(super) fn answer(board: Arc<Board>, place: OwnedSemaphorePermit) -> Response {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let listener = Listener { board, ticks, left: EVENTS, _place: place };
    let events = stream::unfold(listener, |mut listener| async move {
        listener.left = listener.left.checked_sub(1)?;
        listener.ticks.tick().await;
        let picture = serde_json::to_string(&*listener.board.everything()).unwrap_or_default();
        Some((Ok::<_, Infallible>(Bytes::from(format!("data: {picture}\n\n"))), listener))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy in between should hand on each event as it comes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
