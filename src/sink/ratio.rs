//! Exact fractions to doubles, rounded once.

/// The double nearest to `numerator / denominator`, ties to even.
///
/// Converting both to doubles first would round up to three times once a total passes 2^53 pence. A denominator of
/// zero counts as one: callers have already replaced it.
pub(super) fn nearest_f64(numerator: i128, denominator: u128) -> f64 {
    let (n, d) = (numerator.unsigned_abs(), denominator.max(1));
    let magnitude = if n < 1 << 53 && d < 1 << 53 {
        // Both are exact as doubles, and IEEE 754 division rounds once.
        n as f64 / d as f64
    } else {
        long_division(n, d)
    };
    if numerator < 0 { -magnitude } else { magnitude }
}

/// Long division to 64 significant bits, the lowest of them sticky: enough for the one rounding of the conversion.
fn long_division(n: u128, d: u128) -> f64 {
    let (mut quotient, mut rest) = (n / d, n % d);
    let mut exponent = 0;
    while quotient >= 1 << 64 {
        rest |= quotient & 1;
        quotient >>= 1;
        exponent += 1;
    }
    if exponent == 0 && n != 0 {
        while quotient < 1 << 63 {
            // `rest < d`, and `d` stays below 2^127 for any count of events, so the shift keeps every bit.
            rest <<= 1;
            let bit = u128::from(rest >= d);
            rest -= d * bit;
            quotient = quotient << 1 | bit;
            exponent -= 1;
        }
    }
    let sticky = quotient as u64 | u64::from(rest != 0);
    sticky as f64 * 2f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::nearest_f64;

    #[test]
    fn agrees_with_parsing_the_decimal_expansion() {
        // The standard library's parser rounds decimal text once; a fraction over a power of ten is such a text.
        for pence in [0i128, 1, 5, 99, 100, 12_345, 9_007_199_254_740_993, 123_456_789_012_345_678_901, i128::MAX / 7] {
            let text = format!("{}.{:02}", pence / 100, pence % 100);
            assert_eq!(nearest_f64(pence, 100), text.parse::<f64>().unwrap(), "{text}");
            assert_eq!(nearest_f64(-pence, 100), -text.parse::<f64>().unwrap(), "-{text}");
        }
    }

    #[test]
    fn large_operands_round_once() {
        let exact = 1i128 << 100;
        assert_eq!(nearest_f64(exact, 1 << 100), 1.0);
        assert_eq!(nearest_f64(exact + (1 << 40), 1 << 100), 1.0);
        assert_eq!(nearest_f64(exact * 3, 1 << 101), 1.5);
        // Half a unit in the last place above one: to even, unless anything at all follows.
        let half_ulp = 1i128 << 47;
        assert_eq!(nearest_f64(exact + half_ulp, 1 << 100), 1.0);
        assert_eq!(nearest_f64(exact + half_ulp + 1, 1 << 100), 1.0 + f64::EPSILON);
        assert_eq!(nearest_f64(1, 3 << 100), 1.0 / 3.0 / 2f64.powi(100));
    }
}
