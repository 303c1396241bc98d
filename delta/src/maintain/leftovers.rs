//! Temporary files that killed processes leave on a local disk. Object stores drop unfinished uploads by themselves.

use std::path::Path;
use std::time::SystemTime;

use deltalake::DeltaResult;

use crate::disk::is_upload;

/// Deletes the temporary files of a local table, and of its log, that were last written before `expired`.
pub(super) fn delete(table: &Path, expired: SystemTime) -> DeltaResult<usize> {
    let mut deleted = 0;
    for directory in [table.join("_delta_log"), table.to_owned()] {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() && is_temporary(&entry.path()) && metadata.modified()? < expired {
                std::fs::remove_file(entry.path())?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// The store writes `NAME#1` and links it to `NAME`; it never lists such names, so only the file system shows them.
fn is_temporary(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let staged = name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    staged || is_upload(name) || (name.starts_with("_commit_") && name.ends_with(".tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_names_match() {
        for name in ["00000000000000000007.json#1", "part-0.zstd.parquet#12", "_commit_ab.json.tmp", "_upload_7_1.tmp"]
        {
            assert!(is_temporary(Path::new(name)), "{name}");
        }
        for name in ["00000000000000000007.json", "part-0.zstd.parquet", "part#x.parquet", "_last_checkpoint"] {
            assert!(!is_temporary(Path::new(name)), "{name}");
        }
    }
}
