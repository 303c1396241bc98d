//! Finds its way in encoded AMQP values without decoding them, so that messages are kept as they came.

use super::Malformed;

/// Described values within described values; a descriptor is never deeper in practice.
const MAX_DEPTH: usize = 8;

/// Length in bytes of the value at the beginning of `bytes`, its constructor included.
pub(crate) fn value_len(bytes: &[u8]) -> Result<usize, Malformed> {
    value_len_at(bytes, 0)
}

fn value_len_at(bytes: &[u8], depth: usize) -> Result<usize, Malformed> {
    let short = || Malformed::new("a value ends before its length");
    let code = *bytes.first().ok_or_else(short)?;
    let len = match code >> 4 {
        0 if code == 0 => {
            if depth >= MAX_DEPTH {
                return Err(Malformed::new("described values are nested too deeply"));
            }
            let descriptor = value_len_at(bytes.get(1..).ok_or_else(short)?, depth + 1)?;
            let value = value_len_at(bytes.get(1 + descriptor..).ok_or_else(short)?, depth + 1)?;
            1 + descriptor + value
        }
        0x4 => 1,
        0x5 => 2,
        0x6 => 3,
        0x7 => 5,
        0x8 => 9,
        0x9 => 17,
        0xA | 0xC | 0xE => 2 + usize::from(*bytes.get(1).ok_or_else(short)?),
        0xB | 0xD | 0xF => {
            let size = bytes.get(1..5).and_then(|size| size.try_into().ok()).ok_or_else(short)?;
            usize::try_from(u32::from_be_bytes(size)).ok().and_then(|size| size.checked_add(5)).ok_or_else(short)?
        }
        _ => return Err(Malformed::new(format!("unknown constructor {code:#04x}"))),
    };
    if len > bytes.len() { Err(short()) } else { Ok(len) }
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
    fn a_map_that_promises_more_than_it_holds_is_refused() {
        assert!(entries(&[0xd1, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(entries(&[0xc1, 1, 0]), Ok(vec![]));
    }
}
