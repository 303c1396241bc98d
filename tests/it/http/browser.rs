//! The console in a real browser: it loads, goes along with the pipeline, and can be used by everybody.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::ask::Served;
use crate::program::{Case, Running, skipped, tidemark};

/// Chromium, driven from Node.js. Both end when this is dropped, since the standard input of the latter does.
struct Browser {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Browser {
    fn start() -> Option<Browser> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
        let answers =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
        let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|program| answers(program));
        let (Some(chromium), true, true) =
            (chromium, answers("node"), folder.join("node_modules/playwright-core").is_dir())
        else {
            let remedy = "no browser; install Node.js 20 and chromium, and run: npm ci --prefix tests/browser";
            assert!(std::env::var_os("CI").is_none(), "{remedy}");
            skipped(remedy);
            return None;
        };
        let path = Command::new("sh").args(["-c", &format!("command -v {chromium}")]).output().unwrap().stdout;
        let path = String::from_utf8(path).unwrap();
        let mut command = Command::new("node");
        command.current_dir(&folder).args(["console.js", path.trim()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Browser { child, stdin, stdout })
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        let done = answer.trim_end().strip_prefix("done").unwrap_or_else(|| panic!("{command}: {answer}"));
        done.trim().to_owned()
    }

    fn open(&mut self, scheme: &str, width: u32, served: &Served) {
        self.tell(&format!("open {scheme} {width} http://{}/", served.address));
    }

    fn until(&mut self, expression: &str) {
        self.tell(&format!("until {expression}"));
    }

    /// Nobody is kept from using the page as it is now, and the browser has nothing to complain of.
    fn sound(&mut self) {
        assert_eq!(self.tell("axe"), "");
        assert_eq!(self.tell("errors"), "");
    }

    /// A picture, where somebody wants to look at it.
    fn picture(&mut self, name: &str) {
        if let Some(folder) = std::env::var_os("TIDEMARK_PICTURES") {
            std::fs::create_dir_all(&folder).unwrap();
            self.tell(&format!("shot {}", Path::new(&folder).join(name).display()));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

const RUNNING: &str = "document.getElementById('state').textContent === 'running'";
const LIVE: &str = "--rate 400 --users 60 --trigger 200ms --workers 1 --checkpoint-interval 1s --watermark-delay 1h \
                    --set generator.invalid=0.05 --set generator.duplicates=0.05 --set generator.partitions=4";

fn text(id: &str) -> String {
    format!("document.getElementById('{id}').textContent")
}

#[test]
fn the_console_goes_along_with_the_pipeline_and_survives_its_restart() {
    let Some(mut browser) = Browser::start() else { return };
    let case = Case::new();
    let served = Served::start(&case, LIVE, &[]);
    browser.open("light", 1_440, &served);
    browser.until(RUNNING);
    // It goes on by itself, and shows what was rejected.
    browser.until(&format!("window.before ??= {0}, {0} !== window.before", text("t-accepted")));
    browser.until("document.querySelectorAll('#quarantine .payload').length >= 5");
    browser.until("[...document.querySelectorAll('#rules tbody tr')].some((row) => /R120/.test(row.textContent))");
    browser.until("document.querySelector('#flow [data-stage=published] .epoch').textContent !== 'finished epoch 0'");
    browser.until("document.querySelectorAll('#chart-throughput path.s0').length === 1");
    browser.until("document.querySelectorAll('#channels tbody td').length === 6");
    browser.until("/epoch [0-9]/.test(document.getElementById('checkpoints').textContent)");
    browser.sound();
    browser.picture("light.png");
    // The chart can be read without a pointer.
    browser.tell("until document.querySelector('#chart-throughput svg').focus() ?? true");
    browser.tell("press ArrowLeft");
    browser.until("document.querySelectorAll('#chart-throughput .cross').length === 1");
    browser.tell("press Escape");
    // The program ends and another one takes its place: the page finds it by itself.
    browser.until(&format!("(window.epoch = {}, true)", text("metrics-note")));
    served.running.signal("INT");
    let address = served.address.clone();
    served.running.ended().well();
    browser.until("document.body.classList.contains('stale')");
    let args = format!("run --output out --console {address} {LIVE}");
    let again = Served::of(Running::start(tidemark(case.root(), args.split_whitespace()).stdin(Stdio::null())));
    browser.until(&format!("{RUNNING} && !document.body.classList.contains('stale')"));
    browser.until("/^epoch/.test(document.querySelector('#checkpoints dd:last-child').textContent)");
    let errors = browser.tell("errors");
    // While nobody listened, the browser said that much by itself.
    assert!(errors.split(" | ").all(|error| error.is_empty() || error.contains("net::ERR_")), "{errors}");
    for (scheme, width, name) in
        [("dark", 1_440, "dark.png"), ("light", 390, "narrow.png"), ("dark", 390, "narrow-dark.png")]
    {
        browser.open(scheme, width, &again);
        browser.until(RUNNING);
        browser.until("document.querySelectorAll('#quarantine .payload').length >= 2");
        browser.until("document.documentElement.scrollWidth <= window.innerWidth");
        browser.sound();
        browser.picture(name);
    }
    again.running.signal("INT");
    again.running.ended().well();
}

#[test]
fn the_console_shows_what_holds_the_watermark_back() {
    let Some(mut browser) = Browser::start() else { return };
    let case = Case::new();
    let served = Served::held_back(&case);
    browser.open("light", 390, &served);
    let shown = "by partition slow\\.ndjson for .*, 30 min 9 s behind the newest event";
    browser.until(&format!("/{shown}/.test(document.getElementById('times').textContent)"));
    browser.until("document.documentElement.scrollWidth <= window.innerWidth");
    browser.sound();
    browser.picture("held-back.png");
}

#[test]
fn the_console_shows_where_epochs_wait_and_what_is_rejected() {
    let Some(mut browser) = Browser::start() else { return };
    let case = Case::new();
    let served = Served::start(&case, LIVE, &[("FAILPOINTS", "before-table=8*off->return")]);
    for (scheme, name) in [("light", "stuck.png"), ("dark", "stuck-dark.png")] {
        browser.open(scheme, 1_440, &served);
        browser.until("document.querySelector('#flow .stuck')?.dataset.stage === 'published'");
        browser.until("/no epoch is published/.test(document.getElementById('reasons').textContent)");
        browser.sound();
        browser.picture(name);
    }
    drop(served);
    let case = Case::new();
    let many = LIVE.replace("invalid=0.05", "invalid=0.6");
    let served = Served::start(&case, &many, &[]);
    browser.open("light", 1_440, &served);
    browser.until("document.getElementById('tile-rejected').classList.contains('alarm')");
    browser.until("document.querySelectorAll('#quarantine .payload').length >= 30");
    browser.sound();
    browser.picture("rejections.png");
}

#[test]
fn the_console_asks_for_the_token() {
    let Some(mut browser) = Browser::start() else { return };
    let case = Case::new();
    let served = Served::start(&case, LIVE, &[("TIDEMARK__HTTP__TOKEN", "correct-horse-battery")]);
    browser.open("light", 900, &served);
    browser.until("!document.getElementById('login').hidden");
    assert_eq!(browser.tell("axe"), "");
    browser.tell("fill #token wrong-horse-battery");
    browser.until("/not the token/.test(document.getElementById('login-problem').textContent)");
    browser.tell("fill #token correct-horse-battery");
    browser.until(RUNNING);
    // It is known for as long as the window is open.
    browser.tell("reload");
    browser.until(RUNNING);
}
