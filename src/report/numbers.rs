//! Figures as a person reads them.

use std::time::Duration;

/// A count with its thousands separated: `1,234,567`.
pub fn grouped(count: u64) -> String {
    separated(&count.to_string())
}

fn separated(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with what it counts: `1 epoch`, `2,000 epochs`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Pence as pounds: `-1,234.05`.
pub fn pounds(pence: i128) -> String {
    let sign = if pence < 0 { "-" } else { "" };
    let whole = u64::try_from(pence.unsigned_abs() / 100).map_or_else(|_| "very much".to_owned(), grouped);
    format!("{sign}{whole}.{:02}", pence.unsigned_abs() % 100)
}

/// Events per second over some time.
pub fn rate(events: u64, over: Duration) -> String {
    let seconds = over.as_secs_f64();
    let per_second = if seconds > 0.0 { events as f64 / seconds } else { 0.0 };
    if per_second >= 1e6 {
        format!("{:.2} M/s", per_second / 1e6)
    } else {
        format!("{}/s", separated(&format!("{per_second:.0}")))
    }
}

/// An instant of the stream, to the second: `2026-01-01 10:00:00`.
pub fn instant(micros: i64) -> String {
    let (days, second) = (micros.div_euclid(86_400_000_000), micros.div_euclid(1_000_000).rem_euclid(86_400));
    // Days to a civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!((counted(1, "epoch"), counted(2_000, "epoch")), ("1 epoch".to_owned(), "2,000 epochs".to_owned()));
        assert_eq!(pounds(-123_405), "-1,234.05");
        assert_eq!(rate(50, Duration::from_secs(2)), "25/s");
        assert_eq!(rate(5_000_000, Duration::from_secs(2)), "2.50 M/s");
        assert_eq!(instant(1_767_261_600_000_000), "2026-01-01 10:00:00");
        assert_eq!(instant(0), "1970-01-01 00:00:00");
        assert_eq!(instant(951_782_399_999_999), "2000-02-28 23:59:59");
    }
}
