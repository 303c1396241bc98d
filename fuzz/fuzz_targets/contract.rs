//! The two paths of the contract against each other, on any bytes.
//!
//! The fast path may only accept what the strict path accepts, as the same event; and a rejection must be fit to be
//! stored, whatever the body holds. Run it from the root of the repository, beginning with the samples:
//!
//! ```text
//! cargo +nightly fuzz run contract fuzz/corpus/contract fuzz/seeds/contract -- -dict=fuzz/seeds/contract.dict
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_dataflows::block::Body;
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::{Micros, Position};
use tidemark_dataflows::reason::Reason;

/// Longest explanation of a rejection, in bytes: the quarantine table keeps one for every rejected event.
const MAX_DETAIL_BYTES: usize = 600;

fuzz_target!(|bytes: &[u8]| {
    let contract = Contract { max_future_skew_us: 3_600_000_000, id_key: [1, 2], curated: true };
    // 2026-01-01T10:00:00Z
    let arrival = Micros(1_767_261_600_000_000);
    let body = Body { bytes, whole_len: bytes.len() as u64, at: Position::default(), arrival, section: None };

    let strict = contract.check_strict(&body, 0);
    if let Some(event) = contract.check_fast(&body, 0) {
        assert_eq!(strict.as_ref(), Ok(&event), "the fast path accepts, the strict path says otherwise");
    }
    assert_eq!(contract.check(&body, 0), strict);
    // The curated members are read with more care for text: without them nothing more may pass.
    let plain = Contract { curated: false, ..contract.clone() };
    assert_eq!(plain.check_fast(&body, 0).is_some(), contract.check_fast(&body, 0).is_some());
    assert_eq!(plain.check_strict(&body, 0).is_ok(), strict.is_ok());
    match strict {
        Ok(event) => {
            assert!(event.amount.0 > 0 && event.amount.0 < 100_000_000_000_000_000);
            assert!(event.time.0 >= 0 && event.time.0 <= arrival.0 + contract.max_future_skew_us);
        }
        Err(violation) => {
            let no_id = matches!(violation.reason, Reason::MalformedEvent | Reason::NullEventId);
            assert_eq!(violation.event_id.is_none(), no_id);
            assert!(violation.detail.is_some_and(|detail| (1..=MAX_DETAIL_BYTES).contains(&detail.len())));
        }
    }
});
