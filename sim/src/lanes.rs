//! The threads of an instance that make things durable: its start, cuts, groups of commits, and checkpoints.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidemark::runtime::checkpoint_schedule::CheckpointSchedule;
use tidemark::runtime::epochs::{CutRule, Epochs, Event, StartingPoint, go_past};
use tidemark_checkpoint::records::{Cut, Position};
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::watermark::Progress;

use crate::checkpoint::{CheckpointWriter, Complete, Part, write_part};
use crate::compute::{Compute, Export, Feed};
use crate::durable::{Reply, Request, TABLES};
use crate::instance::{Announced, Instance, OpenCheckpoint, Run};
use crate::jobs::{self, Outcome, Recovered, Start, Trouble};
use crate::orders::Order;
use crate::port::{Job, Step, straight};
use crate::reader::Reader;
use crate::scenario::{MS, SourceKind};
use crate::tables::Change;
use crate::world::{Due, Fate, World};

impl World {
    /// Starts an instance.
    pub(crate) fn start(&mut self) {
        let at = self.instances.len();
        let processes = self.scenario.processes[at % self.scenario.processes.len()];
        self.instances.push(Instance::new(processes, self.now));
        self.note(Some(at), None, || format!("starts with {processes} processes"));
        let plan = Start { order: self.order, nonce: self.rng.next(), names: self.source.names_at(self.now) };
        self.spawn(at, Box::new(move || jobs::start(&plan)));
    }

    /// Starts somebody with the checkpoint of another pipeline.
    pub(crate) fn intrude(&mut self) {
        let at = self.instances.len();
        self.instances.push(Instance { stranger: true, ..Instance::new(1, self.now) });
        self.note(Some(at), None, || "starts with the checkpoint of another pipeline".to_owned());
        let plan = Start { order: self.order, nonce: self.rng.next(), names: Vec::new() };
        self.spawn(at, Box::new(move || jobs::intrude(&plan)));
    }

    /// Begins a job of an instance: straight, or with its requests interleaved with everything else.
    pub(crate) fn spawn(&mut self, at: usize, job: Job) {
        self.jobs += 1;
        let number = self.jobs;
        if self.now < self.lossy_until || !self.traps.is_empty() || self.rng.chance(self.scenario.interleaved) {
            let step = self.threads.begin(job);
            return self.stepped(number, at, step);
        }
        let outcome = straight(&Arc::clone(&self.durable), job);
        let takes = self.latency();
        self.at(self.now + takes, Due::Finished(at, outcome));
    }

    fn latency(&mut self) -> u64 {
        let usual = self.rng.between(200, 12 * MS);
        if self.now < self.slow_until { usual * 10 } else { usual }
    }

    /// A job has come to its next request, or to its end.
    fn stepped(&mut self, job: u64, at: usize, step: Step) {
        match step {
            Step::Asks(request, running) => {
                self.running.insert(job, (at, running));
                let fate = self.fate(&request);
                let sent = self.trapped(at, &request).unwrap_or(self.now);
                let takes = self.latency() / 4;
                self.at(sent + takes, Due::Arrive(job, at, request, fate));
            }
            Step::Done(outcome) => self.at(self.now, Due::Finished(at, outcome)),
            Step::Lost => self.wrong("a job has panicked"),
        }
    }

    /// Stops an instance that has come to a place where one is to be stopped, and starts another. Returns when it wakes.
    fn trapped(&mut self, at: usize, request: &Request) -> Option<u64> {
        let trap = self.traps.iter().position(|(place, _)| place.is_at(request))?;
        let (place, long) = self.traps.remove(trap);
        if self.now >= self.scenario.quiet_from || !self.instances[at].lives() {
            return None;
        }
        self.note(Some(at), None, || format!("is stopped: {place:?}"));
        self.pause(at, long);
        self.start();
        Some(self.now + long)
    }

    fn fate(&mut self, request: &Request) -> Fate {
        if self.now >= self.lossy_until {
            return Fate::Answered;
        }
        let writes = matches!(request, Request::Put { .. } | Request::Delete(_) | Request::Commit(_));
        match self.rng.below(20) {
            0..3 if writes => Fate::Repeated,
            3 | 4 if writes => Fate::Doubtful,
            5 if writes => Fate::Late,
            6 => Fate::Lost,
            _ => Fate::Answered,
        }
    }

    /// A request comes to the stores, perhaps of a process that has died.
    pub(crate) fn arrive(&mut self, job: u64, at: usize, request: Request, fate: Fate) {
        if !self.instances[at].lives() && !matches!(fate, Fate::Late | Fate::Lost) {
            // What a dead process sent may be carried out a good deal later, or never.
            match self.rng.below(4) {
                0 => return,
                1 => {
                    let later = self.now + self.rng.between(1, 3_000) * MS;
                    return self.at(later, Due::Arrive(job, at, request, Fate::Late));
                }
                _ => {}
            }
        }
        let what = self.trace.lines.is_some().then(|| described(&request));
        let put = matches!(request, Request::Put { new: true, .. });
        let reply = match fate {
            Fate::Lost => Reply::Failed,
            Fate::Late if self.running.contains_key(&job) => {
                let later = self.now + self.rng.between(1, 3_000) * MS;
                self.at(later, Due::Arrive(u64::MAX, at, request, Fate::Late));
                Reply::Failed
            }
            _ => {
                let reply = self.stores().apply(request);
                match fate {
                    Fate::Repeated if put => Reply::Exists,
                    Fate::Repeated | Fate::Doubtful => Reply::Failed,
                    _ => reply,
                }
            }
        };
        let answer = match (&fate, &reply) {
            (Fate::Answered, Reply::Exists | Reply::Conflict) => format!(": {reply:?}"),
            (Fate::Answered, _) => String::new(),
            _ => format!(" ({fate:?})"),
        };
        self.note(Some(at), None, || format!("{}{answer}", what.unwrap_or_default()));
        let takes = self.latency() / 4;
        self.at(self.now + takes, Due::Answer(job, reply));
    }

    /// An answer comes to a job, if its process still lives.
    pub(crate) fn answer(&mut self, job: u64, reply: Reply) {
        let Some((at, running)) = self.running.remove(&job) else { return };
        let paused_until = self.instances[at].paused_until;
        if paused_until > self.now {
            self.running.insert(job, (at, running));
            return self.at(paused_until, Due::Answer(job, reply));
        }
        let step = self.threads.answer(running, reply);
        self.stepped(job, at, step);
    }

    /// What came of a job.
    pub(crate) fn finished(&mut self, at: usize, outcome: Outcome) {
        let trouble = match outcome {
            Outcome::Started(Ok(recovered)) => return self.started(at, *recovered),
            Outcome::Cut(log, Ok(())) => return self.cut(at, log),
            Outcome::Published(tables, epoch, Ok(())) => return self.published(at, tables, epoch),
            Outcome::Wrote(epoch, Ok(runs)) => {
                let Some(run) = self.run_of(at) else { return };
                if let Some(open) = run.open.iter_mut().find(|open| open.epoch == epoch) {
                    open.runs.extend(runs);
                    open.waiting -= 1;
                }
                return self.complete(at);
            }
            Outcome::Completed(writer, epoch, Ok(())) => {
                let Some(run) = self.run_of(at) else { return };
                run.checkpoints = Some(writer);
                run.asked = run.asked.split_off(&(epoch + 1));
                self.note(Some(at), None, || format!("checkpoint {epoch} is durable, and pruned"));
                self.protocol(at, Event::Checkpointed(epoch));
                return self.complete(at);
            }
            Outcome::Refused(Ok(())) => return self.end(at, "refused"),
            Outcome::Started(Err(trouble)) | Outcome::Refused(Err(trouble)) => trouble,
            Outcome::Cut(_, Err(trouble)) | Outcome::Published(_, _, Err(trouble)) => trouble,
            Outcome::Wrote(_, Err(trouble)) | Outcome::Completed(_, _, Err(trouble)) => trouble,
        };
        match trouble {
            Trouble::Ends(why) => self.end(at, &why),
            // Whoever was displaced may find that things are gone.
            Trouble::Wrong(what) if self.is_displaced(at) => self.end(at, &format!("displaced, it says: {what}")),
            Trouble::Wrong(what) => self.wrong(&what),
        }
    }

    fn is_displaced(&self, at: usize) -> bool {
        let claimed = self.claimed();
        Some(at) != self.newest() || self.instances[at].generation.is_some_and(|own| own < claimed)
    }

    fn started(&mut self, at: usize, recovered: Recovered) {
        let (generation, after) = (recovered.generation, recovered.after);
        self.instances[at].generation = Some(generation);
        let replayed = recovered.replay.len();
        self.note(Some(at), None, || format!("has started from checkpoint {after}, and replays {replayed} epochs"));
        let processes = self.instances[at].processes;
        let mut run = self.run_from(processes, recovered);
        let actions = run.1;
        run.0.tick_at = None;
        self.instances[at].run = Some(run.0);
        self.within(10 * MS, Due::Compute(at));
        for process in 0..processes {
            self.within(30 * MS, Due::Poll(at, process, true));
        }
        self.carry_out(at, actions);
    }

    fn run_from(&self, processes: usize, recovered: Recovered) -> (Box<Run>, Vec<tidemark::runtime::epochs::Action>) {
        let mut compute = Compute::new(&self.settings, processes, &recovered.loaded, recovered.after);
        let reader = |process| Reader::new(process, processes, recovered.after, recovered.positions.clone());
        let mut readers: Vec<Reader> = (0..processes).map(reader).collect();
        for cut in &recovered.replay {
            for (process, reader) in readers.iter_mut().enumerate() {
                for (epoch, block) in reader.replay(cut, &self.source) {
                    compute.feed(Feed::Block(process, epoch, block));
                }
            }
            compute.feed(Feed::Mark(cut.clone()));
        }
        let schedule = CheckpointSchedule::new(
            Duration::from_micros(self.scenario.checkpoints_us),
            recovered.after,
            self.instant(),
        );
        let mut epochs =
            Epochs::new(self.rule(), processes, Some(schedule), starting_point(&recovered, self.source.is_files()));
        let actions = epochs.begin(self.wall());
        let held = recovered.tables.iter().map(|table| table.epoch);
        let (least, most) = (held.clone().min().unwrap_or(0), held.max().unwrap_or(0));
        let horizon = self.settings.index.horizon;
        let identity = recovered.identity.clone();
        let manifests = recovered.journal.manifests;
        let from = recovered.loaded.from.as_ref().map(|from| &from.manifest);
        let run = Run {
            epochs,
            readers,
            compute,
            cuts: Some(recovered.journal.cuts),
            waiting: VecDeque::new(),
            writing: Vec::new(),
            tables: Some(recovered.tables),
            pending: BTreeMap::new(),
            first_group: (most > recovered.after).then_some(most),
            visible: least.min(recovered.after),
            published_at: None,
            checkpoints: Some(Box::new(CheckpointWriter::new(manifests, identity, horizon, self.order, from))),
            asked: BTreeMap::new(),
            open: VecDeque::new(),
            counters: recovered.counters,
            summaries: BTreeMap::new(),
            next_run: vec![1; processes],
            finishing: None,
            stopping: false,
            tick_at: None,
        };
        (Box::new(run), actions)
    }

    fn rule(&self) -> CutRule {
        match self.scenario.source {
            SourceKind::Files { epoch_events, alignment_us } => CutRule::Files { events: epoch_events, alignment_us },
            SourceKind::Live { trigger_us, .. } => CutRule::Live { trigger: Duration::from_micros(trigger_us) },
        }
    }

    /// Makes what waits durable, unless something is on its way.
    pub(crate) fn write_cuts(&mut self, at: usize) {
        let Some(run) = self.run_of(at).filter(|run| run.cuts.is_some() && !run.waiting.is_empty()) else { return };
        run.writing = run.waiting.drain(..).collect();
        let cut = |announced: &Announced| if let Announced::Cut(cut) = announced { Some(cut.clone()) } else { None };
        let cuts: Vec<Cut> = run.writing.iter().filter_map(cut).collect();
        if let Some(log) = run.cuts.take() {
            self.spawn(at, Box::new(move || jobs::append(log, cuts)));
        }
    }

    fn cut(&mut self, at: usize, log: tidemark_checkpoint::journal::CutLog) {
        let early = self.order == Order::EffectsBeforeCut;
        let Some(run) = self.run_of(at) else { return };
        run.cuts = Some(log);
        let written = std::mem::take(&mut run.writing);
        let last = written.iter().rev().find_map(|a| if let Announced::Cut(cut) = a { Some(cut.epoch) } else { None });
        if let Some(last) = last {
            self.note(Some(at), None, || format!("the cuts up to epoch {last} are durable"));
        }
        for announced in written {
            if !(early && matches!(announced, Announced::Cut(_))) {
                self.announce(at, announced);
            }
        }
        self.write_cuts(at);
        self.leave_if_through(at);
    }

    /// Steps the dataflow, and takes what has come out.
    pub(crate) fn compute(&mut self, at: usize) {
        let Some(run) = self.run_of(at) else { return };
        let through = run.compute.run();
        for (epoch, change) in run.compute.take_closed() {
            run.summaries.extend(change.health.iter().map(|summary| (epoch, summary.clone())));
            run.pending.insert(epoch, change);
        }
        while let Some((epoch, exports, progress)) = self.run_of(at).and_then(|run| run.compute.take_checkpoint()) {
            self.write_runs(at, epoch, exports, progress);
        }
        if !through {
            self.within(10 * MS, Due::Compute(at));
        }
        self.publish(at);
        self.complete(at);
    }

    /// Begins a group, if one is due.
    pub(crate) fn publish(&mut self, at: usize) {
        let (now, pause) = (self.now, self.scenario.publications_us);
        let Some(run) = self.run_of(at).filter(|run| run.tables.is_some()) else { return };
        let Some(newest) = run.pending.keys().next_back().copied() else { return };
        let epoch = match run.first_group {
            Some(first) if newest < first => return,
            Some(first) => first,
            None => newest,
        };
        if let Some(before) = run.published_at.filter(|before| now < before + pause && run.finishing.is_none()) {
            return self.at(before + pause, Due::Publish(at));
        }
        run.published_at = Some(now);
        let later = run.pending.split_off(&(epoch + 1));
        let mut change = Change::default();
        std::mem::replace(&mut run.pending, later).into_values().for_each(|of| change.add(of));
        let Some(tables) = run.tables.take() else { return };
        // The last table is committed to after all others, which come in any order.
        let mut turns: Vec<usize> = (0..TABLES.len() - 1).collect();
        self.rng.shuffle(&mut turns);
        turns.push(TABLES.len() - 1);
        self.spawn(at, Box::new(move || jobs::publish(tables, &turns, epoch, &change)));
    }

    fn published(&mut self, at: usize, tables: Vec<crate::tables::TableWriter>, epoch: Epoch) {
        let Some(run) = self.run_of(at) else { return };
        (run.tables, run.first_group, run.visible) = (Some(tables), None, epoch);
        self.note(Some(at), None, || format!("epoch {epoch} is in all tables"));
        self.publish(at);
        self.complete(at);
        self.leave_if_through(at);
    }

    /// Has every process write its runs for a checkpoint.
    fn write_runs(&mut self, at: usize, epoch: Epoch, exports: Vec<Export>, progress: Progress) {
        let processes = self.instances[at].processes;
        let mut parts = vec![Part::default(); processes];
        let whose = |key: u128| usize::try_from(key % processes as u128).unwrap_or(0);
        for export in exports {
            match export {
                Export::Ids(admitted) => {
                    admitted.ids.into_iter().for_each(|entry| parts[whose(entry.0.0)].ids.push(entry));
                }
                Export::Totals(_, rows) => rows.into_iter().for_each(|(row, totals)| {
                    let key = row.1.iter().copied().map(u128::from).sum();
                    parts[whose(key)].totals.insert(row, totals);
                }),
            }
        }
        let (generation, horizon) = (self.instances[at].generation.unwrap_or(0), self.settings.index.horizon);
        let Some(run) = self.run_of(at) else { return };
        run.open.push_back(OpenCheckpoint { epoch, waiting: processes, runs: Vec::new(), progress });
        for (process, part) in parts.into_iter().enumerate() {
            // What a process that is lost does not write is never taken for written.
            if self.instances[at].lost.contains(&process) {
                continue;
            }
            let Some(run) = self.run_of(at) else { return };
            let number = run.next_run[process];
            run.next_run[process] += 3;
            self.spawn(at, Box::new(move || write_part(generation, process, number, epoch, horizon, part)));
        }
    }

    /// Makes the first open checkpoint whole, once its runs are durable and all tables hold its epoch.
    pub(crate) fn complete(&mut self, at: usize) {
        let early = self.order == Order::ManifestBeforeEffects;
        let Some(run) = self.run_of(at).filter(|run| run.checkpoints.is_some()) else { return };
        let is_whole = |open: &&OpenCheckpoint| open.waiting == 0 && (early || run.visible >= open.epoch);
        if run.open.front().filter(is_whole).is_none() {
            return;
        }
        let (Some(mut open), Some(writer)) = (run.open.pop_front(), run.checkpoints.take()) else { return };
        let later = run.summaries.split_off(&(open.epoch + 1));
        let counters = &mut run.counters;
        std::mem::replace(&mut run.summaries, later).values().for_each(|summary| counters.add(summary));
        open.runs.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let positions: Vec<Position> = run.asked.get(&open.epoch).cloned().unwrap_or_default();
        let OpenCheckpoint { epoch, runs, progress, .. } = open;
        let complete = Complete { epoch, positions, counters: run.counters.clone(), progress, runs };
        self.spawn(at, Box::new(move || writer.complete(complete)));
    }

    /// An instance that has nothing more to do ends.
    pub(crate) fn leave_if_through(&mut self, at: usize) {
        let Some(run) = self.run_of(at).filter(|run| run.is_through()) else { return };
        let ended = run.finishing;
        let quiet = self.now >= self.scenario.quiet_from && Some(at) == self.current();
        self.complete |= quiet && self.stores().checks.received() == self.source.events();
        self.end(at, &format!("done, {ended:?}"));
    }
}

/// Where the protocol goes on, as `Recovered::starting_point` of the runtime has it.
fn starting_point(recovered: &Recovered, files: bool) -> StartingPoint {
    let last = recovered.replay.last();
    let closed = recovered.counters.last_closed_us.into_iter().chain(last.map(|cut| cut.closed_us));
    let mut positions = recovered.positions.clone();
    recovered.replay.iter().for_each(|cut| go_past(&mut positions, cut, files));
    StartingPoint {
        epoch: last.map_or(recovered.after, |cut| cut.epoch),
        positions,
        joined: recovered.joined.clone(),
        closed: Micros(closed.max().unwrap_or(0)),
    }
}

fn described(request: &Request) -> String {
    match request {
        Request::Put { name, .. } => format!("puts {name}"),
        Request::Get(name) => format!("reads {name}"),
        Request::List(folder) => format!("lists {folder}"),
        Request::Delete(name) => format!("deletes {name}"),
        Request::Load(table) => format!("loads {}", TABLES[*table]),
        Request::Commit(commit) => {
            let (fence, epoch) = (commit.fence, commit.epoch);
            format!("commits epoch {epoch}, fence {fence} to {}", TABLES[commit.table])
        }
    }
}
