//! The program as a child process: arguments and input in, output, log and status out.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A program that takes longer hangs; the slowest run of these tests takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(240);

/// The program that is run, where Cargo does not name it: it does so for tests alone.
pub(crate) static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// How a program ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}\n{}", self.status, self.stderr))
    }

    /// Status 0, and nothing in the log that somebody would have to look into.
    pub(crate) fn well(self) -> Ended {
        assert_eq!(self.code(), 0, "{}{}", self.stdout, self.stderr);
        self.quiet()
    }

    /// Fails on every line of the log that is a warning or an error.
    pub(crate) fn quiet(self) -> Ended {
        let alarming: Vec<&str> = self.stderr.lines().filter(|line| is_alarming(line)).collect();
        assert!(alarming.is_empty(), "unexpected warnings:\n{}", alarming.join("\n"));
        self
    }

    /// That status, with an error on standard error that holds each of `words`, nothing on standard output, and no
    /// panic.
    pub(crate) fn fails_with(self, status: i32, words: &[&str]) -> Ended {
        assert_eq!(self.code(), status, "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in:\n{}", self.stderr);
        }
        assert!(self.stdout.is_empty(), "{}", self.stdout);
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("bug in Tidemark"), "{}", self.stderr);
        self.quiet()
    }
}

/// Whether a line of the log, for people or JSON, is a warning or an error.
fn is_alarming(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    let human = line.starts_with(|c: char| c.is_ascii_digit()) && matches!(level, Some("WARN" | "ERROR"));
    // Streams in which everything happens have late events on purpose.
    let late = line.contains("watermark.warn_late_share");
    !late && (human || line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#))
}

/// Says that a test could not do its work here, past the harness, which shows nothing of tests that pass.
pub(crate) fn skipped(reason: &str) {
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
}

/// The program with the given arguments, in `directory`, and with none of this process's settings.
pub(crate) fn tidemark<A: AsRef<OsStr>>(directory: &Path, args: impl IntoIterator<Item = A>) -> Command {
    tidemark_in(&[], directory, args)
}

/// The same as an argument of another command, which comes first.
pub(crate) fn tidemark_in<A: AsRef<OsStr>>(
    around: &[&str],
    directory: &Path,
    args: impl IntoIterator<Item = A>,
) -> Command {
    // Only tests are told; other programs name one.
    const BUILT: Option<&str> = option_env!("CARGO_BIN_EXE_tidemark");
    let binary = BINARY.get_or_init(|| BUILT.expect("no program is named").into());
    let mut command = match around {
        [] => Command::new(binary),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary);
            command
        }
    };
    let settings = std::env::vars_os().map(|(key, _)| key);
    let of_ours = |key: &OsString| ["TIDEMARK__", "AZURE_"].iter().any(|ours| key.to_string_lossy().starts_with(ours));
    for key in settings.filter(of_ours) {
        command.env_remove(key);
    }
    command.current_dir(directory).args(args);
    // Many run at once, and nobody looks at them; those who do say where.
    if command.get_args().any(|verb| verb == "run" || verb == "cluster") {
        command.env("TIDEMARK__HTTP__LISTEN", "off");
    }
    command
}

/// Runs a command to its end, with `input` on its standard input.
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Ended {
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.take_stdin();
    std::thread::scope(|scope| {
        // A program that does not read to the end may close the pipe.
        scope.spawn(move || stdin.write_all(input));
        running.ended()
    })
}

enum Heard {
    Line(String),
    Stdout(Vec<u8>),
}

fn hear_lines(stderr: impl Read, lines: &Sender<Heard>) {
    let lossy = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
    let log = BufReader::new(stderr).split(b'\n').map_while(Result::ok);
    log.map_while(|line| lines.send(Heard::Line(lossy(line))).ok()).for_each(drop);
}

/// A program that still runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    heard: Receiver<Heard>,
    log: String,
    stdout: Vec<u8>,
}

impl Running {
    /// Starts a command whose standard input the caller has set up.
    pub(crate) fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, heard) = channel();
        let lines = sender.clone();
        std::thread::spawn(move || hear_lines(stderr, &lines));
        std::thread::spawn(move || {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).unwrap();
            sender.send(Heard::Stdout(all))
        });
        Running { child, heard, log: String::new(), stdout: Vec::new() }
    }

    /// The same with its standard output in a file, for those who read it before the end.
    pub(crate) fn start_into(command: &mut Command, out: std::fs::File) -> Running {
        let mut child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, heard) = channel();
        std::thread::spawn(move || hear_lines(stderr, &sender));
        Running { child, heard, log: String::new(), stdout: Vec::new() }
    }

    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits for a line of the log that holds `word`.
    pub(crate) fn await_line(&mut self, word: &str) {
        assert!(self.says(word), "ended before it said {word:?}:\n{}", self.log);
    }

    /// Waits for a line of the log that holds `word`, or for the end; `false` if it never says so.
    pub(crate) fn says(&mut self, word: &str) -> bool {
        self.says_times(1, word)
    }

    /// The same for so many lines.
    pub(crate) fn says_times(&mut self, times: usize, word: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.log.lines().filter(|line| line.contains(word)).count() < times {
            if !self.hear(deadline) {
                return false;
            }
        }
        true
    }

    /// Hears whatever the program says until `deadline`; `false` if it ends before.
    pub(crate) fn runs_until(&mut self, deadline: Instant) -> bool {
        loop {
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(heard) => self.take(heard),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> &str {
        &self.log
    }

    /// Kills it with SIGKILL, and returns its log; the end that it came to if it was faster.
    ///
    /// # Errors
    ///
    /// How it ended by itself.
    pub(crate) fn kill(mut self) -> Result<String, Ended> {
        let _ = self.child.kill();
        let ended = self.wait();
        if ended.status.signal() == Some(9) { Ok(ended.stderr) } else { Err(ended) }
    }

    /// Takes the next thing that is heard; `false` at the end.
    fn hear(&mut self, deadline: Instant) -> bool {
        match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(heard) => self.take(heard),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("no end in sight after {PATIENCE:?}:\n{}", self.log),
        }
        true
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Line(line) => {
                self.log.push_str(&line);
                self.log.push('\n');
            }
            Heard::Stdout(all) => self.stdout = all,
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        // It may have ended in the meantime.
        let _ = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).output().unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        self.wait()
    }

    fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        while self.hear(deadline) {}
        let status = self.child.wait().unwrap();
        let stdout = String::from_utf8_lossy(&self.stdout).into_owned();
        Ended { status, stdout, stderr: std::mem::take(&mut self.log) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for one test: input files in `in`, and as many outputs as it wants.
pub(crate) struct Case {
    directory: tempfile::TempDir,
}

impl Case {
    pub(crate) fn new() -> Case {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("in")).unwrap();
        Case { directory }
    }

    /// A case with one input file for each of `partitions`: `p0.ndjson`, `p1.ndjson`, ….
    pub(crate) fn of(partitions: &[Vec<String>]) -> Case {
        let case = Case::new();
        for (index, lines) in partitions.iter().enumerate() {
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            case.file(&format!("in/p{index}.ndjson"), text);
        }
        case
    }

    /// A case with a copy of everything in this one.
    pub(crate) fn copy(&self) -> Case {
        Case::copy_of(self.root())
    }

    /// A case with a copy of everything below a folder.
    pub(crate) fn copy_of(original: &Path) -> Case {
        let case = Case::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            std::fs::create_dir_all(case.root().join(&folder)).unwrap();
            for entry in original.join(&folder).read_dir().unwrap().map(Result::unwrap) {
                let name = folder.join(entry.file_name());
                if entry.path().is_dir() {
                    folders.push(name);
                } else {
                    std::fs::copy(entry.path(), case.root().join(name)).unwrap();
                }
            }
        }
        case
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Any verb.
    pub(crate) fn tidemark(&self, args: &[&str]) -> Ended {
        finish(&mut tidemark(self.root(), args), b"")
    }

    /// `run` over the files in `in` to `output`, which must go well.
    pub(crate) fn run(&self, output: &str, args: &[&str]) -> Ended {
        let fixed = ["run", "--input", "in", "--output", output].map(OsString::from);
        let args = fixed.into_iter().chain(args.iter().map(OsString::from));
        finish(&mut tidemark(self.root(), args), b"").well()
    }
}
