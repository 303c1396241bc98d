//! What the tables hold, as far as it fits on a page: the figures of the newest publication, and the newest rejected events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tidemark_dataflows::event::{Epoch, Micros};

use super::mask::masked;

/// How many of the users with the most events are kept.
pub const TOP_USERS: usize = 10;

/// How many of the newest rejected events are kept.
pub const NEWEST_REFUSED: usize = 50;

/// Most characters of an event id that are shown.
const ID_SHOWN: usize = 64;

/// M1: sums in pence, and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WholeFigures {
    /// Sum of deposits.
    pub deposits: i128,
    /// Sum of withdrawals.
    pub withdrawals: i128,
    /// Number of deposits.
    pub deposit_count: u64,
    /// Number of withdrawals.
    pub withdrawal_count: u64,
}

impl WholeFigures {
    /// Number of events.
    pub fn count(&self) -> u64 {
        self.deposit_count + self.withdrawal_count
    }
}

/// A row of M2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFigures {
    /// The user.
    pub user_id: String,
    /// Totals.
    pub totals: WholeFigures,
}

/// A row of M3 besides its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelFigures {
    /// Number of events.
    pub count: u64,
    /// Their sum in pence.
    pub amount: i128,
}

/// A rejected event. Its payload is masked before it comes here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its id, if it has one.
    pub event_id: Option<String>,
    /// The rule that it broke.
    pub reason: String,
    /// The start of its body, masked.
    pub payload: String,
    /// Partition.
    pub partition: String,
    /// Offset in it.
    pub offset: u64,
    /// Epoch.
    pub epoch: Epoch,
    /// When it was rejected.
    pub at: Micros,
}

impl Refused {
    /// What is shown of an event: its payload, which comes with its encoding, is masked, or described where it is no text.
    pub fn masked(
        event_id: Option<&str>,
        reason: String,
        (encoding, payload): (&str, &str),
        (partition, offset): (String, u64),
        epoch: Epoch,
        at: Micros,
    ) -> Refused {
        let event_id = event_id.map(|id| id.chars().take(ID_SHOWN).collect());
        let payload = if encoding == "utf-8" { masked(payload) } else { format!("({encoding})") };
        Refused { event_id, reason, payload, partition, offset, epoch, at }
    }
}

/// What readers see in every table at one epoch.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// That epoch.
    pub epoch: Epoch,
    /// M1.
    pub whole: WholeFigures,
    /// M2: the users with the most events, first the one with the most.
    pub users: Vec<UserFigures>,
    /// M3, by channel and event type.
    pub channels: BTreeMap<(String, String), ChannelFigures>,
    /// The rejected events that came last, the newest last.
    pub refused: VecDeque<Refused>,
}

impl Figures {
    /// Takes up a row of M2. Counts only ever grow, so whoever once had fewer events than so many others can come back only by
    /// a row of his own: the users kept are always those with the most.
    pub fn user(&mut self, user_id: &str, totals: WholeFigures) {
        self.users.retain(|user| user.user_id != user_id);
        let behind = |user: &UserFigures| (user.totals.count(), user_id) > (totals.count(), user.user_id.as_str());
        let at = self.users.partition_point(behind);
        if at < TOP_USERS {
            self.users.insert(at, UserFigures { user_id: user_id.to_owned(), totals });
            self.users.truncate(TOP_USERS);
        }
    }

    /// Whether a user with so many events could be among those kept.
    pub fn may_rank(&self, count: u64) -> bool {
        self.users.len() < TOP_USERS || self.users.last().is_some_and(|last| last.totals.count() <= count)
    }

    /// How many rejected events are kept at most: of those that come at once, the others need not be taken up.
    pub fn room_for_refused(&self) -> usize {
        NEWEST_REFUSED
    }

    /// Takes up a rejected event.
    pub fn refuse(&mut self, refused: Refused) {
        self.refused.push_back(refused);
        while self.refused.len() > NEWEST_REFUSED {
            self.refused.pop_front();
        }
    }
}

/// The newest figures. Whoever publishes puts others in their place, whoever looks takes a reference: neither holds up the
/// other for longer than that takes.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Arc<Figures>>);

impl Shown {
    /// The newest figures.
    pub fn get(&self) -> Arc<Figures> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in their place.
    pub fn set(&self, figures: Figures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(figures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(figures: &Figures) -> Vec<(&str, u64)> {
        figures.users.iter().map(|user| (user.user_id.as_str(), user.totals.count())).collect()
    }

    #[test]
    fn the_users_with_the_most_events_are_kept() {
        let mut figures = Figures::default();
        let of = |count| WholeFigures { deposit_count: count, ..WholeFigures::default() };
        for user in 0..TOP_USERS as u64 {
            figures.user(&format!("user{user}"), of(10 + user));
        }
        assert!(!figures.may_rank(9) && figures.may_rank(10));
        figures.user("late", of(9));
        assert_eq!(ranked(&figures).last(), Some(&("user0", 10)));
        // He passes others, and falls out of nobody's sight.
        figures.user("user3", of(99));
        figures.user("late", of(98));
        assert_eq!(ranked(&figures)[..3], [("user3", 99), ("late", 98), ("user9", 19)]);
        assert_eq!(figures.users.len(), TOP_USERS);
        figures.user("aaa", of(19));
        assert_eq!(ranked(&figures)[2..4], [("aaa", 19), ("user9", 19)], "by name where counts are equal");
    }

    #[test]
    fn the_newest_rejected_events_are_kept() {
        let mut figures = Figures::default();
        for offset in 0..120 {
            let (reason, payload, partition) = (String::new(), String::new(), String::new());
            figures.refuse(Refused { event_id: None, reason, payload, partition, offset, epoch: 1, at: Micros(0) });
        }
        let offsets = figures.refused.iter().map(|refused| refused.offset);
        assert!(offsets.eq(70..120));
    }
}
