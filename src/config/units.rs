//! Durations and sizes as people write them: `1h 30m`, `64 MiB`.
//!
//! Months and years are left out on purpose, since they have no fixed length. Every value is a whole number of
//! microseconds or bytes, and what [`format_duration`] and [`format_size`] write is read back as the same value.

use std::time::Duration;

/// Units of a duration from the longest to the shortest: accepted spellings, and length in microseconds.
const DURATION_UNITS: [(&[&str], u64); 7] = [
    (&["w", "week", "weeks"], 7 * 86_400_000_000),
    (&["d", "day", "days"], 86_400_000_000),
    (&["h", "hour", "hours"], 3_600_000_000),
    (&["m", "min", "minute", "minutes"], 60_000_000),
    (&["s", "sec", "second", "seconds"], 1_000_000),
    (&["ms"], 1_000),
    (&["us"], 1),
];

/// Units of a size and their length in bytes. Names in `i` are powers of 1024, the others of 1000.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Takes a whole number and the unit after it off the front of `text`: `"30m 5s"` gives 30, `"m"` and `" 5s"`.
fn split_term(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest))
}

/// Reads a duration: whole numbers with units, longest unit first and each unit once. `None` if it is none.
///
/// ```
/// # use std::time::Duration;
/// # use tidemark::config::units::parse_duration;
/// assert_eq!(parse_duration("1h 30m"), Some(Duration::from_secs(5400)));
/// assert_eq!(parse_duration("30m 1h"), None);
/// ```
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut units = DURATION_UNITS.iter();
    let mut micros = 0_u64;
    loop {
        let (number, name, tail) = split_term(rest)?;
        // Advances past the units it skips: that is what keeps them in order.
        let (_, length) = units.find(|(names, _)| names.contains(&name))?;
        micros = micros.checked_add(number.checked_mul(*length)?)?;
        rest = tail.trim_start();
        if rest.is_empty() {
            return Some(Duration::from_micros(micros));
        }
    }
}

/// Writes a duration, from days down to microseconds; what is below a microsecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut micros = micros(duration);
    let mut terms = Vec::new();
    for (unit, length) in
        [("day", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)]
    {
        match (micros / length, unit) {
            (0, _) => {}
            (1, "day") => terms.push("1 day".to_owned()),
            (number, "day") => terms.push(format!("{number} days")),
            (number, _) => terms.push(format!("{number}{unit}")),
        }
        micros %= length;
    }
    if terms.is_empty() { "0s".to_owned() } else { terms.join(" ") }
}

/// A duration in whole microseconds, the unit of event times; the greatest `i64` if it is longer than that.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a size: one whole number with a unit from `B` to `TiB`. `None` if it is none.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, name, rest) = split_term(text.trim())?;
    let (_, length) = SIZE_UNITS.iter().find(|(unit, _)| *unit == name)?;
    if rest.is_empty() { number.checked_mul(*length) } else { None }
}

/// Writes a size in the greatest power of 1024 that divides it.
pub fn format_size(bytes: u64) -> String {
    let binary = SIZE_UNITS.iter().filter(|(unit, _)| unit.contains('i'));
    match binary.into_iter().find(|(_, length)| bytes != 0 && bytes.is_multiple_of(*length)) {
        Some((unit, length)) => format!("{} {unit}", bytes / length),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, micros) in [
            ("500ms", 500_000),
            ("30s", 30_000_000),
            ("1 day", 86_400_000_000),
            ("2 hours", 7_200_000_000),
            ("15m", 900_000_000),
            ("1h 30m", 5_400_000_000),
            ("1h30m", 5_400_000_000),
            (" 2 weeks 1 d ", 15 * 86_400_000_000),
            ("250us", 250),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", " ", "5", "s", "-1s", "1.5h", "1 month", "30m 1h", "1s 1s", "1S", "1h,5m", "99999999999999 days"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_need_one_number_with_a_unit() {
        assert_eq!(parse_size("64 MiB"), Some(64 << 20));
        assert_eq!(parse_size("10MB"), Some(10_000_000));
        assert_eq!(parse_size("0 B"), Some(0));
        for text in ["", "64", "MiB", "64 mib", "1 MiB 1 KiB", "1.5 GiB", "99999999999 TiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_is_read_back(micros in 0..=u64::try_from(i64::MAX).unwrap_or(0)) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn a_written_size_is_read_back(bytes: u64, shift in 0..50_u32) {
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "[0-9 a-zA-Zé.]{0,12}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
