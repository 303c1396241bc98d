//! The least of many values, without keeping the others.

use std::collections::BinaryHeap;

/// The least values of those that were offered, at most so many.
#[derive(Clone, Debug)]
pub(crate) struct Least<T> {
    most: usize,
    /// The greatest is on top.
    kept: BinaryHeap<T>,
}

impl<T: Ord> Least<T> {
    pub(crate) fn new(most: usize) -> Least<T> {
        Least { most, kept: BinaryHeap::new() }
    }

    /// Whether a value would be kept that is less than those of which `is_greater` says so.
    pub(crate) fn admits(&self, is_greater: impl FnOnce(&T) -> bool) -> bool {
        self.kept.len() < self.most || self.kept.peek().is_some_and(is_greater)
    }

    pub(crate) fn offer(&mut self, value: T) {
        if self.admits(|greatest| *greatest > value) {
            self.kept.push(value);
        }
        if self.kept.len() > self.most {
            self.kept.pop();
        }
    }

    /// What was kept, the least first.
    pub(crate) fn ascending(self) -> Vec<T> {
        self.kept.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_are_kept_whatever_the_order() {
        for most in 0..8 {
            let mut least = Least::new(most);
            [5, 1, 4, 1, 3, 9].into_iter().for_each(|value| least.offer(value));
            assert!(least.kept.len() <= most && !least.admits(|greatest| *greatest > 9) || most > 6);
            let mut expected = vec![1, 1, 3, 4, 5, 9];
            expected.truncate(most);
            assert_eq!(least.ascending(), expected);
        }
    }
}
