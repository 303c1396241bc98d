//! Which partitions are read at present. What was read ahead of the others is given back.
//!
//! The source does not know epochs. It sees questions and pulls: a partition that is asked for again after it has been
//! pulled begins the next round.

/// Rounds without a pull after which a partition counts as left.
const REST: u64 = 2;

/// The same for one that would have to be unpacked from its start again.
const REST_OF_PACKED: u64 = 8;

#[derive(Copy, Clone, Default)]
struct Mark {
    active: bool,
    packed: bool,
    /// The round in which it was asked for last.
    asked: u64,
    /// The round in which it was pulled last.
    pulled: u64,
    /// Whether it has been pulled since it was asked for.
    pulled_since: bool,
}

/// The rounds of all partitions.
pub(super) struct Rounds {
    round: u64,
    marks: Vec<Mark>,
    active: Vec<usize>,
}

impl Rounds {
    /// Of so many partitions, as many as `packed` says something of.
    pub(super) fn new(packed: impl Iterator<Item = bool>) -> Self {
        let marks = packed.map(|packed| Mark { packed, ..Mark::default() }).collect();
        Self { round: 0, marks, active: Vec::new() }
    }

    /// Notes a pull. Returns whether the partition was at rest before.
    pub(super) fn pulled(&mut self, partition: usize) -> bool {
        let round = self.round;
        let Some(mark) = self.marks.get_mut(partition) else { return false };
        (mark.pulled, mark.pulled_since) = (round, true);
        let woken = !std::mem::replace(&mut mark.active, true);
        if woken {
            self.active.push(partition);
        }
        woken
    }

    /// Notes a question. Returns the partitions that are at rest from now on.
    pub(super) fn asked(&mut self, partition: usize) -> Vec<usize> {
        let Some(mark) = self.marks.get_mut(partition) else { return Vec::new() };
        let pulled = std::mem::take(&mut mark.pulled_since);
        let next_round = pulled && mark.asked == self.round;
        self.round += u64::from(next_round);
        mark.asked = self.round;
        if next_round { self.left() } else { Vec::new() }
    }

    fn left(&mut self) -> Vec<usize> {
        let (round, marks) = (self.round, &mut self.marks);
        let rests = |partition: &mut usize| {
            let mark = &mut marks[*partition];
            mark.active = round - mark.pulled < if mark.packed { REST_OF_PACKED } else { REST };
            !mark.active
        };
        self.active.extract_if(.., rests).collect()
    }

    /// Whether it is read at present.
    pub(super) fn is_active(&self, partition: usize) -> bool {
        self.marks.get(partition).is_some_and(|mark| mark.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_pulled_for_two_rounds_rests() {
        let mut rounds = Rounds::new([false, false, true].into_iter());
        let ask_all = |rounds: &mut Rounds| (0..3).flat_map(|partition| rounds.asked(partition)).collect::<Vec<_>>();
        // Asking again and again is no round.
        assert!((0..9).all(|_| ask_all(&mut rounds).is_empty()));
        assert!((0..3).all(|partition| rounds.pulled(partition)));
        assert!((0..3).all(|partition| !rounds.pulled(partition)));
        let mut left = Vec::new();
        for round in 0..10 {
            left.extend(ask_all(&mut rounds).into_iter().map(|partition| (round, partition)));
            assert!(ask_all(&mut rounds).is_empty());
            rounds.pulled(0);
        }
        assert_eq!(left, [(1, 1), (7, 2)]);
        assert!(rounds.is_active(0) && !rounds.is_active(1) && rounds.pulled(1));
    }

    #[test]
    fn it_is_one_round_however_questions_and_pulls_are_mixed() {
        let mut rounds = Rounds::new(std::iter::repeat_n(false, 100));
        (0..100).for_each(|partition| drop(rounds.asked(partition)));
        for _ in 0..20 {
            for partition in 0..100 {
                rounds.pulled(partition);
                assert!(rounds.asked(partition).is_empty());
            }
        }
        assert!(rounds.round <= 20 && (0..100).all(|partition| rounds.is_active(partition)));
    }
}
