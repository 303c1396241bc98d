//! When to merge runs: often enough that there are few, seldom enough that each row is rewritten a few times in its
//! life (size-tiered compaction, as in log-structured merge trees).
//!
//! Only neighbours are merged, so that of two rows for one key the later stays the later.

/// Up to this many rows, a run is as small as can be.
const SMALL_ROWS: u64 = 1 << 10;

/// How a list of runs is kept short.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// How many runs of a tier become one of the next; at least two.
    pub fan_in: usize,
    /// A run of this many rows is left as it is.
    pub largest_rows: u64,
}

impl Tiers {
    /// Runs of ids: they expire as wholes, so they do not grow for ever.
    pub const IDS: Tiers = Tiers { fan_in: 8, largest_rows: 4 << 20 };

    /// Runs of totals: merging drops the rows that later ones replace, and every run of a restore is read.
    pub const TOTALS: Tiers = Tiers { fan_in: 4, largest_rows: u64::MAX };

    fn tier(&self, rows: u64) -> u32 {
        (rows / SMALL_ROWS).max(1).ilog(self.fan_in.max(2) as u64)
    }

    /// How many runs at the end of the list, given by their rows and oldest first, are to be merged now: none or at
    /// least two.
    ///
    /// ```
    /// use tidemark_checkpoint::compaction::Tiers;
    ///
    /// let tiers = Tiers { fan_in: 3, largest_rows: 1_000_000 };
    /// assert_eq!(tiers.due(&[90_000, 500, 500]), 0);
    /// assert_eq!(tiers.due(&[90_000, 500, 500, 500]), 3);
    /// assert_eq!(tiers.due(&[2_000_000, 2_000_000, 2_000_000]), 0);
    /// ```
    pub fn due(&self, rows: &[u64]) -> usize {
        let Some(last) = rows.last().filter(|last| **last < self.largest_rows) else { return 0 };
        let tier = self.tier(*last);
        let mergeable = |rows: &&u64| **rows < self.largest_rows && self.tier(**rows) <= tier;
        let suffix = rows.iter().rev().take_while(mergeable).count();
        if suffix >= self.fan_in.max(2) { suffix } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Tiers;

    /// Appends `runs` runs of `rows` rows; returns the number of runs left and how often each row was written.
    fn simulate(tiers: Tiers, runs: u64, rows: u64) -> (usize, f64) {
        let (mut list, mut written) = (Vec::new(), 0);
        for _ in 0..runs {
            list.push(rows);
            written += rows;
            loop {
                let due = tiers.due(&list);
                if due == 0 {
                    break;
                }
                let merged: u64 = list.drain(list.len() - due..).sum();
                list.push(merged);
                written += merged;
            }
        }
        assert_eq!(list.iter().sum::<u64>(), runs * rows);
        (list.len(), written as f64 / (runs * rows) as f64)
    }

    #[test]
    fn runs_stay_few_and_rows_are_rewritten_a_few_times() {
        // A day and a half at 100 ids a second, 5 s apart; ten minutes at a million a second, 1 s apart.
        for (runs, rows) in [(26_000, 500), (600, 1_000_000)] {
            let (left, written) = simulate(Tiers::IDS, runs, rows);
            let largest = (runs * rows / Tiers::IDS.largest_rows) as usize;
            assert!(left <= largest + 7 * 6, "{left} runs");
            assert!(written <= 8.0, "{written}");
        }
    }
}
