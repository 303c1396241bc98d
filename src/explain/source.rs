//! Reads the retained source once more, and the inbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_checkpoint::inbox::{self, Inbox};
use tidemark_dataflows::block::Body;
use tidemark_dataflows::event::{Micros, Offset, PartitionId, Position};

use super::Search;
use super::tables::MOST;
use super::verdict::{Found, Place};
use crate::config::SourceKind;
use crate::runtime::{RunError, access, build};
use crate::source::{EventHubsSource, FileIdentity, FileSource, Pull, ReadAhead, Source, SourceError, SourceIdentity};

/// After every event time, so that none comes from the future: the arrival is looked at once the epoch is known.
const LATEST: Micros = Micros(i64::MAX);

/// How long a source may give nothing before it is left.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two looks at a source that has nothing yet.
const PAUSE: Duration = Duration::from_millis(1);

impl Search<'_> {
    /// Every arrival in what can be read again.
    pub(super) fn sources(&mut self, found: &mut BTreeMap<Place, Found>) -> Result<(), RunError> {
        let stored = self.stored.as_ref().map(|(_, past)| past.identity.source.clone());
        let before = self.not_searched.len();
        match stored.map(serde_json::from_value::<SourceIdentity>) {
            Some(Ok(SourceIdentity::Files { partitions })) => self.files(Some(&partitions), found),
            Some(Ok(stored @ SourceIdentity::Generate { .. })) => self.generated(&stored, found),
            Some(Ok(stored @ SourceIdentity::EventHub(_))) => self.hub(&stored, found),
            Some(Err(_)) => self.not_searched.push("the source: it is of a kind that is not known here".to_owned()),
            None if self.config.source.kind == SourceKind::File => self.files(None, found),
            None => self.not_searched.push("the source: nothing says what was generated".to_owned()),
        }
        self.inbox(found)?;
        self.whole = self.not_searched.len() == before;
        Ok(())
    }

    /// Files: the configured ones, else those that the pipeline was started with.
    fn files(&mut self, stored: Option<&[FileIdentity]>, found: &mut BTreeMap<Place, Found>) {
        let mut inputs = self.config.source.inputs.clone();
        if self.config.source.kind != SourceKind::File {
            inputs = stored.into_iter().flatten().map(|file| file.path.clone().unwrap_or("-".to_owned())).collect();
        }
        if inputs.iter().any(|input| input == "-") {
            inputs.retain(|input| input != "-");
            self.not_searched.push("standard input: it cannot be read again".to_owned());
        }
        let mut numbers = self.numbers(stored);
        for input in inputs {
            // Opened one by one, a file below a folder would have another name than it had.
            let known = stored.into_iter().flatten().find(|file| file.path.as_ref() == Some(&input));
            let mut source = match FileSource::open(std::slice::from_ref(&input), ReadAhead::default()) {
                Ok(source) => source,
                Err(error) => {
                    self.not_searched.push(error.to_string());
                    continue;
                }
            };
            let partitions = source.partitions().to_vec();
            for (index, info) in (0..).map(PartitionId).zip(&partitions) {
                if !info.path.as_ref().is_some_and(|path| path.is_file()) {
                    self.not_searched.push(format!("{}: it is no file, and cannot be read again", info.label()));
                    continue;
                }
                let name = known.map_or(&info.name, |file| &file.name);
                let number = numbers.remove(name);
                if let Err(error) = self.scan(&mut source, index, number, name, u64::MAX, found) {
                    self.not_searched.push(error.to_string());
                }
            }
        }
        numbers.remove(inbox::PARTITION);
        // Of a file that came later the checkpoint keeps the name alone.
        let others = numbers
            .into_keys()
            .map(|name| format!("{name}: it is not among the files that are searched; name it with --input"));
        self.not_searched.extend(others);
    }

    /// The numbers of partitions by name: those of the newest checkpoint, else those of the first start.
    fn numbers(&self, first: Option<&[FileIdentity]>) -> BTreeMap<String, u32> {
        let newest = self.stored.as_ref().and_then(|(_, past)| past.manifests.first());
        match newest {
            Some(newest) => {
                let positions = newest.manifest.positions.iter();
                positions.map(|position| (position.partition.clone(), position.index)).collect()
            }
            None => first.into_iter().flatten().map(|file| file.name.clone()).zip(0..).collect(),
        }
    }

    /// Generated events, as far as they have been cut: most streams have no end.
    fn generated(&mut self, stored: &SourceIdentity, found: &mut BTreeMap<Place, Found>) {
        let now = match self.config.source.kind {
            SourceKind::Generate => build::source(self.config, stored.generator_start(), &Arc::default()),
            SourceKind::File | SourceKind::EventHubs => {
                self.not_searched
                    .push("the source: events were generated, and another source is configured".to_owned());
                return;
            }
        };
        let mut source = match now {
            Ok(source) => source,
            Err(error) => return self.not_searched.push(error.to_string()),
        };
        let differences = source.identity().difference(stored);
        if !differences.is_empty() {
            let how = differences.join(", ");
            return self
                .not_searched
                .push(format!("generated events: they were others ({how}); give the same options"));
        }
        let names: Vec<String> = source.partitions().iter().map(|partition| partition.name.clone()).collect();
        for (index, name) in (0..).zip(names) {
            let until = self.epochs.cut_to(index).unwrap_or(0);
            if let Err(error) = self.scan(source.as_mut(), PartitionId(index), Some(index), &name, until, found) {
                self.not_searched.push(error.to_string());
            }
        }
    }

    /// Whatever the event hub still holds. It is read beside the pipeline, whose readers may keep others away.
    fn hub(&mut self, stored: &SourceIdentity, found: &mut BTreeMap<Place, Found>) {
        if self.config.source.kind != SourceKind::EventHubs {
            self.not_searched.push("the event hub: give --source eventhubs and how to get in".to_owned());
            return;
        }
        let opened = access::eventhubs(self.config).and_then(|options| {
            let mut source = EventHubsSource::open(options.beside(), &Arc::default())?;
            source.settle(Some(stored))?;
            Ok(source)
        });
        let mut source = match opened {
            Ok(source) => source,
            Err(error) => return self.not_searched.push(error.to_string()),
        };
        let differences = source.identity().difference(stored);
        if !differences.is_empty() {
            return self.not_searched.push(format!("the event hub: it is another one ({})", differences.join(", ")));
        }
        if let Err(error) = source.read_all() {
            return self.not_searched.push(error.to_string());
        }
        let names: Vec<String> = source.partitions().iter().map(|partition| partition.name.clone()).collect();
        let ends: Vec<(u64, u64)> = source.found().iter().map(|held| (held.first, held.end)).collect();
        for ((index, name), (first, end)) in (0..).zip(names).zip(ends) {
            if first > 0 {
                self.not_searched.push(format!("partition {name}: events before {first} are past their retention"));
            }
            if let Err(error) = self.scan(&mut source, PartitionId(index), Some(index), &name, end, found) {
                self.not_searched.push(error.to_string());
            }
        }
    }

    /// Reads a partition up to `until`. `number` is its index in the pipeline, where it is one of those.
    fn scan(
        &mut self,
        source: &mut dyn Source,
        partition: PartitionId,
        number: Option<u32>,
        name: &str,
        until: u64,
        found: &mut BTreeMap<Place, Found>,
    ) -> Result<(), SourceError> {
        let (mut next, mut moved) = (0, Instant::now());
        while next < until && found.len() < MOST {
            let at_most = usize::try_from(until - next).unwrap_or(usize::MAX);
            match source.pull(partition, Offset(next), at_most, LATEST)? {
                Pull::Pending if moved.elapsed() > PATIENCE => {
                    self.not_searched.push(format!("{name}: no event came after {next}, and it should hold more"));
                    break;
                }
                Pull::Pending => std::thread::sleep(PAUSE),
                Pull::End => break,
                Pull::Block(block) => {
                    next = block.first_offset.0 + block.len() as u64;
                    moved = Instant::now();
                    block.iter().for_each(|body| self.look(&body, name, number, found));
                }
            }
        }
        self.note_limit(found.len(), name);
        Ok(())
    }

    /// The replayed events that are still there.
    fn inbox(&mut self, found: &mut BTreeMap<Place, Found>) -> Result<(), RunError> {
        let Some((store, _)) = &self.stored else { return Ok(()) };
        let batches = Inbox::new(store.clone()).batches()?;
        if let Some(first) = batches.first().map(|batch| batch.replay.first).filter(|first| *first > 0) {
            let what = format!("{}: the first {first} replayed events are no longer stored", inbox::PARTITION);
            self.not_searched.push(what);
        }
        let number = self.epochs.inbox();
        for batch in batches {
            for (offset, range) in (batch.replay.first..).zip(batch.bodies()) {
                let bytes = batch.bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
                let at = Position { partition: PartitionId(number.unwrap_or(u32::MAX)), offset: Offset(offset) };
                let body = Body { bytes, whole_len: bytes.len() as u64, at, arrival: LATEST, section: None };
                self.look(&body, inbox::PARTITION, number, found);
            }
        }
        Ok(())
    }

    /// Notes an event, if it is one of those that are looked for.
    fn look(&self, body: &Body<'_>, name: &str, number: Option<u32>, found: &mut BTreeMap<Place, Found>) {
        let ours = match self.contract.check(&Body { arrival: LATEST, ..*body }, 0) {
            Ok(event) => event.id == self.id,
            Err(violation) => violation.event_id.as_deref() == Some(self.event_id),
        };
        if !ours {
            return;
        }
        let offset = body.at.offset.0;
        let at = found.entry(Place { partition: name.to_owned(), offset }).or_default();
        at.in_source = true;
        at.number = number;
        at.body = Some(body.bytes.to_vec());
        at.unread = number.and_then(|number| self.epochs.cut_to(number)).is_some_and(|cut| offset >= cut);
        at.epoch = at.epoch.or_else(|| self.epochs.of(number?, offset));
    }
}
