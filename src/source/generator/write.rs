//! Writes generated events to files or to a stream, as `tidemark generate` does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidemark_dataflows::event::{Micros, Offset, PartitionId};

use super::{BLOCK_BYTES, EventGenerator, MAX_EVENT_BYTES, Pacing};
use crate::source::SourceError;

/// Events between two looks at the stop flag and the clock.
const BATCH_EVENTS: u64 = 1000;

/// Longest sleep between two looks at the stop flag.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// What was written.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of events. After a broken pipe, the reader may have seen fewer.
    pub events: u64,
    /// Number of bytes, line terminators included.
    pub bytes: u64,
}

/// Writes the stream of a generator as lines, until it ends or the stop flag is set.
#[derive(Debug)]
pub struct EventWriter<'a> {
    generator: &'a EventGenerator,
    pacing: Pacing,
    stop: &'a AtomicBool,
}

/// One file or stream, and what has not been written to it yet.
struct Output<'a> {
    name: String,
    to: Box<dyn Write + 'a>,
    buffer: Vec<u8>,
}

impl<'a> EventWriter<'a> {
    /// A writer that ends early, with whole lines, soon after `stop` is set.
    pub fn new(generator: &'a EventGenerator, pacing: Pacing, stop: &'a AtomicBool) -> Self {
        Self { generator, pacing, stop }
    }

    /// Writes one file for each partition into `directory`, which is created if need be: `p0.ndjson`, `p1.ndjson`, …,
    /// with as many digits as the last one needs, so that the order of names is the order of partitions. Until all are whole
    /// they have names of their own, which no reader of a directory takes up.
    ///
    /// # Errors
    ///
    /// A file exists and `overwrite` is false (then nothing is written), or the disk refuses.
    pub fn write_files(&self, directory: &Path, overwrite: bool) -> Result<Written, SourceError> {
        let named = |path: &Path| path.display().to_string();
        fs::create_dir_all(directory).map_err(|error| SourceError::unavailable(named(directory), "created", error))?;
        let paths = self.paths(directory);
        if let Some(taken) = paths.iter().find(|path| !overwrite && path.symlink_metadata().is_ok()) {
            return Err(exists(named(taken)));
        }
        let mut outputs = Vec::with_capacity(paths.len());
        for path in &paths {
            let file = File::create(unfinished(path));
            let file = file.map_err(|error| SourceError::unavailable(named(path), "created", error))?;
            outputs.push(Output::new(named(path), Box::new(file)));
        }
        let mut written = Written::default();
        self.write_all(&mut outputs, &mut written).map_err(|(name, error)| unwritable(name, error))?;
        for path in &paths {
            fs::rename(unfinished(path), path).map_err(|error| unwritable(named(path), error))?;
        }
        Ok(written)
    }

    /// Writes all partitions to `out`, dealt in turn. Named `name` in errors. A reader that has gone away (a broken
    /// pipe) ends it like the stop flag.
    ///
    /// # Errors
    ///
    /// `out` refuses for any other reason.
    pub fn write_stream(&self, name: &str, out: &mut dyn Write) -> Result<Written, SourceError> {
        let mut written = Written::default();
        match self.write_all(&mut [Output::new(name.into(), Box::new(out))], &mut written) {
            Err((name, error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(name, error)),
            _ => Ok(written),
        }
    }

    fn paths(&self, directory: &Path) -> Vec<PathBuf> {
        let partitions = self.generator.options().partitions;
        let width = (partitions - 1).to_string().len();
        (0..partitions).map(|partition| directory.join(format!("p{partition:0width$}.ndjson"))).collect()
    }

    /// Deals the stream to `outputs` in turn: one for each partition, or one for all.
    fn write_all(&self, outputs: &mut [Output<'_>], written: &mut Written) -> Result<(), (String, io::Error)> {
        let partitions = u64::from(self.generator.options().partitions);
        let all = self.generator.options().events.unwrap_or(u64::MAX);
        while written.events < all && !self.stop.load(Ordering::Relaxed) {
            let due = match self.pacing {
                Pacing::AtOnce => all,
                Pacing::Live => all.min(self.generator.due(wall_clock())),
            };
            if due <= written.events {
                flush(outputs)?;
                thread::sleep(self.pause());
                continue;
            }
            for index in written.events..due.min(written.events + BATCH_EVENTS) {
                let place = (index % outputs.len() as u64) as usize;
                let Some(output) = outputs.get_mut(place) else { break };
                let partition = PartitionId((index % partitions) as u32);
                let before = output.buffer.len();
                self.generator.write_body(partition, Offset(index / partitions), &mut output.buffer);
                output.buffer.push(b'\n');
                written.bytes += (output.buffer.len() - before) as u64;
                written.events += 1;
                if output.buffer.len() >= BLOCK_BYTES {
                    output.empty()?;
                }
            }
        }
        flush(outputs)
    }

    /// One event's time at the rate, but not so long that a signal goes unnoticed.
    fn pause(&self) -> Duration {
        Duration::from_micros(1_000_000 / self.generator.options().rate).clamp(Duration::from_millis(1), MAX_PAUSE)
    }
}

impl<'a> Output<'a> {
    fn new(name: String, to: Box<dyn Write + 'a>) -> Self {
        Self { name, to, buffer: Vec::with_capacity(MAX_EVENT_BYTES) }
    }

    /// Writes what has gathered.
    fn empty(&mut self) -> Result<(), (String, io::Error)> {
        let result = self.to.write_all(&self.buffer).and_then(|()| self.to.flush());
        self.buffer.clear();
        result.map_err(|error| (self.name.clone(), error))
    }
}

fn flush(outputs: &mut [Output<'_>]) -> Result<(), (String, io::Error)> {
    outputs.iter_mut().filter(|output| !output.buffer.is_empty()).try_for_each(Output::empty)
}

/// What a file is called while it is written: hidden, so that it is no input.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.unfinished"))
}

fn exists(name: String) -> SourceError {
    SourceError::usage(name, "the file exists already", "name another directory, or allow overwriting")
}

fn unwritable(name: String, error: io::Error) -> SourceError {
    SourceError::unavailable(name, "written", error)
}

/// Now. A clock before 1970 counts as 1970: nothing is due then.
pub(super) fn wall_clock() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
