//! From an `event_id` string to the 128 bits that deduplication compares.
//!
//! The keyed hash is there because an attacker may choose the ids: without the key nobody can find two that meet.

use siphasher::sip128::SipHasher24;

use crate::event::EventId;

/// Length of a UUID in its canonical form, in bytes.
const UUID_LEN: usize = 36;

/// Where in a UUID the pairs of hexadecimal digits start.
const PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

const NOT_HEX: u8 = 0xFF;

/// Value of a lower-case hexadecimal digit. Upper case is no canonical UUID, and so another string.
const HEX: [u8; 256] = {
    let mut table = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    table
};

/// The identity of an event: a canonical lower-case UUID stands for itself, any other string is hashed with `key`.
#[inline]
pub(super) fn event_id(id: &[u8], key: [u64; 2]) -> EventId {
    uuid(id).unwrap_or_else(|| hashed(id, key))
}

/// Spelt out from the halves: the hasher's own conversion depends on the byte order of the machine.
fn hashed(id: &[u8], key: [u64; 2]) -> EventId {
    let hash = SipHasher24::new_with_keys(key[0], key[1]).hash(id);
    EventId(u128::from(hash.h2) << 64 | u128::from(hash.h1))
}

#[inline]
fn uuid(id: &[u8]) -> Option<EventId> {
    let id: &[u8; UUID_LEN] = id.try_into().ok()?;
    if [id[8], id[13], id[18], id[23]] != *b"----" {
        return None;
    }
    let mut bytes = [0; 16];
    let mut all = 0;
    for (byte, start) in bytes.iter_mut().zip(PAIRS) {
        let (high, low) = (HEX[id[start] as usize], HEX[id[start + 1] as usize]);
        all |= high | low;
        *byte = high << 4 | low & 0xF;
    }
    (all < 16).then(|| EventId(u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [7, 11];

    #[test]
    fn a_canonical_uuid_is_its_own_bits() {
        let id = event_id(b"00112233-4455-6677-8899-aabbccddeeff", KEY);
        assert_eq!(id, EventId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
        assert_eq!(event_id(b"00112233-4455-6677-8899-aabbccddeeff", [0, 0]), id, "the key plays no part");
    }

    #[test]
    fn any_other_string_is_hashed_with_the_key() {
        for other in [
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "00112233-4455-6677-8899-aabbccddeefg",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233445566778899aabbccddeeff",
            "001122334455-6677-8899-aabb-ccddeeff",
            "{0112233-4455-6677-8899-aabbccddeef}",
            "order 1",
        ] {
            let id = event_id(other.as_bytes(), KEY);
            assert_ne!(id, EventId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), "{other}");
            assert_ne!(id, event_id(other.as_bytes(), [7, 12]), "{other}");
            assert_eq!(id, event_id(other.as_bytes(), KEY), "{other}");
        }
    }

    /// The key is drawn once and stored for ever, so the function may not change from release to release.
    #[test]
    fn the_hash_is_siphash_2_4_with_128_bits() {
        // First vector of the reference implementation: key 00 01 .. 0f, empty input, output a3 81 7f 04 ... in bytes.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let output = [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93];
        assert_eq!(event_id(b"", key), EventId(u128::from_le_bytes(output)));
    }
}
