//! Finds its way in encoded AMQP values without decoding them, so that messages are kept as they came.

use super::Malformed;

/// Described values within described values; a descriptor is never deeper in practice.
const MAX_DEPTH: usize = 8;

/// Length in bytes of the value at the beginning of `bytes`, its constructor included.
pub(crate) fn value_len(bytes: &[u8]) -> Result<usize, Malformed> {
    value_len_at(bytes, 0)
}

fn short() -> Malformed {
    Malformed::new("a value ends before its length")
}

fn value_len_at(bytes: &[u8], depth: usize) -> Result<usize, Malformed> {
    let len = if bytes.first() == Some(&0) {
        if depth >= MAX_DEPTH {
            return Err(Malformed::new("described values are nested too deeply"));
        }
        let descriptor = value_len_at(bytes.get(1..).ok_or_else(short)?, depth + 1)?;
        let value = value_len_at(bytes.get(1 + descriptor..).ok_or_else(short)?, depth + 1)?;
        1 + descriptor + value
    } else {
        announced_len(bytes)?
    };
    if len > bytes.len() { Err(short()) } else { Ok(len) }
}

/// The length that a value that is not described says it has, its constructor included.
fn announced_len(bytes: &[u8]) -> Result<usize, Malformed> {
    let code = *bytes.first().ok_or_else(short)?;
    match code >> 4 {
        0x4 => Ok(1),
        0x5 => Ok(2),
        0x6 => Ok(3),
        0x7 => Ok(5),
        0x8 => Ok(9),
        0x9 => Ok(17),
        0xA | 0xC | 0xE => bytes.get(1).map(|size| 2 + usize::from(*size)).ok_or_else(short),
        0xB | 0xD | 0xF => {
            let size = bytes.get(1..5).and_then(|size| size.try_into().ok()).ok_or_else(short)?;
            usize::try_from(u32::from_be_bytes(size)).ok().and_then(|size| size.checked_add(5)).ok_or_else(short)
        }
        _ => Err(Malformed::new(format!("unknown constructor {code:#04x}"))),
    }
}

/// A described value whose descriptor is a number: a section of a message, or a performative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section<'a> {
    /// The descriptor's last byte; all that AMQP defines fit into it.
    pub(crate) code: u8,
    /// The value without its descriptor.
    pub(crate) value: &'a [u8],
    /// Length of descriptor and value.
    pub(crate) len: usize,
}

impl<'a> Section<'a> {
    /// Reads the section at the beginning of `bytes`.
    pub(crate) fn first(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (code, at) = match bytes {
            [0x00, 0x53, code, ..] => (*code, 3),
            [0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, code, ..] => (*code, 10),
            _ => return Err(Malformed::new("no numeric descriptor where a section should begin")),
        };
        let rest = bytes.get(at..).unwrap_or_default();
        let len = value_len(rest)?;
        Ok(Self { code, value: &rest[..len], len: at + len })
    }
}

/// The sections of a message, in order.
pub(crate) fn sections(mut bytes: &[u8]) -> impl Iterator<Item = Result<Section<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let section = Section::first(bytes);
        bytes = match &section {
            Ok(section) => &bytes[section.len..],
            Err(_) => &[],
        };
        Some(section)
    })
}

/// The content of a binary value.
pub(crate) fn binary(value: &[u8]) -> Option<&[u8]> {
    match value {
        [0xa0, _, content @ ..] | [0xb0, _, _, _, _, content @ ..] => Some(content),
        _ => None,
    }
}

/// The content of a symbol or a string.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    match value {
        [0xa1 | 0xa3, _, content @ ..] | [0xb1 | 0xb3, _, _, _, _, content @ ..] => std::str::from_utf8(content).ok(),
        _ => None,
    }
}

/// A key and its value, encoded.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

/// Keys and values of an encoded map.
pub(crate) fn entries(map: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
    let (count, mut rest) = match map {
        [0x40] => return Ok(Vec::new()),
        [0xc1, _, count, rest @ ..] => (u32::from(*count), rest),
        [0xd1, _, _, _, _, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
        _ => return Err(Malformed::new("not a map")),
    };
    let mut found = Vec::new();
    // An announced count is not trusted: what is there decides.
    for _ in 0..count / 2 {
        let (key, after) = rest.split_at(value_len(rest)?);
        let (value, after) = after.split_at(value_len(after)?);
        found.push((key, value));
        rest = after;
    }
    Ok(found)
}

/// Lists and maps within each other that a peer may send; clients need five.
const MAX_NESTING: usize = 16;

/// Makes sure that a value can be decoded: the codec trusts sizes and counts, and goes as deep as the value does.
pub(crate) fn check(value: &[u8]) -> Result<(), Malformed> {
    check_at(value, 0)
}

fn check_at(value: &[u8], depth: usize) -> Result<(), Malformed> {
    if depth > MAX_NESTING {
        return Err(Malformed::new(format!("values are nested more than {MAX_NESTING} times")));
    }
    let (count, mut rest) = match value {
        [0x00, rest @ ..] => (2, rest),
        [0xc0 | 0xc1, _, count, rest @ ..] => (u32::from(*count), rest),
        [0xd0 | 0xd1, _, _, _, _, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
        [0xe0, _, count, element, rest @ ..] => return check_array(u32::from(*count), *element, rest),
        [0xf0, _, _, _, _, a, b, c, d, element, rest @ ..] => {
            return check_array(u32::from_be_bytes([*a, *b, *c, *d]), *element, rest);
        }
        [0xc0..=0xff, ..] => return Err(Malformed::new("a list, map or array without count")),
        _ => return Ok(()),
    };
    let mut found = 0u32;
    while !rest.is_empty() {
        let (inner, after) = rest.split_at(value_len(rest)?);
        check_at(inner, depth + 1)?;
        found = found.saturating_add(1);
        rest = after;
    }
    let is_map = matches!(value, [0xc1 | 0xd1, ..]);
    if found == count && !(is_map && count % 2 == 1) {
        return Ok(());
    }
    Err(Malformed::new(format!("{found} values where {count} are announced, or a key without value")))
}

/// Elements of an array share one constructor. Those with values in them do not occur in what is read here.
fn check_array(count: u32, element: u8, mut rest: &[u8]) -> Result<(), Malformed> {
    let wrong = || Malformed::new("an array of other elements than announced");
    if !matches!(element >> 4, 0x4..=0xB) {
        return Err(Malformed::new("an array of values that are not plain"));
    }
    for _ in 0..count {
        let len = match element >> 4 {
            // Elements of no length: their number alone would decide what memory they take.
            0x4 => return Err(wrong()),
            0xA | 0xB => {
                let prefix = [&[element], rest.get(..4.min(rest.len())).unwrap_or_default()].concat();
                announced_len(&prefix)?.checked_sub(1).ok_or_else(wrong)?
            }
            _ => announced_len(&[element])?.checked_sub(1).ok_or_else(wrong)?,
        };
        rest = rest.get(len..).ok_or_else(wrong)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_all_shapes_of_values() {
        assert_eq!(value_len(&[0x40]), Ok(1));
        assert_eq!(value_len(&[0x53, 9]), Ok(2));
        assert_eq!(value_len(&[0x70, 0, 0, 0, 1, 99]), Ok(5));
        assert_eq!(value_len(&[0xa1, 2, b'a', b'b', 99]), Ok(4));
        assert_eq!(value_len(&[0xb0, 0, 0, 0, 1, 7]), Ok(6));
        assert_eq!(value_len(&[0x00, 0x53, 0x75, 0xa0, 1, 7]), Ok(6));
    }

    #[test]
    fn no_prefix_of_a_value_is_a_value() {
        let whole = [0x00, 0x53, 0x75, 0xb0, 0, 0, 0, 3, 1, 2, 3];
        for end in 0..whole.len() {
            assert!(value_len(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(value_len(&[0u8; 4096]).is_err());
    }

    #[test]
    fn deep_nesting_is_found_before_it_is_decoded() {
        let nested = |levels: usize| {
            let mut value = vec![0x40];
            for _ in 0..levels {
                let size = u32::try_from(value.len() + 4).unwrap().to_be_bytes();
                value = [&[0xd0][..], &size, &[0, 0, 0, 1], &value].concat();
            }
            value
        };
        assert!(check(&nested(MAX_NESTING)).is_ok());
        assert!(check(&nested(MAX_NESTING + 1)).is_err());
        assert!(check(&nested(2000)).is_err());
    }

    #[test]
    fn sizes_and_counts_that_lie_are_found_before_they_are_trusted() {
        let good: [&[u8]; 6] = [
            &[0x45],
            &[0xc0, 1, 0],
            &[0xc1, 4, 2, 0x40, 0x52, 7],
            &[0xe0, 3, 1, 0xa3, 0],
            &[0xe0, 6, 2, 0xa3, 1, b'a', 1, b'b'],
            &[0xf0, 0, 0, 0, 9, 0, 0, 0, 1, 0x70, 0, 0, 0, 5],
        ];
        let bad: [&[u8]; 9] = [
            &[0xc0, 0],
            &[0xd0, 0, 0, 0, 1, 0],
            &[0xc0, 1, 1],
            &[0xc0, 2, 0, 0x40],
            &[0xc1, 2, 1, 0x40],
            &[0xe0, 1, 0],
            &[0xe0, 3, 2, 0xa3, 0],
            &[0xe0, 2, 255, 0x40],
            &[0xe0, 4, 1, 0xc0, 1, 0],
        ];
        good.iter().for_each(|value| assert_eq!(check(value), Ok(()), "{value:x?}"));
        bad.iter().for_each(|value| assert!(check(value).is_err(), "{value:x?}"));
    }

    #[test]
    fn a_map_that_promises_more_than_it_holds_is_refused() {
        assert!(entries(&[0xd1, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(entries(&[0xc1, 1, 0]), Ok(vec![]));
    }
}
