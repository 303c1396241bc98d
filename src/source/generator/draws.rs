//! Random numbers that are a function of what they are for: SplitMix64, started from a key and an index.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Scrambles all bits of `value`.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// An endless sequence of independent numbers.
pub(super) struct Draws(u64);

impl Draws {
    /// The sequence that belongs to `index`, among those that belong to `key`.
    pub(super) fn new(key: u64, index: u64) -> Self {
        Self(mix(key ^ mix(index.wrapping_add(GAMMA))))
    }

    /// The next number, of 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// The next number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// The next number from 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next() >> 11) as f64 * STEP
    }
}
