//! Payloads of rejected events, made fit to be shown: their shape and the words of the contract stay, everything that says
//! who paid whom how much goes.

/// Words that may stay: the members of an event, the values that they may have, and those of JSON.
const PLAIN: [&str; 17] = [
    "event_id",
    "user_id",
    "event_time",
    "ingest_time",
    "event_type",
    "amount",
    "currency",
    "channel",
    "deposit_completed",
    "withdrawal_completed",
    "web",
    "mobile",
    "api",
    "GBP",
    "true",
    "false",
    "null",
];

/// Characters of a payload that are shown.
const SHOWN: usize = 600;

/// The start of a payload with every letter as `x` and every digit as `9`, but for the words of the contract. Signs,
/// lengths and punctuation stay, so that one sees what is wrong with it.
///
/// ```
/// use tidemark::telemetry::mask::masked;
///
/// let payload = r#"{"event_id":"a1","user_id":"Zoë","amount":-20.5,"channel":"web"}"#;
/// assert_eq!(masked(payload), r#"{"event_id":"x9","user_id":"xxx","amount":-99.9,"channel":"web"}"#);
/// ```
pub fn masked(payload: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut left) = (String::new(), payload);
    let mut room = SHOWN;
    while let Some(first) = left.chars().next() {
        if room == 0 {
            out.push('…');
            break;
        }
        let end = if is_word(first) { left.find(|c| !is_word(c)).unwrap_or(left.len()) } else { first.len_utf8() };
        let (word, rest) = left.split_at(end);
        left = rest;
        if PLAIN.contains(&word) {
            out.push_str(word);
            room = room.saturating_sub(word.len());
        } else {
            let taken = word.chars().take(room);
            out.extend(taken.map(disguised));
            let length = word.chars().count();
            if length > room {
                out.push('…');
                break;
            }
            room -= length;
        }
    }
    out
}

fn disguised(c: char) -> char {
    match c {
        c if c.is_numeric() => '9',
        c if c.is_alphabetic() => 'x',
        ' ' | '\t' => c,
        c if c.is_ascii_punctuation() => c,
        _ => '·',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_the_contract_stay_and_nothing_else() {
        assert_eq!(
            masked(r#"{"channel":"webshop","amount":1e3,"x":null}"#),
            r#"{"channel":"xxxxxxx","amount":9x9,"x":null}"#
        );
        assert_eq!(masked("a\u{202e}\n\u{0}b"), "x···x");
        assert_eq!(masked(&"7".repeat(SHOWN + 1)), format!("{}…", "9".repeat(SHOWN)));
    }

    proptest! {
        #[test]
        fn no_digit_and_no_name_comes_through(text in "[a-z0-9{}\":,. é日-]{0,900}") {
            let masked = masked(&text);
            prop_assert!(masked.chars().all(|c| !c.is_ascii_digit() || c == '9'));
            prop_assert!(masked.chars().count() <= SHOWN + 1 + PLAIN[9].len());
            let words = masked.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            for word in words {
                prop_assert!(PLAIN.contains(&word) || word.chars().all(|c| c == 'x' || c == '9'), "{}", word);
            }
        }
    }
}
