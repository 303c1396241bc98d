//! Why an event is not counted: the rules of the contract, by the names that the tables carry.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($variant:ident = $name:literal: $doc:literal;)*) => {
        /// A rule that an event broke. The order is the order in which the rules are checked.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $doc] $variant,)* }

        impl Reason {
            /// Every rule, in order.
            pub const ALL: [Reason; Reason::COUNT] = [$(Reason::$variant,)*];
            /// Number of rules.
            pub const COUNT: usize = [$($name,)*].len();

            /// The name as it stands in `rejection_reason`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// When an event breaks it, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => $doc,)* }
            }
        }
    };
}

reasons! {
    MalformedEvent = "R000_malformed_event": "Not exactly one JSON object within the limits.";
    NullEventId = "R010_null_event_id": "`event_id` is missing, null, no string, empty or too long.";
    NullUserId = "R020_null_user_id": "`user_id` is missing, null, no string, empty or too long.";
    NullEventTime = "R030_null_event_time": "`event_time` is missing, null or no timestamp.";
    NullIngestTime = "R040_null_ingest_time": "`ingest_time` is missing, null or no timestamp.";
    NullEventType = "R050_null_event_type": "`event_type` is missing, null or no string.";
    NullAmount = "R060_null_amount": "`amount` is missing, null or no number.";
    NullCurrency = "R070_null_currency": "`currency` is missing, null or no string.";
    NullChannel = "R080_null_channel": "`channel` is missing, null or no string.";
    InvalidEventType = "R090_invalid_event_type": "`event_type` is none of the two values.";
    InvalidChannel = "R100_invalid_channel": "`channel` is none of the three values.";
    InvalidCurrency = "R110_invalid_currency": "`currency` is not `GBP`.";
    NonPositiveAmount = "R120_non_positive_amount": "`amount` is zero or negative.";
    AmountNotRepresentable = "R130_amount_not_representable": "`amount` is no whole number of pence below 10^17.";
    EventTimeInFuture = "R140_event_time_in_future": "`event_time` is too far after the arrival.";
    LateEvent = "R200_late_event": "`event_time` is at or before the watermark of its epoch.";
    ConflictingDuplicate = "R210_conflicting_duplicate": "Another event with this id and other contents was accepted.";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
