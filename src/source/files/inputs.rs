//! Turns what the user named into partitions: files, directories, glob patterns and `-`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tidemark_checkpoint::inbox::PARTITION;

use super::input::Input;
use super::packing;
use super::walk::{self, Below};
use crate::source::{PartitionInfo, SourceError};

/// How standard input is named on the command line.
const STDIN: &str = "-";

/// What tables call it.
pub(in crate::source) const STDIN_NAME: &str = "stdin";

/// An input that stands for no file.
pub(super) struct Absent {
    /// The name that its partition would have, if it is a file.
    pub(super) name: Option<String>,
    pub(super) error: SourceError,
}

/// What inputs stand for.
pub(super) struct Resolved {
    /// All partitions in order.
    pub(super) partitions: Vec<(PartitionInfo, Input)>,
    /// Inputs that are not there, or hold no file.
    pub(super) absent: Vec<Absent>,
}

/// A file that was found, and where it stands among the others: by file name, then by its absolute path, bytewise.
struct Candidate {
    file_name: OsString,
    absolute: PathBuf,
    linked: bool,
    info: PartitionInfo,
    input: Input,
}

impl Candidate {
    fn place(&self) -> (&[u8], &[u8]) {
        (self.file_name.as_encoded_bytes(), self.absolute.as_os_str().as_encoded_bytes())
    }
}

/// The partition of standard input.
pub(super) fn stdin_info(name: &str) -> PartitionInfo {
    PartitionInfo { name: name.to_owned(), path: None, bytes: None }
}

/// All partitions that `inputs` stand for.
pub(super) fn resolve(inputs: &[String]) -> Result<Resolved, SourceError> {
    if inputs.is_empty() {
        let remedy = "name files, directories, glob patterns, or - for standard input";
        return Err(SourceError::usage("--input", "no input is given", remedy));
    }
    let streams = inputs.iter().filter(|input| *input == STDIN).count();
    if streams > 0 {
        return standard_input(inputs.len(), streams);
    }
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for input in inputs {
        match below(input) {
            Ok(files) if files.is_empty() => absent.push(Absent { name: None, error: no_file(input) }),
            Ok(files) => {
                for file in files {
                    found.extend(candidate(input, file)?);
                }
            }
            Err(error) if error.cause().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound) => {
                let name = Path::new(input).file_name().map(|name| name.to_string_lossy().into_owned());
                absent.push(Absent { name, error });
            }
            Err(error) => return Err(error),
        }
    }
    let partitions = named_once(each_once(found))?;
    Ok(Resolved { partitions, absent })
}

fn standard_input(inputs: usize, streams: usize) -> Result<Resolved, SourceError> {
    if streams > 1 {
        return Err(SourceError::usage(STDIN, "standard input is given twice", "give it once"));
    }
    if inputs > 1 {
        let remedy = "read it by itself, or name files only";
        return Err(SourceError::usage(
            STDIN,
            "standard input stands alone, and other inputs are given beside it",
            remedy,
        ));
    }
    let partitions = vec![(stdin_info(STDIN_NAME), Input::Stream(Box::new(io::stdin())))];
    Ok(Resolved { partitions, absent: Vec::new() })
}

/// The files that one input stands for.
fn below(input: &str) -> Result<Vec<Below>, SourceError> {
    let path = Path::new(input);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => walk::directory(input, path, ""),
        Ok(_) => Ok(vec![Below::named_itself(path)]),
        // Only what does not exist by that very name is a pattern: names with brackets are legal.
        Err(error) if error.kind() == io::ErrorKind::NotFound && walk::is_pattern(input) => walk::matches(input),
        Err(error) => Err(SourceError::unavailable(input, "opened", error)),
    }
}

fn no_file(input: &str) -> SourceError {
    if Path::new(input).is_dir() {
        let problem = "the directory holds no file that ends in .ndjson or .jsonl (or that and .gz or .zst)";
        let remedy = "name the files, or a pattern such as 'DIRECTORY/*.json'";
        return SourceError::usage(input, problem, remedy);
    }
    let remedy = "check it against the files, and quote it so that the shell leaves it alone";
    SourceError::usage(input, "the pattern matches no file", remedy)
}

/// Checks that a file can be read, so that a wrong name stops the run before it starts. `None` for what was found and is
/// no file.
fn candidate(input: &str, Below { path, name, linked, named }: Below) -> Result<Option<Candidate>, SourceError> {
    let shown = if Path::new(input) == path { input.to_owned() } else { path.display().to_string() };
    let packing = packing::of(&path, &shown)?;
    let unreadable = |error| SourceError::unavailable(&shown, "opened", error);
    let metadata = fs::metadata(&path).map_err(unreadable)?;
    let file_name = path.file_name().map_or_else(|| path.clone().into_os_string(), OsString::from);
    let info = |bytes| PartitionInfo { name, path: Some(path.clone()), bytes };
    if metadata.is_file() {
        let metadata = File::open(&path).and_then(|file| file.metadata()).map_err(unreadable)?;
        let absolute = fs::canonicalize(&path).map_err(unreadable)?;
        let bytes = metadata.len();
        let info = info(Some(bytes));
        return Ok(Some(Candidate { file_name, absolute, linked, info, input: Input::File { path, bytes, packing } }));
    }
    if !named {
        let kind = if metadata.file_type().is_fifo() { "a named pipe" } else { "no regular file" };
        tracing::warn!(path = shown, "passed over, since it is {kind}: name it itself to have it read");
        return Ok(None);
    }
    // A named pipe, a process substitution or a device. These have no canonical path, and can be opened only once: by
    // the thread that reads, as opening a pipe waits for its writer.
    let info = info(None);
    Ok(Some(Candidate { file_name, absolute: path.clone(), linked, info, input: Input::Pipe { path, packing } }))
}

/// Each file once, in order. Of several ways to one file that without links counts, else the longest name.
fn each_once(mut found: Vec<Candidate>) -> Vec<Candidate> {
    found.sort_by(|a, b| {
        let way = |file: &Candidate| (file.linked, std::cmp::Reverse(file.info.name.len()));
        (&a.absolute, way(a), &a.info.name).cmp(&(&b.absolute, way(b), &b.info.name))
    });
    found.dedup_by(|later, first| later.absolute == first.absolute);
    found.sort_by(|a, b| a.place().cmp(&b.place()));
    found
}

/// Tables tell partitions apart by their names.
fn named_once(found: Vec<Candidate>) -> Result<Vec<(PartitionInfo, Input)>, SourceError> {
    let mut names: HashMap<String, String> = HashMap::new();
    for info in found.iter().map(|file| &file.info) {
        if info.name == PARTITION {
            let problem = format!("events that are fed again have the name {PARTITION} in all tables");
            return Err(SourceError::usage(info.label(), problem, "give it another name"));
        }
        if let Some(other) = names.insert(info.name.clone(), info.label()) {
            let problem = format!("tables would call it {:?}, as {other}", info.name);
            let remedy = "name a folder above both instead of each of them, or give one another name";
            return Err(SourceError::usage(info.label(), problem, remedy));
        }
    }
    Ok(found.into_iter().map(|file| (file.info, file.input)).collect())
}
