//! What `build.rs` finds out of a tree, and when Cargo runs it again. It is compiled alone and run in trees made for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::files::path;
use crate::program::skipped;

/// A tree with one commit, beside the compiled script.
struct Case {
    folder: tempfile::TempDir,
    script: PathBuf,
}

/// What the script printed: the commit, and the names of the files whose change calls it again.
#[derive(Debug, PartialEq)]
struct Told {
    commit: String,
    watched: Vec<String>,
}

impl Case {
    /// None where there is no git or no compiler.
    fn new() -> Option<Case> {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        compiler.args(["--edition", "2024", "-o"]).arg(&script).arg(path("build.rs"));
        if Command::new("git").arg("--version").output().is_err() || compiler.output().is_err() {
            skipped("there is no git, or no rustc");
            return None;
        }
        assert!(script.exists(), "build.rs is not compiled: {:?}", compiler.output());
        let case = Case { folder, script };
        std::fs::create_dir(case.tree()).unwrap();
        case.git(&["init", "--quiet", "--initial-branch=main"]);
        case.write("file", "1");
        case.git(&["add", "file"]);
        case.git(&["commit", "--quiet", "--message=first"]);
        Some(case)
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.tree().join(name), text).unwrap();
    }

    /// A command that knows nothing of who runs the tests.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b.invalid");
            command.env(format!("GIT_{who}_DATE"), "2026-11-30T12:00:00Z");
        }
        command
    }

    fn git(&self, args: &[&str]) -> String {
        let output = self.command("git", &self.tree()).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn told(&self, directory: &Path, given: Option<&str>) -> Told {
        let mut script = self.command(&self.script, directory);
        script.envs(given.map(|commit| ("TIDEMARK_COMMIT", commit)));
        let output = String::from_utf8(script.output().unwrap().stdout).unwrap();
        let values = |key: &str| output.lines().filter_map(|line| line.strip_prefix(key)).collect::<Vec<_>>();
        let [commit] = values("cargo:rustc-env=TIDEMARK_BUILD_COMMIT=")[..] else { panic!("{output}") };
        let watched = values("cargo:rerun-if-changed=").into_iter().filter(|name| *name != "build.rs");
        for name in watched.clone() {
            assert!(directory.join(name).exists(), "Cargo would never be done with {name}");
        }
        // Of where they lie, what comes after the repository's own folder.
        let short = |name: &str| name.rsplit_once(".git/").map_or(name, |(_, name)| name).to_owned();
        Told { commit: commit.to_owned(), watched: watched.map(short).collect() }
    }
}

#[test]
fn the_commit_is_that_of_the_tree_and_ends_in_dirty_where_a_tracked_file_has_changed() {
    let Some(case) = Case::new() else { return };
    let tree = case.tree();
    let hash = case.git(&["rev-parse", "--short=9", "HEAD"]);
    let clean = case.told(&tree, None);
    assert_eq!(clean.commit, format!("{hash} 2026-11-30"));
    assert_eq!(clean.watched, ["HEAD", "logs/HEAD", "refs/heads/main"]);
    case.write("another", "1");
    assert_eq!(case.told(&tree, None), clean, "a file that git does not know of");
    case.write("file", "2");
    assert_eq!(case.told(&tree, None).commit, format!("{hash}-dirty 2026-11-30"));
}

#[test]
fn a_worktree_has_a_branch_of_its_own() {
    let Some(case) = Case::new() else { return };
    case.git(&["worktree", "add", "--quiet", "-b", "other", "../other"]);
    let other = case.told(&case.folder.path().join("other"), None);
    assert_eq!(other.commit, case.told(&case.tree(), None).commit);
    assert_eq!(other.watched, ["worktrees/other/HEAD", "worktrees/other/logs/HEAD", "refs/heads/other"]);
}

#[test]
fn a_branch_is_also_watched_where_git_has_packed_it_and_no_branch_where_there_is_none() {
    let Some(case) = Case::new() else { return };
    case.git(&["pack-refs", "--all"]);
    assert_eq!(case.told(&case.tree(), None).watched, ["HEAD", "logs/HEAD", "packed-refs"]);
    case.git(&["checkout", "--quiet", "--detach"]);
    assert_eq!(case.told(&case.tree(), None).watched, ["HEAD", "logs/HEAD"]);
}

#[test]
fn without_git_the_commit_is_what_the_packager_says_or_unknown() {
    let Some(case) = Case::new() else { return };
    // Below a repository to which it does not belong.
    let unpacked = case.tree().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let unknown = Told { commit: "unknown".to_owned(), watched: Vec::new() };
    assert_eq!(case.told(&unpacked, None), unknown);
    assert_eq!(case.told(&unpacked, Some("")), unknown);
    assert_eq!(case.told(&unpacked, Some("abc123def 2026-11-30")).commit, "abc123def 2026-11-30");
    assert_eq!(case.told(&case.tree(), Some("abc123def")).commit, "abc123def", "it goes over what git says");
}
