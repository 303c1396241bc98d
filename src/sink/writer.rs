//! The thread that writes: gathers what was delivered of each epoch, and brings all tables to the same one.
//!
//! It is told everything by a [`Publisher`](super::publisher::Publisher), and tells what it did by what both share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::join_all;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::tally::EpochSummary;
use tidemark_delta::{Maintained, Outcome, Published, Shape, TableWriter};
use tidemark_store::{Persistence, failpoint};
use tokio::runtime::Runtime;

use super::breaker::Tripped;
use super::coalesce::coalesce;
use super::figures;
use super::opened::Tables;
use super::publisher::{Delivery, Message, Options, Shared, SinkError, bytes_of, lock};
use super::repair::{Kept, Repair, changed_at};
use crate::telemetry::{Stage, TableMeter};

/// Longest interval that slow publications bring about. What an outage took is no pace.
const PACED_MAX: Duration = Duration::from_secs(5);

/// How often to publish.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Shortest time from the start of one publication to the start of the next.
    pub least: Duration,
    /// How many times as long as it took nothing is published after a publication. It bounds the share of the time that
    /// publishing takes: the more a group holds, the less each of its epochs costs.
    pub rest: u32,
}

impl Pace {
    /// Time from the start of a publication that took so long to the start of the next.
    fn interval(self, took: Duration) -> Duration {
        self.least.max(took.saturating_mul(self.rest.saturating_add(1)).min(PACED_MAX))
    }
}

/// Time between two tries to write tables anew: the checkpoint that one would build on may just be replaced.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(2);

/// Bytes of rows that may wait for the interval.
const HELD_MAX: u64 = 256 << 20;

/// What has been delivered of one epoch.
#[derive(Default)]
struct Pending {
    deliveries: usize,
    batches: Vec<(usize, RecordBatch)>,
}

/// Writes the tables until it is told to finish, or cannot go on.
pub(super) struct Writer {
    tables: Vec<TableWriter>,
    place: Persistence,
    options: Options,
    shared: Arc<Shared>,
    runtime: &'static Runtime,
    pending: BTreeMap<Epoch, Pending>,
    /// Watermark and closing time of each epoch that is not published yet.
    times: BTreeMap<Epoch, (Option<Micros>, Micros)>,
    /// Tables differ up to this epoch: the first group ends exactly there, and makes them equal.
    first_group: Option<Epoch>,
    /// Every table held the epochs up to this one at the start: they have been judged.
    judged: Epoch,
    /// The first epoch that broke the bound of the breaker: nothing after it is published.
    tripped: Option<Tripped>,
    last_start: Option<Instant>,
    last_took: Duration,
    hurried: bool,
    /// The last epoch, once it is known.
    last: Option<Epoch>,
    finishing: bool,
    /// The newest epoch in all tables, or what every one of them is computed from again.
    held: Epoch,
    kept: Kept,
    repair: Option<Repair>,
    /// When it was tried last.
    repair_tried: Option<Instant>,
    started: Instant,
    /// When tables were maintained last.
    maintained: Option<Instant>,
    /// Whether it had too much to let go for one time.
    more_expired: bool,
}

impl Writer {
    pub(super) fn new(tables: Tables, shared: Arc<Shared>, first_group: Option<Epoch>, repair: Option<Repair>) -> Self {
        let held = shared.visible.load(Ordering::Relaxed);
        let judged = tables.in_all().unwrap_or(0);
        let Tables { writers, place, options, runtime } = tables;
        Writer {
            tables: writers,
            place,
            options,
            shared,
            runtime,
            pending: BTreeMap::new(),
            times: BTreeMap::new(),
            first_group,
            judged,
            tripped: None,
            last_start: None,
            last_took: Duration::ZERO,
            hurried: false,
            last: None,
            finishing: false,
            held,
            kept: Kept::default(),
            repair,
            repair_tried: None,
            started: Instant::now(),
            maintained: None,
            more_expired: false,
        }
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        self.show_changes_of_others();
        loop {
            match messages.recv_timeout(self.wait()) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.finishing = true,
            }
            messages.try_iter().for_each(|message| self.take(message));
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.shared.fail(error),
            }
        }
    }

    /// Does what is due; `false` once there is nothing more to do, ever.
    fn step(&mut self) -> Result<bool, SinkError> {
        let complete = self.complete();
        let due = complete.filter(|_| self.finishing || self.due_in().is_zero());
        if let Some(epoch) = due {
            self.publish(epoch)?;
        }
        self.repair()?;
        if let Some(tripped) = self.tripped.take_if(|tripped| Some(tripped.epoch) <= due) {
            return Err(tripped.into());
        }
        if complete.is_none() && self.is_maintenance_due() {
            self.maintain()?;
        }
        Ok(complete.is_some() || self.more_expired || !self.finishing)
    }

    /// Whether nothing was published for so long that maintenance is due all the same. Before the first publication there is
    /// nothing to maintain.
    fn is_maintenance_due(&self) -> bool {
        let published = || self.tables.iter().all(|table| table.committed_epoch().is_some());
        // A run that publishes nothing lets go what is old as well.
        let expires = || self.options.specs.iter().any(|spec| spec.expiry.is_some());
        let due = match self.maintained {
            Some(at) => at.elapsed() >= self.options.maintain_every,
            None => self.finishing && expires() || self.started.elapsed() >= self.options.maintain_every,
        };
        (due || self.more_expired) && self.first_group.is_none() && published()
    }

    /// How long to wait for a message before looking again.
    fn wait(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(1);
        if self.complete().is_some() { self.due_in().min(IDLE) } else { IDLE }
    }

    /// Time until the interval admits the next publication.
    fn due_in(&self) -> Duration {
        let whole = self.last.is_some() && self.complete() >= self.last;
        let held = self.shared.held.load(Ordering::Relaxed);
        if self.hurried || whole || self.tripped.is_some() || held > HELD_MAX {
            return Duration::ZERO;
        }
        let interval = self.options.pace.interval(self.last_took);
        // The last epoch should not be long in coming.
        let interval = if self.last.is_some() { interval.min(PACED_MAX) } else { interval };
        self.last_start.map_or(Duration::ZERO, |at| (at + interval).saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Delivery(Delivery { table, epoch, batch }) => {
                let pending = self.pending.entry(epoch).or_default();
                pending.deliveries += 1;
                pending.batches.extend(batch.map(|batch| (table, batch)));
            }
            Message::Summary(summary) => {
                self.judge(&summary);
                self.times.insert(summary.mark.epoch, (summary.tally.watermark, summary.mark.closed));
            }
            Message::Hurry => self.hurried = true,
            Message::Drain(last) => self.last = Some(last),
            Message::Finish => self.finishing = true,
        }
    }

    /// Asks the breaker about an epoch, before anything of it is published. One that has been published is not asked about
    /// again: whoever started the run anew has seen it.
    fn judge(&mut self, summary: &EpochSummary) {
        if self.tripped.is_some() || summary.mark.epoch <= self.judged {
            return;
        }
        self.tripped = self.options.breaker.as_ref().and_then(|breaker| breaker.judge(summary));
        if let Some(tripped) = &self.tripped {
            self.options.patience.watch.failing("breaker", &tripped.to_string());
        }
    }

    /// The epoch up to which can be published: the newest one up to which every worker has delivered for every table, and
    /// none after one that has broken the bound of the breaker. Its summary comes before it is whole.
    fn complete(&self) -> Option<Epoch> {
        let whole = self.tables.len() * self.options.workers;
        let newest = self.pending.iter().take_while(|(_, p)| p.deliveries == whole).last().map(|(epoch, _)| *epoch);
        let last = self.tripped.as_ref().map_or(Epoch::MAX, |tripped| tripped.epoch);
        match self.first_group {
            Some(first) => newest.filter(|newest| *newest >= first).and(Some(first)),
            None => newest.map(|newest| newest.min(last)),
        }
    }

    /// Brings every table to `epoch`.
    fn publish(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        let started = Instant::now();
        self.last_start = Some(started);
        self.hurried = false;
        let later = self.pending.split_off(&(epoch + 1));
        let group = std::mem::replace(&mut self.pending, later);
        let mut batches: Vec<Vec<RecordBatch>> = vec![Vec::new(); self.tables.len()];
        let mut bytes = 0;
        for (table, batch) in group.into_values().flat_map(|pending| pending.batches) {
            bytes += bytes_of(&batch);
            if let Some(slot) = batches.get_mut(table) {
                slot.push(batch);
            }
        }
        let later = self.times.split_off(&(epoch + 1));
        let times = std::mem::replace(&mut self.times, later);
        let closed = times.last_key_value().map(|(_, (_, closed))| *closed);
        let watermark_us = times.into_values().filter_map(|(watermark, _)| watermark).max().map(|w| w.0);

        let whole = self.options.specs.iter().zip(&batches).map(|(spec, batches)| coalesce(spec, batches));
        let whole = whole.collect::<Result<Vec<_>, _>>()?;
        self.commit(epoch, watermark_us, &whole)?;
        self.first_group = None;
        self.show_changes_of_others();
        self.kept.keep(&self.options.specs, epoch, &whole);
        self.held = epoch;
        self.shared.held.fetch_sub(bytes, Ordering::Relaxed);
        self.last_took = started.elapsed();
        figures::show(&self.options, epoch, &whole);
        self.announce(epoch, self.last_took, closed);
        failpoint("group-published");
        self.maintain()?;
        failpoint("maintained");
        Ok(())
    }

    /// Commits to every table; those that cannot be written are tried again, as long as that can help.
    fn commit(
        &mut self,
        epoch: Epoch,
        watermark_us: Option<i64>,
        batches: &[Option<RecordBatch>],
    ) -> Result<(), SinkError> {
        failpoint("before-table");
        let permit = &self.options.permit;
        permit.wait().map_err(SinkError::Displaced)?;
        let meters = self.options.telemetry.tables.get().into_iter().flatten();
        let place = &self.place;
        let tables = self.tables.iter_mut().zip(batches).zip(meters);
        let commits = tables.map(|((table, batch), meter)| async move {
            let mut failed = false;
            let attempt = async || {
                if failed {
                    permit.wait().map_err(SinkError::Displaced)?;
                }
                let begun = Instant::now();
                let committed = table.publish(epoch, watermark_us, batch.as_ref()).await;
                failpoint("table-committed");
                note(meter, epoch, batch.as_ref(), begun, &committed);
                failed = committed.is_err();
                Ok(committed?)
            };
            let committed = place.persist("publishing", SinkError::cause, attempt).await;
            committed.map(drop).map_err(|gave_up| gave_up.error)
        });
        // All of them to their end: a commit that is dropped half-way may have been made.
        self.runtime.block_on(join_all(commits)).into_iter().collect()
    }

    /// What others have changed stands in health and metrics until it is settled.
    fn show_changes_of_others(&mut self) {
        let meters = self.options.telemetry.tables.get().into_iter().flatten();
        for (table, meter) in self.tables.iter().zip(meters) {
            let (place, changes) = (format!("table {}", table.spec().name), table.foreign_changes());
            let before = meter.foreign.swap(changes.map_or(0, |changes| changes.commits), Ordering::Relaxed);
            match changes {
                Some(changes) => {
                    let why = format!("{changes}; {}", self.options.on_foreign_changes.remedy(&table.spec().shape));
                    self.options.patience.watch.failing(&place, &why);
                    meter.foreign_total.fetch_add(changes.commits.saturating_sub(before), Ordering::Relaxed);
                    if self.repair.is_some() && matches!(table.spec().shape, Shape::Keyed { .. }) {
                        self.kept.met_after(self.held);
                    }
                }
                None if before > 0 => self.options.patience.watch.recovered(&place),
                None => {}
            }
        }
    }

    /// Writes merged tables anew that others have changed, once a state is kept that can be built on.
    fn repair(&mut self) -> Result<(), SinkError> {
        let Some(repair) = self.repair.as_ref() else { return Ok(()) };
        let checkpointed = self.options.telemetry.stages.of(Stage::Checkpointed);
        if self.first_group.is_some() || self.kept.since().is_none_or(|since| since > checkpointed) {
            return Ok(());
        }
        if self.repair_tried.is_some_and(|tried| tried.elapsed() < BETWEEN_REPAIRS) && !self.finishing {
            return Ok(());
        }
        self.repair_tried = Some(Instant::now());
        let state = match (repair.state)() {
            Ok(Some(state)) if Some(state.epoch) >= self.kept.since() && state.epoch <= self.held => state,
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "tables cannot be written anew yet");
                return Ok(());
            }
        };
        self.options.permit.wait().map_err(SinkError::Displaced)?;
        for (index, table) in self.tables.iter_mut().enumerate() {
            let changed = table.foreign_changes().is_some();
            let spec = table.spec().clone();
            let Some(rows) = changed.then(|| self.kept.whole(repair, &state, (index, &spec), (self.options.now)()))
            else {
                continue;
            };
            let Some(rows) = rows? else { continue };
            let anew = async || Ok(table.write_anew(&rows, changed_at(&spec.name)).await?);
            let written = self.place.persist("writing anew", SinkError::cause, anew);
            self.runtime.block_on(written).map_err(|gave_up| gave_up.error)?;
        }
        self.kept.clear();
        self.show_changes_of_others();
        Ok(())
    }

    fn announce(&self, epoch: Epoch, took: Duration, closed: Option<Micros>) {
        self.shared.visible.store(epoch, Ordering::Release);
        self.options.telemetry.published(epoch, took, closed, (self.options.now)());
        let mut progress = lock(&self.shared.progress);
        progress.epoch = epoch;
        progress.publications += 1;
        progress.last_took = took;
        drop(progress);
        tracing::debug!(epoch, took_ms = took.as_millis(), "published");
        self.shared.wake();
        if let Some(told) = lock(&self.shared.told).as_ref() {
            told(epoch);
        }
    }

    /// Compaction, clean-up and checkpoints of logs, as far as they are due. What fails for want of the store is tried again
    /// next time.
    fn maintain(&mut self) -> Result<(), SinkError> {
        let now = std::time::SystemTime::now();
        self.maintained = Some(Instant::now());
        self.options.permit.wait().map_err(SinkError::Displaced)?;
        let results = self.runtime.block_on(join_all(self.tables.iter_mut().map(|table| table.maintain(now))));
        self.more_expired = results.iter().flatten().any(|done| done.more_expired);
        for (table, done) in self.tables.iter().zip(&results) {
            if let Ok(Maintained { rows_expired: rows @ 1.., .. }) = done {
                tracing::debug!(table = table.spec().name, rows, "let go what was kept long enough");
            }
        }
        let mut results: Vec<_> = results.into_iter().map(|done| done.map(drop)).collect();
        // One table after each group: commits of all tables come to the same number at the same time, and the next group
        // would wait for all their checkpoints.
        let turn = self.tables.iter().map(TableWriter::commits_since_checkpoint).max();
        let turn = self.tables.iter().position(|table| Some(table.commits_since_checkpoint()) == turn);
        for (index, table) in self.tables.iter_mut().enumerate() {
            results.push(self.runtime.block_on(table.checkpoint_log(turn == Some(index))).map(drop));
        }
        for result in results {
            match result {
                Err(error) if error.is_retryable() => tracing::warn!(%error, "maintenance put off"),
                other => other?,
            }
        }
        Ok(())
    }
}

/// Notes what came of an attempt to commit to a table.
fn note(
    meter: &TableMeter,
    epoch: Epoch,
    batch: Option<&RecordBatch>,
    begun: Instant,
    committed: &Result<Published, tidemark_delta::Error>,
) {
    match committed {
        Ok(Published { outcome: Outcome::Skipped, .. }) => {}
        Ok(Published { version, .. }) => {
            meter.committed(*version, epoch, batch.map_or(0, RecordBatch::num_rows), begun.elapsed());
        }
        Err(_) => meter.failed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_bounds_the_share_of_the_time_that_publishing_takes() {
        let ms = Duration::from_millis;
        for (rest, took, interval) in [(1, 0, 500), (1, 200, 500), (1, 400, 800), (3, 400, 1600), (3, 100, 500)] {
            assert_eq!(Pace { least: ms(500), rest }.interval(ms(took)), ms(interval), "{rest} {took}");
        }
        // An outage is no pace, but what was asked for is.
        assert_eq!(Pace { least: ms(500), rest: 3 }.interval(ms(600_000)), PACED_MAX);
        assert_eq!(Pace { least: ms(60_000), rest: 3 }.interval(ms(600_000)), ms(60_000));
    }
}
