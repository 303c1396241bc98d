//! What the log says of a file, so that readers can pass over it: rows, least and greatest values, nulls.
//!
//! The forms are those of the Delta protocol, "Per-file Statistics": long texts are cut off so that the bounds only get wider,
//! and instants have milliseconds, rounded outwards.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::kernels::aggregate::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

/// Characters of a text that are kept.
const TEXT_CHARS: usize = 32;

/// The greatest character.
const LAST_CHAR: char = char::MAX;

/// The statistics of a file with these rows, of the columns named.
pub(crate) fn of(batches: &[RecordBatch], columns: &[String]) -> Value {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for name in columns {
        let arrays: Vec<&dyn Array> =
            batches.iter().filter_map(|batch| batch.column_by_name(name)).map(AsRef::as_ref).collect();
        nulls.insert(name.clone(), arrays.iter().map(|array| array.null_count()).sum::<usize>().into());
        if let Some((low, high)) = bounds(&arrays) {
            least.insert(name.clone(), low);
            most.insert(name.clone(), high);
        }
    }
    json!({ "numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls })
}

fn bounds(arrays: &[&dyn Array]) -> Option<(Value, Value)> {
    match arrays.first()?.data_type() {
        DataType::Utf8 => {
            let texts = || arrays.iter().map(|array| array.as_string::<i32>());
            let (low, high) = (texts().filter_map(min_string).min()?, texts().filter_map(max_string).max()?);
            Some((cut_low(low).into(), cut_high(high).into()))
        }
        DataType::Int32 => {
            let numbers = || arrays.iter().map(|array| array.as_primitive::<Int32Type>());
            Some((numbers().filter_map(min).min()?.into(), numbers().filter_map(max).max()?.into()))
        }
        DataType::Int64 => {
            let numbers = || arrays.iter().map(|array| array.as_primitive::<Int64Type>());
            Some((numbers().filter_map(min).min()?.into(), numbers().filter_map(max).max()?.into()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let instants = || arrays.iter().map(|array| array.as_primitive::<TimestampMicrosecondType>());
            let (low, high) = (instants().filter_map(min).min()?, instants().filter_map(max).max()?);
            let up = high.checked_add(999)?;
            Some((in_milliseconds(low.div_euclid(1_000))?.into(), in_milliseconds(up.div_euclid(1_000))?.into()))
        }
        _ => None,
    }
}

fn in_milliseconds(ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A text that is not greater.
fn cut_low(text: &str) -> &str {
    text.char_indices().nth(TEXT_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// A text that is not less: cut off, and one greatest character behind it, which must be beyond what was cut off.
fn cut_high(text: &str) -> String {
    let mut rest = text.char_indices().skip(TEXT_CHARS).skip_while(|(_, next)| *next == LAST_CHAR);
    match rest.next() {
        Some((end, _)) => format!("{}{LAST_CHAR}", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn batch(texts: &[Option<&str>], number: i64) -> RecordBatch {
        let longs: ArrayRef = Arc::new(Int64Array::from(vec![number; texts.len()]));
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![1; texts.len()]));
        let times = TimestampMicrosecondArray::from(vec![number; texts.len()]).with_timezone("UTC");
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let times: ArrayRef = Arc::new(times);
        RecordBatch::try_from_iter([("text", texts), ("long", longs), ("int", ints), ("at", times)]).unwrap()
    }

    #[test]
    fn bounds_go_over_all_batches_and_nulls_are_counted() {
        let batches = [batch(&[Some("b"), None], 7), batch(&[Some("a"), Some("c")], -1_500)];
        let names: Vec<String> = ["text", "long", "int", "at"].map(str::to_owned).into();
        let found = of(&batches, &names);
        assert_eq!(found["numRecords"], 4);
        assert_eq!((&found["minValues"]["text"], &found["maxValues"]["text"]), (&json!("a"), &json!("c")));
        assert_eq!((&found["minValues"]["long"], &found["maxValues"]["long"]), (&json!(-1_500), &json!(7)));
        assert_eq!(found["nullCount"]["text"], 1);
        assert_eq!(found["minValues"]["at"], "1969-12-31T23:59:59.998Z", "rounded down");
        assert_eq!(found["maxValues"]["at"], "1970-01-01T00:00:00.001Z", "rounded up");
        let nothing = of(&[batch(&[None], 0)], &names[..1]);
        assert_eq!(nothing["minValues"], json!({}), "nulls alone have no bounds");
    }

    #[test]
    fn cut_texts_stay_bounds() {
        let long = "é".repeat(40);
        let last = format!("{}{LAST_CHAR}{LAST_CHAR}z", "x".repeat(TEXT_CHARS));
        for text in ["", "short", &long, &last, &LAST_CHAR.to_string().repeat(50), &"a".repeat(TEXT_CHARS + 1)] {
            let (low, high) = (cut_low(text), cut_high(text));
            assert!(low <= text && text <= high.as_str(), "{text:?} is not within {low:?} and {high:?}");
            assert!(low.chars().count() <= TEXT_CHARS);
            let found = of(&[batch(&[Some(text)], 0)], &["text".to_owned()]);
            assert_eq!((&found["minValues"]["text"], &found["maxValues"]["text"]), (&json!(low), &json!(high)));
        }
        assert!(cut_high(&long).chars().count() == TEXT_CHARS + 1);
    }
}
