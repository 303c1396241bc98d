//! Logging to standard error, and the end of the process when something panics.
//!
//! `RUST_LOG` is not read: the level is a setting like any other (`log.level`).

use crate::cluster::ending;
use crate::config::LogFormat;
use crate::exit::ExitStatus;
use crate::report::terminal::Escaping;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("log filter: {0}")]
    Filter(#[from] ParseError),
    /// It is set up already.
    #[error("{0}")]
    Installed(#[from] TryInitError),
}

/// Sends the log of the whole process to standard error from now on.
///
/// JSON lines have the fields `timestamp` (RFC 3339, UTC), `level`, `target` (the module), `message`, and the fields of
/// the event beside them. Lines for people are coloured on a terminal, unless `NO_COLOR` is set.
///
/// # Errors
///
/// If `level` is no filter (a checked configuration has none such), or if it was called before.
pub fn install(level: &str, format: LogFormat) -> Result<(), Error> {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    subscriber(level, format, colour, io::stderr)?.try_init()?;
    Ok(())
}

fn subscriber<W>(level: &str, format: LogFormat, colour: bool, writer: W) -> Result<impl Subscriber, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let levels: Targets = level.parse()?;
    let lines = fmt::layer().with_writer(Safe { writer, colour }).with_ansi(colour);
    let layer = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    Ok(registry().with(layer.with_filter(levels)))
}

/// What is logged names what others have sent: nothing of it steers the terminal.
struct Safe<W> {
    writer: W,
    colour: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Safe<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        let writer = self.writer.make_writer();
        if self.colour { Escaping::with_colours(writer) } else { Escaping::new(writer) }
    }
}

/// From now on a panic in any thread is logged, and ends the process with [`ExitStatus::Bug`].
///
/// The panics of threads whose connection to another process broke are told as the loss of that process.
/// A worker that panics would leave the others waiting for it for ever, so nothing is unwound and no thread survives.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        ending::look_at_panic(std::thread::current().name(), message);
        // Libraries panic where they may have no thread; a run makes sure at its start that it may, but others take theirs.
        if message.contains("(os error 11)") || message.contains("code: 11, kind: WouldBlock") {
            tracing::error!("no thread can be started: raise the limit (ulimit -u, TasksMax=, pids.max): {message}");
            std::process::exit(ExitStatus::Unavailable as i32);
        }
        report(panic);
        std::process::exit(ExitStatus::Bug as i32);
    }));
}

fn report(panic: &PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map_or_else(String::new, ToString::to_string);
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    if tracing::enabled!(Level::ERROR) {
        tracing::error!(location, thread, "a bug in Tidemark: {what}");
    } else {
        eprintln!("error: a bug in Tidemark: {what} (at {location}, thread {thread})");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(level, format, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_have_stable_fields() {
        let text = logged("info", LogFormat::Json, || tracing::info!(epoch = 7, "published"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields: Vec<&String> = line.as_object().unwrap().keys().collect();
        let mut expected = ["timestamp", "level", "message", "epoch", "target"];
        expected.sort_unstable();
        assert!(expected.iter().all(|field| line.get(field).is_some()) && fields.len() == expected.len(), "{text}");
        assert_eq!(
            (&line["level"], &line["message"], &line["epoch"]),
            (&"INFO".into(), &"published".into(), &7.into())
        );
    }

    #[test]
    fn the_filter_chooses_by_level_and_module() {
        let events = || {
            tracing::info!("quiet");
            tracing::debug!(target: "other", "detail");
        };
        let text = logged("warn,other=debug", LogFormat::Human, events);
        assert!(text.contains("detail") && !text.contains("quiet") && !text.contains('\u{1b}'), "{text}");
    }

    const CHILD: &str = "TIDEMARK_TEST_PANICS";

    /// The child of the test below; does nothing when run as a test itself.
    #[test]
    fn panicking_child() {
        let Some(format) = std::env::var_os(CHILD) else { return };
        exit_on_panic();
        if format == "json" {
            install("info", LogFormat::Json).unwrap();
        }
        let _ = std::thread::Builder::new().name("w1".to_owned()).spawn(|| panic!("lost a row")).unwrap().join();
    }

    #[test]
    fn a_panic_in_any_thread_is_told_and_ends_with_70() {
        for format in ["json", "none"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "logging::tests::panicking_child", "--nocapture"]).env(CHILD, format);
            let output = child.output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(70), "{text}");
            assert!(text.contains("a bug in Tidemark: lost a row") && text.contains("w1"), "{text}");
            assert_eq!(text.contains("\"level\":\"ERROR\""), format == "json", "{text}");
        }
    }
}
