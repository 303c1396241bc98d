//! The live line of a run, or its progress bar where the length of the input is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::numbers::{grouped, instant, rate};
use super::terminal::printable;
use crate::runtime::Observer;

/// Time between two pictures.
const REFRESH: Duration = Duration::from_millis(200);

/// Time that the rate is taken over.
const WINDOW: Duration = Duration::from_secs(1);

/// Characters of the name of a partition.
const PARTITION_CHARS: usize = 32;

/// A thread that draws until it is told to end. Draws nothing when standard error is no terminal.
#[derive(Debug)]
pub struct Live {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Starts to show what `observer` sees.
    pub fn start(observer: Observer) -> Live {
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let draw = move || draw_until(&ended, &observer);
        // Without the thread there is no line to look at, and nothing else is lost.
        Live { done, thread: std::thread::Builder::new().name("live-line".to_owned()).spawn(draw).ok() }
    }

    /// Removes the line.
    pub fn end(mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has ended the process already.
            let _ = thread.join();
        }
    }
}

fn draw_until(ended: &AtomicBool, observer: &Observer) {
    let bar = match observer.status.total_bytes {
        Some(total) => ProgressBar::new(total).with_style(style("{bar:24} {percent:>3} %  {msg}")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
    };
    let mut window = (Instant::now(), 0);
    let mut per_second = rate(0, WINDOW);
    while !ended.load(Ordering::Acquire) {
        let events = observer.status.counters.events.load(Ordering::Relaxed);
        let since = window.0.elapsed();
        if since >= WINDOW {
            per_second = rate(events - window.1, since);
            window = (Instant::now(), events);
        }
        bar.set_position(observer.status.counters.bytes.load(Ordering::Relaxed));
        bar.set_message(line(observer, &per_second));
        std::thread::park_timeout(REFRESH);
    }
    bar.finish_and_clear();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How far reading is behind, over all partitions.
fn lag(observer: &Observer) -> Option<String> {
    let all = observer.status.partitions.lag()?;
    Some(format!("lag {} events, {} s", grouped(all.events), all.seconds))
}

/// What holds the watermark back.
fn held_back(observer: &Observer) -> Option<String> {
    let telemetry = &observer.status.telemetry;
    let held = telemetry.held_back.get()?;
    Some(format!(" (waits for {})", printable(&telemetry.partitions.name(held.partition), PARTITION_CHARS)))
}

fn line(observer: &Observer, per_second: &str) -> String {
    let progress = observer.publisher.progress();
    let unwell = observer.status.health.failing().into_iter().next();
    let unwell = unwell.map_or(String::new(), |(place, why)| format!("UNHEALTHY: {place}: {why}  "));
    let lag = lag(observer).map_or(String::new(), |lag| format!("  {lag}"));
    format!(
        "{unwell}{per_second}{lag}  epoch {}  watermark {}{}  accepted {}  duplicates {}  rejected {}  -> {}",
        progress.closed_epoch,
        progress.watermark.map_or("none".to_owned(), |w| instant(w.0)),
        held_back(observer).unwrap_or_default(),
        grouped(progress.accepted),
        grouped(progress.duplicates),
        grouped(progress.rejected),
        observer.status.output,
    )
}
