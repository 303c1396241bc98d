//! Which files of a keyed table can hold which keys.
//!
//! Files that MERGE writes hold a range of keys each, and their statistics tell it, so an epoch that touches few keys of a
//! large table rewrites few of its files. Nothing relies on that: files whose ranges overlap, because somebody else wrote
//! them, or whose ranges nobody knows, are one group and taken together.

use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;

use crate::log::LiveFile;

/// Files that can hold keys from `low` to `high`, and nothing outside of them; everything, where neither is known.
#[derive(Debug)]
pub(super) struct Group<F> {
    pub(super) files: Vec<F>,
    /// Bounds of the first key column; the statistics may have shortened them, which makes the range wider, never narrower.
    bounds: Option<(String, String)>,
}

/// The bounds of the first key column of a file, by its statistics.
pub(super) fn bounds(file: &LiveFile, column: &str) -> Option<(String, String)> {
    let bound = |which: &str| file.statistics[which][column].as_str().map(str::to_owned);
    bound("minValues").zip(bound("maxValues"))
}

/// Groups files whose ranges overlap; the groups are in the order of their ranges.
pub(super) fn groups<F>(files: Vec<(F, Option<(String, String)>)>) -> Vec<Group<F>> {
    if files.iter().any(|(_, bounds)| bounds.is_none()) {
        return vec![Group { files: files.into_iter().map(|(file, _)| file).collect(), bounds: None }];
    }
    let mut files: Vec<_> = files.into_iter().filter_map(|(file, bounds)| Some((bounds?, file))).collect();
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut groups: Vec<Group<F>> = Vec::new();
    for ((low, high), file) in files {
        match groups.last_mut() {
            Some(Group { files, bounds: Some((_, end)) }) if low <= *end => {
                files.push(file);
                if high > *end {
                    *end = high;
                }
            }
            _ => groups.push(Group { files: vec![file], bounds: Some((low, high)) }),
        }
    }
    groups
}

/// Deals sorted rows out to groups: each group with the range of rows whose place it is. Keys between two groups go to the
/// lower one. A table without files is one group without files.
pub(super) fn deal<F>(mut groups: Vec<Group<F>>, rows: &RecordBatch, column: &str) -> Vec<(Group<F>, Range<usize>)> {
    if groups.is_empty() {
        groups.push(Group { files: vec![], bounds: None });
    }
    let keys = rows.column_by_name(column).filter(|keys| *keys.data_type() == DataType::Utf8);
    let keys: Option<&StringArray> = keys.map(|keys| keys.as_string());
    let mut starts: Vec<usize> = vec![0];
    starts.extend(groups.iter().skip(1).map(|group| match (keys, &group.bounds) {
        (Some(keys), Some((low, _))) => first_at_or_after(keys, low),
        _ => rows.num_rows(),
    }));
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([rows.num_rows()]).collect();
    groups.into_iter().zip(starts.into_iter().zip(ends).map(|(start, end)| start..end)).collect()
}

fn first_at_or_after(keys: &StringArray, bound: &str) -> usize {
    let (mut low, mut high) = (0, keys.len());
    while low < high {
        let middle = low.midpoint(high);
        if keys.value(middle) < bound { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    fn file(name: &'static str, low: &str, high: &str) -> (&'static str, Option<(String, String)>) {
        (name, Some((low.to_owned(), high.to_owned())))
    }

    fn dealt(
        files: Vec<(&'static str, Option<(String, String)>)>,
        keys: &[&str],
    ) -> Vec<(Vec<&'static str>, Vec<String>)> {
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
        let rows = RecordBatch::try_from_iter([("key", column)]).unwrap();
        let keys = |range: Range<usize>| keys[range].iter().map(|key| (*key).to_owned()).collect();
        deal(groups(files), &rows, "key").into_iter().map(|(group, range)| (group.files, keys(range))).collect()
    }

    fn owned(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn each_key_goes_to_the_range_that_holds_it_or_lies_below_it() {
        let files = vec![file("2", "k", "p"), file("1", "c", "f")];
        let all = dealt(files, &["a", "c", "f", "g", "k", "p", "z"]);
        assert_eq!(all, [(vec!["1"], owned(&["a", "c", "f", "g"])), (vec!["2"], owned(&["k", "p", "z"]))]);
    }

    #[test]
    fn ranges_that_touch_are_taken_together() {
        let files = vec![file("3", "q", "r"), file("1", "a", "f"), file("2", "f", "k"), file("4", "c", "d")];
        assert_eq!(dealt(files, &["x"]), [(vec!["1", "4", "2"], vec![]), (vec!["3"], owned(&["x"]))]);
    }

    #[test]
    fn one_unknown_range_makes_all_files_one_group() {
        let files = vec![file("1", "a", "b"), ("2", None)];
        assert_eq!(dealt(files, &["x", "y"]), [(vec!["1", "2"], owned(&["x", "y"]))]);
        assert_eq!(dealt(vec![], &["x"]), [(vec![], owned(&["x"]))]);
    }
}
