//! Finds out what `tidemark --version` says of a build: commit, target, profile, features and compiler.
//!
//! The commit is what `TIDEMARK_COMMIT` says, for builds from sources without their history: `HASH` or `HASH DATE`. Else
//! git is asked, and without git it is `unknown`. This runs again when the commit that is checked out changes, and not
//! with every file that is edited, since all of the program is built again after it: so `-dirty` tells of the tree as it
//! was at the first build of a commit.

use std::path::Path;
use std::process::Command;

const UNKNOWN: &str = "unknown";

/// What a program prints, or nothing where it is missing or fails.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// A variable, which counts as missing where it is empty: an argument of a container's build has no other way to be so.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Names the files that change when another commit is checked out. In a worktree `.git` is a file, so git says where they
/// are. Those that are not there are left out: Cargo takes a missing file for a changed one.
fn watch_head() {
    let mut names = vec!["HEAD".to_owned(), "logs/HEAD".to_owned()];
    if let Some(branch) = said("git", &["symbolic-ref", "--quiet", "HEAD"]) {
        names.extend([branch, "packed-refs".to_owned()]);
    }
    let paths = names.iter().filter_map(|name| said("git", &["rev-parse", "--git-path", name]));
    for path in paths.filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
}

/// Hash and date of the commit that is checked out; the hash ends in `-dirty` where a tracked file has changed since.
fn checked_out() -> Option<String> {
    // What is unpacked somewhere below another repository is no part of it.
    if !Path::new(".git").exists() {
        return None;
    }
    watch_head();
    let commit = said("git", &["log", "-1", "--abbrev=9", "--format=%h %cs"])?;
    let (hash, date) = commit.split_once(' ')?;
    // Without a lock: others may work in this tree meanwhile.
    let changes = said("git", &["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])?;
    Some(format!("{hash}{} {date}", if changes.is_empty() { "" } else { "-dirty" }))
}

/// The features that are on, as Cargo tells of them. That they are the default is none of them.
fn features() -> String {
    let named = std::env::vars().filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()));
    let mut named: Vec<String> = named.filter(|name| name != "default").map(|name| name.replace('_', "-")).collect();
    named.sort();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TIDEMARK_COMMIT");
    let commit = variable("TIDEMARK_COMMIT").or_else(checked_out).unwrap_or_else(|| UNKNOWN.to_owned());
    let compiler = variable("RUSTC").unwrap_or_else(|| "rustc".to_owned());
    let compiler = said(&compiler, &["--version"]);
    let compiler = compiler.as_deref().map_or(UNKNOWN, |version| version.strip_prefix("rustc ").unwrap_or(version));
    let told = |name: &str| variable(name).unwrap_or_else(|| UNKNOWN.to_owned());
    let facts = [
        ("COMMIT", commit.as_str()),
        ("TARGET", &told("TARGET")),
        ("PROFILE", &told("PROFILE")),
        ("FEATURES", &features()),
        ("RUSTC", compiler),
    ];
    for (name, value) in facts {
        println!("cargo:rustc-env=TIDEMARK_BUILD_{name}={value}");
    }
}
