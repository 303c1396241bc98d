//! The workflows, and the scripts that they call: what they name is there, and what they do is what the documents say.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use super::files::{at, list, path, text, word, words, yaml};

const WORKFLOWS: [&str; 2] = [".github/workflows/ci.yml", ".github/workflows/release.yml"];
const RELEASE: &str = WORKFLOWS[1];

/// Steps of all jobs of a workflow.
fn steps(workflow: &Value) -> Vec<&Value> {
    let jobs = at(workflow, "/jobs").as_object().unwrap();
    jobs.values().flat_map(|job| list(job, "/steps")).collect()
}

/// Command lines of all steps.
fn lines(workflow: &Value) -> Vec<&str> {
    let scripts = steps(workflow).into_iter().filter_map(|step| step.get("run"));
    scripts.flat_map(|script| script.as_str().unwrap().lines()).collect()
}

/// Scripts of the repository that a command line names.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c));
    words.filter(|word| word.starts_with(".ci/") || word.starts_with("packaging/"))
}

fn script(name: &str, args: &[&str]) -> Output {
    Command::new(path(name)).args(args).output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn workflows_call_scripts_that_are_there_and_do_nothing_of_their_own() {
    let mut called = Vec::new();
    for workflow in WORKFLOWS {
        let workflow = yaml(workflow);
        for line in lines(&workflow) {
            let ours = named(line).map(str::to_owned).collect::<Vec<_>>();
            let around = ["docker login ghcr.io ", "cargo install cargo-deb ", "printf "];
            assert!(!ours.is_empty() || around.iter().any(|known| line.starts_with(known)), "what does {line} do?");
            called.extend(ours);
        }
    }
    for name in &called {
        let mode = std::fs::metadata(path(name)).unwrap_or_else(|error| panic!("{name}: {error}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} cannot be executed");
    }
    for name in [".ci/run", "packaging/release/build", "packaging/release/image", "packaging/release/publish"] {
        assert!(called.iter().any(|script| script == name), "nobody calls {name}");
    }
}

#[test]
fn actions_are_named_by_their_hash_and_rights_are_given_one_by_one() {
    for name in WORKFLOWS {
        let workflow = yaml(name);
        assert_eq!(at(&workflow, "/permissions"), &serde_json::json!({ "contents": "read" }), "{name}");
        for action in steps(&workflow).into_iter().filter_map(|step| step.get("uses")) {
            let (_, hash) = action.as_str().unwrap().split_once('@').unwrap();
            assert!(hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}: {action}");
        }
    }
    // Only the job that runs nothing of what was built may sign and publish.
    for (name, job) in at(&yaml(RELEASE), "/jobs").as_object().unwrap() {
        let may = |what: &str| job.pointer(&format!("/permissions/{what}")).is_some_and(|right| right == "write");
        assert_eq!(["id-token", "attestations", "contents"].map(may), [name == "publish"; 3], "{name}");
    }
}

#[test]
fn a_tag_makes_a_release_for_both_architectures() {
    let release = yaml(RELEASE);
    assert_eq!(words(list(&release, "/on/push/tags")), ["v*"]);
    let built = list(&release, "/jobs/build/strategy/matrix/include");
    let built: Vec<(&str, &str)> = built.iter().map(|one| (word(one, "/target"), word(one, "/runner"))).collect();
    let expected = [("x86_64-unknown-linux-gnu", "ubuntu-22.04"), ("aarch64-unknown-linux-gnu", "ubuntu-22.04-arm")];
    assert_eq!(built, expected);
    assert_eq!(words(list(&release, "/jobs/image/strategy/matrix/runner")), expected.map(|(_, runner)| runner));
    assert_eq!(words(list(&release, "/jobs/publish/needs")), ["build", "image"]);
    assert_eq!(word(&release, "/jobs/publish/if"), "github.ref_type == 'tag'");
}

#[test]
fn a_tag_of_another_version_is_refused() {
    let version = script("packaging/release/version", &[]);
    assert_eq!(String::from_utf8(version.stdout).unwrap().trim(), env!("CARGO_PKG_VERSION"));
    for wrong in ["v999.0.0", env!("CARGO_PKG_VERSION"), ""] {
        let refused = script("packaging/release/version", &[wrong]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {said}");
        assert!(said.contains(wrong) && said.contains(concat!("expected v", env!("CARGO_PKG_VERSION"))), "{said}");
    }
}

#[test]
fn notes_of_a_release_are_what_the_changelog_says_of_that_version() {
    let notes = script("packaging/release/notes", &["Unreleased"]);
    let notes = String::from_utf8(notes.stdout).unwrap();
    assert!(notes.contains("\n### ") && notes.lines().all(|line| !line.starts_with("## ")), "{notes}");
    assert!(text("CHANGELOG.md").contains(notes.trim()));
    assert_eq!(script("packaging/release/notes", &["999.0.0"]).status.code(), Some(2));
}

#[test]
fn checksums_that_do_not_hold_stop_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let sums = || script("packaging/release/sums", &[folder.path().to_str().unwrap()]).status.code();
    // Of `1` and a line feed.
    let sum = "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865";
    let begin = || {
        put("a.tar.gz", "1\n");
        put("a.sha256", &format!("{sum}  a.tar.gz\n"));
    };
    begin();
    put("a.tar.gz", "2\n");
    assert_eq!(sums(), Some(1), "another file than was built");
    begin();
    put("b.deb", "1\n");
    assert_eq!(sums(), Some(2), "a file that nobody has summed up");
    begin();
    put("b.sha256", &format!("{sum}  b.deb\n"));
    assert_eq!(sums(), Some(0));
    let all = std::fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap();
    assert_eq!(all, format!("{sum}  a.tar.gz\n{sum}  b.deb\n"));
}

#[test]
fn the_documents_promise_the_library_that_is_checked() {
    let build = text("packaging/release/build");
    let glibc = build.lines().find_map(|line| line.strip_prefix("glibc=")).unwrap();
    assert!(text("docs/install.md").contains(&format!("glibc {glibc} or later")), "{glibc}");
}

#[test]
fn scripts_parse_in_bash() {
    let mut parsed = 0;
    for pattern in [".ci/*", "packaging/*/*"] {
        for file in glob::glob(path(pattern).to_str().unwrap()).unwrap().map(Result::unwrap) {
            let begins = std::fs::read_to_string(&file).is_ok_and(|text| text.starts_with("#!/usr/bin/env bash\n"));
            if begins {
                let output = Command::new("bash").arg("-n").arg(&file).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                parsed += 1;
            }
        }
    }
    assert!(parsed > 8, "{parsed}");
}
