//! Files that are compressed: which are, and how they are read as what they hold.

use std::io::{self, Read};
use std::path::Path;

use crate::source::{PartitionInfo, SourceError};

/// How the bytes of a file are packed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

/// Endings of packed files that can be read.
const PACKED: [(&str, Packing); 2] = [("gz", Packing::Gzip), ("zst", Packing::Zstd)];

/// Endings of packed files that cannot.
const UNREADABLE: [&str; 4] = ["bz2", "xz", "lz4", "zip"];

/// How a file is packed, by the ending of its name.
///
/// # Errors
///
/// It is packed in a way that is not known here.
pub(super) fn of(path: &Path, shown: &str) -> Result<Option<Packing>, SourceError> {
    if has_ending(path, &UNREADABLE) {
        let problem = "files that are compressed in this way are not read";
        let remedy = "pack it with gzip or zstd, or pipe it: xzcat FILE | tidemark run --input -";
        return Err(SourceError::usage(shown, problem, remedy));
    }
    Ok(PACKED.iter().find(|(ending, _)| has_ending(path, &[ending])).map(|(_, packing)| *packing))
}

/// The path without the ending that says how it is packed.
pub(super) fn unpacked_name(path: &Path) -> &Path {
    let packed = PACKED.iter().any(|(ending, _)| has_ending(path, &[ending]));
    path.file_stem().filter(|_| packed).map_or(path, Path::new)
}

/// Whether a path has one of these endings, in capitals or not.
pub(super) fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// What a packed input holds; several members or frames behind one another are one stream.
pub(super) struct Unpacked {
    inner: Box<dyn Read + Send>,
    /// It ended in the middle.
    pub(super) cut_short: bool,
}

impl Unpacked {
    pub(super) fn new(packing: Packing, packed: impl Read + Send + 'static) -> io::Result<Self> {
        let inner: Box<dyn Read + Send> = match packing {
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(packed)?),
        };
        Ok(Self { inner, cut_short: false })
    }
}

impl Read for Unpacked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.cut_short = true;
                Ok(0)
            }
            read => read,
        }
    }
}

/// The error of a packed input that cannot be unpacked.
pub(super) fn damaged(info: &PartitionInfo, error: &io::Error) -> Option<SourceError> {
    let kind = error.kind();
    let is = matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other);
    let problem = || format!("it cannot be decompressed: {error}");
    is.then(|| SourceError::unreachable(info.label(), problem(), "restore the file, or take it out of the input"))
}
