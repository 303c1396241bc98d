//! What does not work at the moment, for everybody who asks how the pipeline is.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tidemark_store::Watch;

/// Places that fail, and why. Nothing is lost while a place fails: whoever needs it waits.
#[derive(Debug, Default)]
pub struct Health {
    places: Mutex<BTreeMap<String, Condition>>,
}

/// How a place is that has failed at some time.
#[derive(Clone, Debug)]
pub struct Condition {
    /// Why it fails; `None` where it works again.
    pub failing: Option<String>,
    /// Since when that has been so.
    pub since: Instant,
    /// How often it has begun to fail.
    pub times: u64,
}

impl Health {
    /// What fails at the moment, by place.
    pub fn failing(&self) -> BTreeMap<String, String> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().filter_map(|(place, condition)| Some((place.clone(), condition.failing.clone()?))).collect()
    }

    /// Every place that has ever failed, and how it is now.
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watch for Health {
    fn failing(&self, place: &str, why: &str) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || Condition { failing: None, since: Instant::now(), times: 0 };
        let condition = places.entry(place.to_owned()).or_insert_with(unknown);
        if condition.failing.replace(why.to_owned()).is_none() {
            condition.since = Instant::now();
            condition.times += 1;
        }
    }

    fn recovered(&self, place: &str) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(condition) = places.get_mut(place).filter(|condition| condition.failing.is_some()) {
            condition.failing = None;
            condition.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Health, Watch};

    #[test]
    fn a_place_fails_until_it_is_well_again() {
        let health = Health::default();
        Watch::failing(&health, "table a", "timeout");
        Watch::failing(&health, "table b", "disk full");
        let since = health.conditions().remove("table a").unwrap().since;
        Watch::failing(&health, "table a", "disk full");
        health.recovered("table b");
        health.recovered("table c");
        assert_eq!(Vec::from_iter(health.failing()), [("table a".to_owned(), "disk full".to_owned())]);
        let conditions = health.conditions();
        assert_eq!(conditions.len(), 2, "what never failed is not known");
        assert_eq!(
            (conditions["table a"].since, conditions["table a"].times),
            (since, 1),
            "another reason, the same failure"
        );
        assert_eq!(conditions["table b"].failing, None);
    }
}
