//! What a JSON parser does not see to: the depth of the nesting, and halves of surrogate pairs in text that it skips.

use crate::block::MAX_BODY_BYTES;

/// Most levels of objects and arrays in an event; the event itself is the first.
pub const MAX_DEPTH: usize = 64;

/// What is wrong with a text, and at which byte.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    TooDeep(usize),
    HalfSurrogatePair(usize),
}

/// Looks through `json`, which must be one valid JSON text of at most [`MAX_BODY_BYTES`], in a single pass.
pub(super) fn check(json: &[u8]) -> Result<(), Flaw> {
    debug_assert!(json.len() <= MAX_BODY_BYTES);
    let mut depth = 0;
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        let at = json.len() - rest.len();
        rest = after;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Flaw::TooDeep(at));
                }
            }
            b'}' | b']' => depth -= 1,
            b'"' => rest = skip_string(rest).map_err(|left| Flaw::HalfSurrogatePair(json.len() - left))?,
            _ => {}
        }
    }
    Ok(())
}

/// What follows the string whose inside starts at `text`; if half a surrogate pair stands in it, how many bytes are left
/// from there on.
fn skip_string(mut text: &[u8]) -> Result<&[u8], usize> {
    while let Some(next) = memchr::memchr2(b'"', b'\\', text) {
        let (_, from) = text.split_at(next);
        match from {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', b'u', escape @ ..] => {
                text = match surrogate(escape) {
                    Surrogate::No => escape,
                    Surrogate::High => skip_low_half(escape).ok_or(from.len())?,
                    Surrogate::Low => return Err(from.len()),
                };
            }
            [_, _, rest @ ..] => text = rest,
            _ => break,
        }
    }
    Ok(&[])
}

enum Surrogate {
    No,
    High,
    Low,
}

/// Which half, if any, the four hexadecimal digits at the start of `escape` are: D800 to DBFF or DC00 to DFFF.
fn surrogate(escape: &[u8]) -> Surrogate {
    match escape {
        [b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..] => Surrogate::High,
        [b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..] => Surrogate::Low,
        _ => Surrogate::No,
    }
}

/// What follows the low half, if one follows the high half at the start of `escape`.
fn skip_low_half(escape: &[u8]) -> Option<&[u8]> {
    match escape {
        [_, _, _, _, b'\\', b'u', low @ ..] if matches!(surrogate(low), Surrogate::Low) => Some(low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn depth_counts_objects_and_arrays_but_not_what_stands_in_strings() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check(nested(64).as_bytes()), Ok(()));
        assert_eq!(check(nested(65).as_bytes()), Err(Flaw::TooDeep(64)));
        assert_eq!(check(format!("[{},{}]", nested(63), nested(63)).as_bytes()), Ok(()));
        assert_eq!(check(format!("\"{}\\\"{}\"", "[".repeat(99), "{".repeat(99)).as_bytes()), Ok(()));
    }

    #[test]
    fn halves_of_surrogate_pairs() {
        for good in
            [r#""""#, r#""\ud83d\ude00""#, r#""\uD83D\uDE00x""#, r#""\\ud83d""#, r#""\\\\udc00""#, r#""\ud7ff\ue000""#]
        {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, at) in [
            (r#""\ud83d""#, 1),
            (r#""\ude00""#, 1),
            (r#""\ud83dx\ude00""#, 1),
            (r#""\ud83d\ud83d\ude00""#, 1),
            (r#""\ud83d\ude00\ude00""#, 13),
            (r#""\\\ud83d""#, 3),
            (r#""\ud83d\\ude00""#, 1),
            (r#"{"\udfff":1}"#, 2),
        ] {
            assert_eq!(check(bad.as_bytes()), Err(Flaw::HalfSurrogatePair(at)), "{bad}");
        }
    }
}
