//! Pounds into pence, from the digits of a JSON number and never through a float.

use crate::event::Pence;

/// Pounds have at most this many digits before the point: the limit is 10^15 pounds.
const MAX_POUND_DIGITS: i64 = 15;

/// No body holds digits enough to bring an exponent beyond this back into range, so larger ones need no exact value.
const EXPONENT_LIMIT: i64 = 1 << 40;

/// What the digits of a number say.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// Zero or negative: R120, whatever the number of decimals.
    NonPositive,
    /// No whole number of pence, or 10^15 pounds or more: R130.
    NotRepresentable,
    /// A valid amount.
    Pence(Pence),
}

/// Reads `number`, which must follow the JSON grammar for numbers. Takes time linear in its length.
pub(super) fn from_number(number: &str) -> Amount {
    let (negative, magnitude) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');

    // What is left of the number are its significant digits: `whole fraction` without zeros at either end.
    let mut exponent = parse_exponent(exponent) - count(fraction);
    let whole_kept = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
    exponent += count(whole) - count(whole_kept);
    let whole = whole_kept.trim_start_matches('0');
    let fraction = if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };

    let digits = count(whole) + count(fraction);
    if negative || digits == 0 {
        return Amount::NonPositive;
    }
    if exponent < -2 || digits + exponent > MAX_POUND_DIGITS {
        return Amount::NotRepresentable;
    }
    // At most 17 digits with the zeros that the exponent adds: no overflow.
    let zeros = std::iter::repeat_n(b'0', usize::try_from(exponent + 2).unwrap_or(0));
    let pence = whole.bytes().chain(fraction.bytes()).chain(zeros);
    Amount::Pence(Pence(pence.fold(0, |sum, digit| sum * 10 + i64::from(digit.wrapping_sub(b'0')))))
}

fn count(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(EXPONENT_LIMIT)
}

/// The exponent, cut to [`EXPONENT_LIMIT`] either way; 0 if there is none.
fn parse_exponent(text: &str) -> i64 {
    let digits = text.trim_start_matches(['+', '-']);
    let magnitude =
        digits.bytes().fold(0, |sum, digit| (sum * 10 + i64::from(digit.wrapping_sub(b'0'))).min(EXPONENT_LIMIT));
    if text.starts_with('-') { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exact_pence_from_any_spelling() {
        for (number, pence) in [
            ("10", 1000),
            ("10.5", 1050),
            ("10.50", 1050),
            ("10.500000", 1050),
            ("1.05e1", 1050),
            ("1E2", 10_000),
            ("1e+2", 10_000),
            ("1e-2", 1),
            ("100e-2", 100),
            ("1000e-4", 10),
            ("0.01", 1),
            ("0.010", 1),
            ("0.00001e3", 1),
            ("0.07", 7),
            ("1.1", 110),
            ("1e0000000000000000000000000001", 1000),
            ("1e14", 10_000_000_000_000_000),
            ("999999999999999.99", 99_999_999_999_999_999),
            ("9.9999999999999999e14", 99_999_999_999_999_999),
            ("99999999999999999e-2", 99_999_999_999_999_999),
        ] {
            assert_eq!(from_number(number), Amount::Pence(Pence(pence)), "{number}");
        }
    }

    #[test]
    fn the_sign_decides_first() {
        for number in
            ["0", "-0", "0.0", "-0.000", "0e999999999999", "0e-999999999999", "-1", "-0.001", "-1e15", "-1e999"]
        {
            assert_eq!(from_number(number), Amount::NonPositive, "{number}");
        }
    }

    #[test]
    fn fractions_of_a_penny_and_huge_amounts_are_not_representable() {
        for number in ["0.001", "10.505", "1e-3", "1e15", "1000000000000000", "1e400", "999999999999999.991", "1e-400"]
        {
            assert_eq!(from_number(number), Amount::NotRepresentable, "{number}");
        }
    }

    #[test]
    fn long_numbers_neither_overflow_nor_lose_digits() {
        let zeros = "0".repeat(500_000);
        assert_eq!(from_number(&format!("1{zeros}e-500000")), Amount::Pence(Pence(100)));
        assert_eq!(from_number(&format!("0.{zeros}1e500001")), Amount::Pence(Pence(100)));
        assert_eq!(from_number(&format!("12.5{zeros}")), Amount::Pence(Pence(1250)));
        assert_eq!(from_number(&format!("12.5{zeros}1")), Amount::NotRepresentable);
        assert_eq!(from_number(&format!("1e{}", "9".repeat(500_000))), Amount::NotRepresentable);
        assert_eq!(from_number(&format!("1e-{}", "9".repeat(500_000))), Amount::NotRepresentable);
    }

    /// The plainest definition, on numbers small enough for it: shift the point by hand.
    #[test]
    fn agrees_with_scaled_integers() {
        for pence in (1_i64..20_000).step_by(7) {
            let (pounds, rest) = (pence / 100, pence % 100);
            let plain = format!("{pounds}.{rest:02}");
            let scaled = format!("{pence}e-2");
            let small = format!("0.{pence:09}E+7");
            for number in [plain, scaled, small] {
                assert_eq!(from_number(&number), Amount::Pence(Pence(pence)), "{number}");
            }
        }
    }
}
