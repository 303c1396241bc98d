//! Which partition a key belongs to: the hash of Event Hubs, so that a key lands where it would land there.

/// The partition of a key, of `partitions` in all.
pub(crate) fn partition(key: &str, partitions: usize) -> usize {
    let partitions = i64::try_from(partitions.max(1)).unwrap_or(i64::MAX);
    let index = (i64::from(hash(key)) % partitions).unsigned_abs();
    usize::try_from(index).unwrap_or(0)
}

fn hash(key: &str) -> i16 {
    let (first, second) = lookup3(key.as_bytes());
    u16::try_from((first ^ second) & 0xffff).unwrap_or(0).cast_signed()
}

/// Bob Jenkins' `hashlittle2` with both seeds 0, on little-endian words.
fn lookup3(data: &[u8]) -> (u32, u32) {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut state = [0xdead_beef_u32.wrapping_add(len); 3];
    let mut rest = data;
    while rest.len() > 12 {
        let (block, after) = rest.split_at(12);
        add(&mut state, block);
        mix(&mut state);
        rest = after;
    }
    if !rest.is_empty() {
        let mut block = [0; 12];
        block[..rest.len()].copy_from_slice(rest);
        add(&mut state, &block);
        finish(&mut state);
    }
    (state[2], state[1])
}

fn add(state: &mut [u32; 3], block: &[u8]) {
    for (word, bytes) in state.iter_mut().zip(block.chunks_exact(4)) {
        *word = word.wrapping_add(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
}

/// The same step six times, the words changing places between them.
fn mix(state: &mut [u32; 3]) {
    for rotation in [4, 6, 8, 16, 19, 4] {
        let [a, b, c] = state;
        *a = a.wrapping_sub(*c) ^ c.rotate_left(rotation);
        *c = c.wrapping_add(*b);
        state.rotate_left(1);
    }
}

/// The same step seven times, and the words back to their places.
fn finish(state: &mut [u32; 3]) {
    for rotation in [14, 11, 25, 16, 4, 14, 24] {
        let [_, b, c] = state;
        *c = (*c ^ *b).wrapping_sub(b.rotate_left(rotation));
        state.rotate_left(1);
    }
    state.rotate_left(2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_python_client() {
        let known: [(&str, i16); 10] = [
            ("", 0),
            ("7", -15263),
            ("7149583486996073602", 12977),
            ("alphabet", -23478),
            ("TestKey", 11417),
            ("user-42", 1867),
            ("twelve bytes", 6222),
            ("thirteen byte", -13793),
            ("kkkkkkkkkkkkkkkkkkkkkkkkk", -24613),
            ("FWfAT", -22341),
        ];
        for (key, expected) in known {
            assert_eq!(hash(key), expected, "{key}");
        }
    }
}
