//! What does not work at the moment, for everybody who asks how the pipeline is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidemark_checkpoint::store::Watch;

/// Places that fail, and why. Nothing is lost while a place fails: whoever needs it waits.
#[derive(Debug, Default)]
pub struct Health {
    failing: Mutex<BTreeMap<String, String>>,
}

impl Health {
    /// What fails at the moment, by place.
    pub fn failing(&self) -> BTreeMap<String, String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watch for Health {
    fn failing(&self, place: &str, why: &str) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned(), why.to_owned());
    }

    fn recovered(&self, place: &str) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Watch};

    #[test]
    fn a_place_fails_until_it_is_well_again() {
        let health = Health::default();
        Watch::failing(&health, "table a", "timeout");
        Watch::failing(&health, "table b", "disk full");
        Watch::failing(&health, "table a", "disk full");
        health.recovered("table b");
        assert_eq!(Vec::from_iter(health.failing()), [("table a".to_owned(), "disk full".to_owned())]);
    }
}
