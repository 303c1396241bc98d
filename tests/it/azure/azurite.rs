//! Azurite, started once for all tests, and a container in it for each.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use crate::program::skipped;

/// The account of every emulator, and the key that Microsoft publishes for it.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The service. It ends when this process does, since its standard input ends then.
struct Azurite {
    _child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    port: u16,
    faulty: u16,
}

static AZURITE: LazyLock<Option<Azurite>> = LazyLock::new(start);

fn start() -> Option<Azurite> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/azure");
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if !node || !folder.join("node_modules/azurite").is_dir() {
        let remedy = "no Azurite; install Node.js 20 and run: npm ci --prefix tests/azure";
        assert!(std::env::var_os("CI").is_none(), "{remedy}");
        skipped(remedy);
        return None;
    }
    let mut command = Command::new("node");
    command.current_dir(folder).arg("azurite.js").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ports: Vec<u16> = line.split_whitespace().skip(1).map(|port| port.parse().unwrap()).collect();
    assert!(line.starts_with("ready ") && ports.len() == 2, "{line}");
    Some(Azurite { _child: child, pipes: Mutex::new((stdin, stdout)), port: ports[0], faulty: ports[1] })
}

impl Azurite {
    fn tell(&self, command: &str) -> String {
        let mut pipes = self.pipes.lock().unwrap();
        writeln!(pipes.0, "{command}").unwrap();
        let mut answer = String::new();
        pipes.1.read_line(&mut answer).unwrap();
        let answer = answer.trim().strip_prefix("done").unwrap_or_else(|| panic!("{command}: {answer}"));
        answer.trim().to_owned()
    }
}

/// How a request on the faulty way fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failing {
    /// 503.
    Throttled,
    /// 500.
    Failed,
    /// It is carried out, and the connection ends without a reply.
    Lost,
    /// It is not carried out, and never answered.
    Silent,
}

/// A container of its own.
pub(crate) struct Container {
    azurite: &'static Azurite,
    pub(crate) name: String,
    faulty: bool,
}

impl Container {
    /// A new one; `None`, with a word on standard error, where there is no Azurite.
    pub(crate) fn new() -> Option<Container> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let azurite = AZURITE.as_ref()?;
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        azurite.tell(&format!("create {name}"));
        Some(Container { azurite, name, faulty: false })
    }

    /// From now on, every so many requests fail.
    pub(crate) fn fails(&mut self, how: Failing, every: usize) {
        let kind = format!("{how:?}").to_lowercase();
        self.azurite.tell(&format!("faults {} {kind} {every}", self.name));
        self.faulty = true;
    }

    /// A shared access signature with these rights.
    pub(crate) fn shared_access(&self, rights: &str) -> String {
        self.azurite.tell(&format!("sas {} {rights}", self.name))
    }

    /// It is no more.
    pub(crate) fn delete(&self) {
        self.azurite.tell(&format!("delete {}", self.name));
    }

    /// URL of the blob service.
    pub(crate) fn endpoint(&self) -> String {
        let port = if self.faulty { self.azurite.faulty } else { self.azurite.port };
        format!("http://127.0.0.1:{port}")
    }

    /// What the program must know to come here, as environment variables.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [("TIDEMARK__AZURE__USE_EMULATOR", "true".to_owned()), ("TIDEMARK__AZURE__ENDPOINT", self.endpoint())]
    }

    /// A place in it, as `az://`.
    pub(crate) fn az(&self, path: &str) -> String {
        format!("az://{}/{path}", self.name)
    }

    /// A place in it, as `abfss://`.
    pub(crate) fn abfss(&self, path: &str) -> String {
        format!("abfss://{}@{ACCOUNT}.dfs.core.windows.net/{path}", self.name)
    }
}
