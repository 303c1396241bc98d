//! Turns what the user named into partitions: files, directories, glob patterns and `-`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::input::Input;
use crate::source::{PartitionInfo, SourceError};

/// How standard input is named on the command line.
const STDIN: &str = "-";

/// Endings of the files that a directory stands for.
const ENDINGS: [&str; 2] = ["ndjson", "jsonl"];

/// Endings of files that hold no lines.
const COMPRESSED: [&str; 5] = ["gz", "zst", "bz2", "xz", "lz4"];

/// Partitions are ordered by this: file name, then absolute path.
type SortKey = (OsString, PathBuf);

/// All partitions that `inputs` stand for, in order.
pub(super) fn resolve(inputs: &[String]) -> Result<Vec<(PartitionInfo, Input)>, SourceError> {
    if inputs.is_empty() {
        let remedy = "name files, directories, glob patterns, or - for standard input";
        return Err(SourceError::usage("--input", "no input is given", remedy));
    }
    let mut found: Vec<(SortKey, PartitionInfo, Input)> = Vec::new();
    for input in inputs {
        if input == STDIN {
            let twice = found.iter().any(|(_, info, input)| matches!(input, Input::Stream(_)) && info.path.is_none());
            if twice {
                return Err(SourceError::usage(STDIN, "standard input is given twice", "give it once"));
            }
            let info = PartitionInfo { name: "stdin".into(), path: None, bytes: None };
            found.push((("stdin".into(), PathBuf::from(STDIN)), info, Input::Stream(Box::new(io::stdin()))));
        } else {
            for path in files_of(input)? {
                found.push(open(input, path)?);
            }
        }
    }
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut seen = std::collections::HashSet::new();
    found.retain(|((_, absolute), ..)| seen.insert(absolute.clone()));
    Ok(found.into_iter().map(|(_, info, input)| (info, input)).collect())
}

/// The files that one input stands for.
fn files_of(input: &str) -> Result<Vec<PathBuf>, SourceError> {
    let path = Path::new(input);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => files_in(input, path),
        Ok(_) => Ok(vec![path.to_owned()]),
        // Only what does not exist by that very name is a pattern: names with brackets are legal.
        Err(error) if error.kind() == io::ErrorKind::NotFound && input.contains(['*', '?', '[']) => matches_of(input),
        Err(error) => Err(SourceError::unavailable(input, "opened", error)),
    }
}

fn files_in(input: &str, directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let unreadable = |error| SourceError::unavailable(input, "listed", error);
    let mut files = Vec::new();
    let mut passed_over = 0_usize;
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_hidden(&path) || path.is_dir() {
            continue;
        }
        if has_ending(&path, &ENDINGS) {
            files.push(path);
        } else {
            passed_over += 1;
        }
    }
    if passed_over > 0 {
        tracing::info!(
            directory = input,
            files = passed_over,
            "files that do not end in .ndjson or .jsonl are not read"
        );
    }
    if files.is_empty() {
        let problem = "the directory holds no file that ends in .ndjson or .jsonl";
        let remedy = "name the files, or a pattern such as 'DIRECTORY/*.json'";
        return Err(SourceError::usage(input, problem, remedy));
    }
    Ok(files)
}

fn matches_of(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    // As in a shell: `*` stays within one directory and does not find hidden files.
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(pattern, options).map_err(|error| {
        SourceError::usage(pattern, format!("it is no glob pattern: {error}"), "use *, ?, [abc] and ** only")
    })?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| SourceError::unavailable(pattern, "searched", error.into()))?;
        if !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let remedy = "check it against the files, and quote it so that the shell leaves it alone";
        return Err(SourceError::usage(pattern, "the pattern matches no file", remedy));
    }
    Ok(files)
}

/// Checks that `path` can be read, so that a wrong name stops the run before it starts.
fn open(input: &str, path: PathBuf) -> Result<(SortKey, PartitionInfo, Input), SourceError> {
    let shown = if Path::new(input) == path { input.to_owned() } else { path.display().to_string() };
    if has_ending(&path, &COMPRESSED) {
        let remedy = "decompress it, for example with `zcat FILE | tidemark run --source file --input -`";
        return Err(SourceError::usage(shown, "compressed files are not read", remedy));
    }
    let unreadable = |error| SourceError::unavailable(&shown, "opened", error);
    let file = File::open(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let file_name = path.file_name().map_or_else(|| path.clone().into_os_string(), OsString::from);
    let name = file_name.to_string_lossy().into_owned();
    if metadata.is_file() {
        let absolute = fs::canonicalize(&path).map_err(unreadable)?;
        let info = PartitionInfo { name, path: Some(path.clone()), bytes: Some(metadata.len()) };
        return Ok(((file_name, absolute), info, Input::File { path, bytes: metadata.len() }));
    }
    // A named pipe, a process substitution or a device. These have no canonical path, and can be opened only once.
    let info = PartitionInfo { name, path: Some(path.clone()), bytes: None };
    Ok(((file_name, path), info, Input::Stream(Box::new(file))))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}
