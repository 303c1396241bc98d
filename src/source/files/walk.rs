//! Finds files: those in a folder and the folders below it, and those that match a pattern.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

use super::packing::{has_ending, unpacked_name};
use crate::source::SourceError;

/// Endings of the files that a directory stands for, before those of packed files.
const ENDINGS: [&str; 2] = ["ndjson", "jsonl"];

/// What makes a pattern of a path.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// A file that an input stands for.
pub(super) struct Below {
    pub(super) path: PathBuf,
    /// What tables call it: its path below the folder that was named.
    pub(super) name: String,
    /// Found through a symbolic link.
    pub(super) linked: bool,
    /// Named itself, not found.
    pub(super) named: bool,
}

impl Below {
    /// A file that was named itself.
    pub(super) fn named_itself(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { path: path.to_owned(), name, linked: false, named: true }
    }
}

/// Whether an input can be a pattern.
pub(super) fn is_pattern(input: &str) -> bool {
    input.contains(WILDCARDS)
}

/// The files in a directory and all below it. What begins with `.` or `_` is passed over, files and folders, and so are
/// files of other endings, and links that lead out of it. `name` is what its own path adds to theirs.
pub(super) fn directory(input: &str, path: &Path, name: &str) -> Result<Vec<Below>, SourceError> {
    let inside = Inside::of(path).map_err(|error| SourceError::unavailable(input, "listed", error))?;
    let (seen, found, links) = (HashSet::new(), Vec::new(), VecDeque::new());
    let mut walk = Walk { input, inside, seen, found, links, passed_over: 0 };
    walk.list(path, name, false)?;
    // Folders that are links come last: who can be found by his own name is known by it.
    while let Some((path, name)) = walk.links.pop_front() {
        walk.list(&path, &name, true)?;
    }
    if walk.passed_over > 0 {
        tracing::info!(
            directory = input,
            files = walk.passed_over,
            "files that do not end in .ndjson or .jsonl (or that and .gz or .zst) are not read"
        );
    }
    Ok(walk.found)
}

/// A folder, and so what a link in it may lead to. Whoever may put a link there may not be one who may read what it leads to:
/// bodies that are no events are quoted in the quarantine.
struct Inside(PathBuf);

impl Inside {
    fn of(folder: &Path) -> io::Result<Inside> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        fs::canonicalize(folder).map(Inside)
    }

    /// Whether a link stays in it. One that leads nowhere does: that it does is told where it is opened.
    fn holds(&self, link: &Path) -> bool {
        let inside = fs::canonicalize(link).map_or(true, |target| target.starts_with(&self.0));
        if !inside {
            let path = link.display();
            tracing::warn!(%path, "passed over, since it links out of the input: name what it leads to itself to have it read");
        }
        inside
    }
}

struct Walk<'a> {
    input: &'a str,
    inside: Inside,
    /// Folders that have been listed, so that links lead into no circle.
    seen: HashSet<PathBuf>,
    found: Vec<Below>,
    links: VecDeque<(PathBuf, String)>,
    passed_over: usize,
}

impl Walk<'_> {
    fn list(&mut self, path: &Path, name: &str, linked: bool) -> Result<(), SourceError> {
        let mut folders = vec![(path.to_owned(), name.to_owned())];
        while let Some((folder, below)) = folders.pop() {
            let listed = fs::canonicalize(&folder).and_then(|real| {
                if !self.seen.insert(real) {
                    return Ok(Vec::new());
                }
                fs::read_dir(&folder)?.collect()
            });
            let mut entries: Vec<DirEntry> = listed.map_err(|error| self.unlistable(&folder, error))?;
            entries.sort_by_key(DirEntry::file_name);
            for entry in entries {
                let (path, file_name) = (entry.path(), entry.file_name());
                if is_hidden(&file_name) {
                    continue;
                }
                let name = if below.is_empty() { String::new() } else { format!("{below}/") };
                let name = name + &file_name.to_string_lossy();
                let kind = entry.file_type().map_err(|error| self.unlistable(&path, error))?;
                if kind.is_symlink() && !self.inside.holds(&path) {
                    continue;
                }
                if kind.is_dir() {
                    folders.push((path, name));
                } else if kind.is_symlink() && path.is_dir() {
                    self.links.push_back((path, name));
                } else {
                    self.file(path, name, linked || kind.is_symlink());
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, name: String, linked: bool) {
        if has_ending(unpacked_name(&path), &ENDINGS) {
            self.found.push(Below { path, name, linked, named: false });
        } else {
            self.passed_over += 1;
        }
    }

    fn unlistable(&self, path: &Path, error: io::Error) -> SourceError {
        let shown = if path == Path::new(self.input) { self.input.to_owned() } else { path.display().to_string() };
        SourceError::unavailable(shown, "listed", error)
    }
}

/// The files that match a pattern, and those below folders that do.
pub(super) fn matches(pattern: &str) -> Result<Vec<Below>, SourceError> {
    let no_pattern =
        |error| SourceError::usage(pattern, format!("it is no glob pattern: {error}"), "use *, ?, [abc] and ** only");
    // As a whole it says more of what is wrong.
    Pattern::new(pattern).map_err(no_pattern)?;
    let is_fixed = |part: &&OsStr| !is_pattern(&part.to_string_lossy());
    let folder = without_dots(Path::new(pattern)).take_while(is_fixed).collect::<PathBuf>();
    let parts = without_dots(Path::new(pattern)).skip_while(is_fixed).map(|part| Part::of(&part.to_string_lossy()));
    let parts = parts.collect::<Result<Vec<Part>, _>>().map_err(no_pattern)?;
    let unsearchable = |error| SourceError::unavailable(pattern, "searched", error);
    let inside = match Inside::of(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        inside => inside.map_err(unsearchable)?,
    };
    let mut search = Search { parts: &parts, inside, seen: HashSet::new(), found: Vec::new() };
    search.below(&folder, "", 0, false).map_err(unsearchable)?;
    let mut found = Vec::new();
    for mut below in search.found {
        if below.path.as_os_str().is_empty() {
            below.path = PathBuf::from(".");
        }
        if !below.path.is_dir() {
            found.push(below);
        } else if !below.path.file_name().is_some_and(is_hidden) || below.name.is_empty() {
            found.extend(directory(pattern, &below.path, &below.name)?);
        }
    }
    Ok(found)
}

/// A part of a pattern, between two slashes.
enum Part {
    /// `**`: any number of folders, none that begin with a dot.
    Folders,
    /// A name without wildcards.
    Named(String),
    /// As in a shell: what begins with a dot is only found by a dot.
    Matching(Pattern),
}

impl Part {
    fn of(text: &str) -> Result<Part, PatternError> {
        Ok(match text {
            "**" => Part::Folders,
            name if !is_pattern(name) => Part::Named(name.to_owned()),
            pattern => Part::Matching(Pattern::new(pattern)?),
        })
    }
}

const AS_IN_A_SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Looks for what the parts of a pattern lead to, by no link out of the folder that it begins in.
struct Search<'a> {
    parts: &'a [Part],
    inside: Inside,
    /// Folders below which the parts from a place on have been looked for, so that links lead into no circle.
    seen: HashSet<(PathBuf, usize)>,
    found: Vec<Below>,
}

impl Search<'_> {
    /// Looks below a folder for the parts from `at` on. `name` is what its own path adds to names, `linked` whether a link led
    /// there.
    fn below(&mut self, folder: &Path, name: &str, at: usize, linked: bool) -> io::Result<()> {
        let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Some(part) = self.parts.get(at) else {
            let (path, name) = (folder.to_owned(), name.to_owned());
            self.found.push(Below { path, name, linked, named: false });
            return Ok(());
        };
        if !listed.is_dir() || !self.seen.insert((fs::canonicalize(listed)?, at)) {
            return Ok(());
        }
        if let Part::Folders = part {
            self.below(folder, name, at + 1, linked)?;
            // A folder stands for all below it.
            if at + 1 == self.parts.len() {
                return Ok(());
            }
        }
        let mut names: Vec<OsString> = match part {
            Part::Named(name) => vec![name.into()],
            _ => fs::read_dir(listed)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?,
        };
        names.sort_unstable();
        for found in names {
            let (path, text) = (folder.join(&found), found.to_string_lossy());
            let (leads_on, next) = match part {
                Part::Folders => (!text.starts_with('.') && path.is_dir(), at),
                Part::Named(_) => (path.exists(), at + 1),
                Part::Matching(pattern) => (pattern.matches_with(&text, AS_IN_A_SHELL), at + 1),
            };
            let is_link = leads_on && path.is_symlink();
            if leads_on && (!is_link || self.inside.holds(&path)) {
                let name = if name.is_empty() { text.into_owned() } else { format!("{name}/{text}") };
                self.below(&path, &name, next, linked || is_link)?;
            }
        }
        Ok(())
    }
}

/// The parts of a path, as patterns count them.
fn without_dots(path: &Path) -> impl Iterator<Item = &OsStr> + Clone {
    path.components().filter(|part| *part != Component::CurDir).map(Component::as_os_str)
}

/// Names that begin like this are of files that other programs keep beside their data.
fn is_hidden(name: &OsStr) -> bool {
    matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_'))
}
