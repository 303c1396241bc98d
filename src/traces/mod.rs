//! Spans of each epoch for a collector of OpenTelemetry, by OTLP over HTTP in its JSON form.
//!
//! A thread of its own listens to what is measured, makes spans of it afterwards, and sends them. The pipeline waits for
//! nothing of it: what comes faster than it is taken, or is not taken by the collector, is lost and counted. It is written by
//! hand: it is short, and the official crates bring a client, a batcher and a runtime of their own.

mod epochs;
mod span;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use tidemark_dataflows::event::Micros;
use tokio::runtime::Runtime;

use self::epochs::Epochs;
use self::span::{Span, envelope};
use crate::telemetry::Telemetry;
use crate::telemetry::follow::Told;

/// What may wait to be made into spans: some hundred epochs a second, for as long as a collector may take to answer.
const ROOM: usize = 1 << 14;

/// Spans of one request.
const BATCH: usize = 512;

/// Longest time that a span waits for others.
const WAIT: Duration = Duration::from_secs(1);

/// Longest time that a collector is waited for; at the end of a run, twice.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens and sends until it is told to end.
#[derive(Debug)]
pub struct Traces {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Traces {
    /// Starts to follow what `telemetry` measures of this `pipeline`, for the collector at `endpoint`. `now` tells the
    /// present time.
    ///
    /// # Errors
    ///
    /// When there is no thread for it, or no client.
    pub fn start(
        endpoint: &str,
        pipeline: &str,
        telemetry: &Arc<Telemetry>,
        now: fn() -> Micros,
    ) -> io::Result<Option<Traces>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(Policy::none()).no_proxy();
        let client = client.build().map_err(io::Error::other)?;
        let Some(told) = telemetry.stages.follower.listen(ROOM, now) else { return Ok(None) };
        let done = Arc::new(AtomicBool::new(false));
        let collector = Collector {
            runtime,
            client,
            url: format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            pipeline: pipeline.to_owned(),
            telemetry: Arc::clone(telemetry),
            failing: false,
        };
        let (ended, epochs) = (Arc::clone(&done), Epochs::since(now()));
        let follow = move || follow(&told, epochs, collector, now, &ended);
        Ok(Some(Traces { done, thread: Builder::new().name("traces".to_owned()).spawn(follow)? }))
    }

    /// Sends what is left, and ends.
    pub fn end(self) {
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A thread that panicked has ended the process already.
        let _ = self.thread.join();
    }
}

fn follow(told: &Receiver<Told>, mut epochs: Epochs, mut collector: Collector, now: fn() -> Micros, done: &AtomicBool) {
    const LOOK: Duration = Duration::from_millis(100);
    let (mut spans, mut since) = (Vec::new(), Instant::now());
    loop {
        let ending = done.load(Ordering::Acquire);
        match told.recv_timeout(if ending { Duration::ZERO } else { LOOK }) {
            Ok(told) => epochs.take(told, &mut spans),
            Err(RecvTimeoutError::Timeout) if ending => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        epochs.finish(now(), &mut spans);
        if spans.is_empty() {
            since = Instant::now();
        } else if spans.len() >= BATCH || (since.elapsed() >= WAIT && !ending) {
            collector.send(std::mem::take(&mut spans));
        }
    }
    epochs.finish_all(&mut spans);
    while !spans.is_empty() && !collector.failing {
        let rest = spans.split_off(spans.len().min(BATCH));
        collector.send(std::mem::replace(&mut spans, rest));
    }
    collector.telemetry.stages.follower.lose(spans.len() as u64);
}

/// Where spans go.
struct Collector {
    runtime: Runtime,
    client: reqwest::Client,
    url: String,
    pipeline: String,
    telemetry: Arc<Telemetry>,
    failing: bool,
}

impl Collector {
    /// Sends spans once: a collector that does not take them has lost them.
    fn send(&mut self, spans: Vec<Span>) {
        let body = envelope(&self.pipeline, &spans).to_string();
        let request = self.client.post(&self.url).header("content-type", "application/json").body(body);
        let sent = self.runtime.block_on(async { request.send().await.and_then(reqwest::Response::error_for_status) });
        match sent {
            Ok(_) => {
                if std::mem::replace(&mut self.failing, false) {
                    tracing::info!(url = self.url, "traces are taken again");
                }
            }
            Err(error) => {
                self.telemetry.stages.follower.lose(spans.len() as u64);
                if !std::mem::replace(&mut self.failing, true) {
                    let error = innermost(&error);
                    tracing::warn!(url = self.url, error, "traces are not taken; the pipeline goes on without them");
                }
            }
        }
    }
}

/// What is at the bottom of an error: the library wraps it several times.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}
