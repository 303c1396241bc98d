//! RFC 3339 timestamps into microseconds since 1970, without a calendar library: the layout is fixed, the years are few.

use std::fmt;

use crate::event::{END_OF_TIME, Micros};

const MICROS_PER_SECOND: i64 = 1_000_000;

const MINUTES_PER_DAY: i64 = 24 * 60;

/// Fractional digits that are kept.
const MICRO_DIGITS: u32 = 6;

/// Most fractional digits of a second that the contract admits.
const MAX_FRACTION_DIGITS: u32 = 9;

/// Why a string is no timestamp of the contract.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TimestampError {
    /// Not of the form `YYYY-MM-DDThh:mm:ss[.fraction][offset]`.
    Form,
    /// No such day in the calendar.
    Date,
    /// No such time of day, or a leap second.
    TimeOfDay,
    /// No such offset from UTC.
    Offset,
    /// Before 1970 or after 9999, as UTC.
    Range,
}

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimestampError::Form => "not of the form YYYY-MM-DDThh:mm:ss[.fraction][Z or offset]",
            TimestampError::Date => "no such day",
            TimestampError::TimeOfDay => "no such time of day (leap seconds are not accepted)",
            TimestampError::Offset => "no such offset from UTC",
            TimestampError::Range => "outside 1970 to 9999",
        })
    }
}

impl std::error::Error for TimestampError {}

/// Reads an RFC 3339 timestamp: `T`, `t` or a space before the time; up to 9 fractional digits, truncated to the
/// microsecond; `Z`, `z`, an offset `+hh:mm` or `-hh:mm`, or nothing, which means UTC.
///
/// # Errors
///
/// What is wrong with the string, from left to right, the range of the instant last.
///
/// ```
/// use tidemark_dataflows::contract::timestamp::{self, TimestampError};
/// use tidemark_dataflows::event::Micros;
///
/// assert_eq!(timestamp::parse(b"1970-01-01T01:00:00.0000019+00:30"), Ok(Micros(1_800_000_001)));
/// assert_eq!(timestamp::parse(b"2023-02-29T00:00:00Z"), Err(TimestampError::Date));
/// ```
#[inline]
pub fn parse(text: &[u8]) -> Result<Micros, TimestampError> {
    let (&[y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't' | b' ', h0, h1, b':', n0, n1, b':', s0, s1], rest) =
        text.split_first_chunk::<19>().ok_or(TimestampError::Form)?
    else {
        return Err(TimestampError::Form);
    };
    let year = number([y0, y1])? * 100 + number([y2, y3])?;
    let (month, day) = (number([m0, m1])?, number([d0, d1])?);
    let (hour, minute, second) = (number([h0, h1])?, number([n0, n1])?, number([s0, s1])?);
    let (micros, rest) = fraction(rest)?;
    let offset = offset_minutes(rest)?;

    if year == 0 || day == 0 || day > days_in_month(year, month) {
        return Err(TimestampError::Date);
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(TimestampError::TimeOfDay);
    }
    let minutes = days_since_1970(year, month, day) * MINUTES_PER_DAY + i64::from(hour * 60 + minute) - offset;
    let instant = Micros((minutes * 60 + i64::from(second)) * MICROS_PER_SECOND + i64::from(micros));
    if instant < Micros(0) || instant >= END_OF_TIME {
        return Err(TimestampError::Range);
    }
    Ok(instant)
}

/// Two decimal digits.
#[inline]
fn number([tens, ones]: [u8; 2]) -> Result<u32, TimestampError> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 {
        return Err(TimestampError::Form);
    }
    Ok(u32::from(tens) * 10 + u32::from(ones))
}

/// Microseconds of a fraction that may stand at the start of `text`, and what follows it.
#[inline]
fn fraction(text: &[u8]) -> Result<(u32, &[u8]), TimestampError> {
    let Some((b'.', mut rest)) = text.split_first() else {
        return Ok((0, text));
    };
    let (mut micros, mut digits) = (0, 0);
    while let Some((&digit @ b'0'..=b'9', after)) = rest.split_first() {
        if digits < MICRO_DIGITS {
            micros = micros * 10 + u32::from(digit - b'0');
        }
        digits += 1;
        rest = after;
    }
    match digits {
        1..MICRO_DIGITS => Ok((micros * 10_u32.pow(MICRO_DIGITS - digits), rest)),
        MICRO_DIGITS..=MAX_FRACTION_DIGITS => Ok((micros, rest)),
        _ => Err(TimestampError::Form),
    }
}

/// How far local time is ahead of UTC.
#[inline]
fn offset_minutes(text: &[u8]) -> Result<i64, TimestampError> {
    match *text {
        [] | [b'Z' | b'z'] => Ok(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number([h0, h1])?, number([m0, m1])?);
            if hours > 23 || minutes > 59 {
                return Err(TimestampError::Offset);
            }
            let ahead = i64::from(hours * 60 + minutes);
            Ok(if sign == b'+' { ahead } else { -ahead })
        }
        _ => Err(TimestampError::Form),
    }
}

/// Days of a month from 1 to 12 in the Gregorian calendar; 0 for any other month.
#[inline]
fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, for years from 1 on.
///
/// Years are counted from March, so that the leap day is the last of its year, and then 153 days make five months.
#[inline]
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    i64::from(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year) - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Result<i64, TimestampError> {
        parse(text.as_bytes()).map(|instant| instant.0)
    }

    #[test]
    fn each_spelling_of_an_instant() {
        for text in [
            "2026-01-01T10:00:00.123456+00:00",
            "2026-01-01T10:00:00.123456-00:00",
            "2026-01-01t10:00:00.123456z",
            "2026-01-01 10:00:00.123456Z",
            "2026-01-01T10:00:00.123456",
            "2026-01-01T10:00:00.1234569Z",
            "2026-01-01T10:00:00.123456999Z",
            "2026-01-01T15:45:00.123456+05:45",
            "2025-12-31T10:01:00.123456-23:59",
            "2026-01-02T09:59:00.123456+23:59",
        ] {
            assert_eq!(micros(text), Ok(1_767_261_600_123_456), "{text}");
        }
        assert_eq!(micros("2026-01-01T10:00:00.5Z"), Ok(1_767_261_600_500_000));
        assert_eq!(micros("2026-01-01T10:00:00.000000999"), Ok(1_767_261_600_000_000));
    }

    #[test]
    fn the_range_is_judged_as_utc_after_truncation() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(micros("1969-12-31T23:00:00-01:00"), Ok(0));
        assert_eq!(micros("9999-12-31T23:59:59.999999999Z"), Ok(END_OF_TIME.0 - 1));
        assert_eq!(micros("9999-12-31T23:59:59.999999+00:01"), Ok(END_OF_TIME.0 - 60_000_001));
        for text in [
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:00-00:01",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(micros(text), Err(TimestampError::Range), "{text}");
        }
    }

    #[test]
    fn no_such_day_or_time() {
        for text in ["2023-02-29", "1900-02-29", "2026-04-31", "2026-00-01", "2026-13-01", "2026-01-00", "0000-01-01"] {
            assert_eq!(micros(&format!("{text}T00:00:00Z")), Err(TimestampError::Date), "{text}");
        }
        for text in ["24:00:00", "23:60:00", "23:59:60", "23:59:61"] {
            assert_eq!(micros(&format!("2016-12-31T{text}Z")), Err(TimestampError::TimeOfDay), "{text}");
        }
        for text in ["+24:00", "-00:60", "+99:99"] {
            assert_eq!(micros(&format!("2016-12-31T00:00:00{text}")), Err(TimestampError::Offset), "{text}");
        }
        assert_eq!(micros("2024-02-29T00:00:00Z"), Ok(1_709_164_800_000_000));
        assert_eq!(micros("2000-02-29T00:00:00Z"), Ok(951_782_400_000_000));
    }

    #[test]
    fn other_forms_are_no_timestamps() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T10:00",
            "2026-01-01T10:00Z",
            "2026-1-01T10:00:00Z",
            "2026-01-01_10:00:00Z",
            "2026-01-01T10:00:00.Z",
            "2026-01-01T10:00:00.",
            "2026-01-01T10:00:00.1234567890Z",
            "2026-01-01T10:00:00,5Z",
            "2026-01-01T10:00:00 Z",
            "2026-01-01T10:00:00Z ",
            " 2026-01-01T10:00:00Z",
            "2026-01-01T10:00:00Z\n",
            "2026-01-01T10:00:00+0000",
            "2026-01-01T10:00:00+00",
            "2026-01-01T10:00:00\u{2212}01:00",
            "+026-01-01T10:00:00Z",
            "12026-01-01T10:00:00Z",
            "20260101T100000Z",
            "2026-01-01T10:00:0\u{662}Z",
            "1767261600",
        ] {
            assert_eq!(micros(text), Err(TimestampError::Form), "{text:?}");
        }
    }

    /// Walks every day that the contract admits, with the calendar's own rule for what follows a day.
    #[test]
    fn days_count_up_one_by_one() {
        let mut expected = 0;
        for year in 1970..=9999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
        assert_eq!(expected * 86_400 * MICROS_PER_SECOND, END_OF_TIME.0);
    }
}
