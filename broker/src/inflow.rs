//! Messages that come in on a link: credit, and transfers that are put together.

use crate::hub::MAX_MESSAGE;
use fe2o3_amqp_types::performatives::Transfer;
use std::borrow::Cow;

/// What a message may be longer than the largest batch: the annotations around it.
const SLACK: usize = 1024;

/// A whole message.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub(crate) id: u32,
    pub(crate) format: u32,
    /// The sender does not want to know what became of it.
    pub(crate) settled: bool,
    /// None if it was longer than a message may be.
    pub(crate) payload: Option<Cow<'a, [u8]>>,
}

#[derive(Debug)]
struct Partial {
    id: u32,
    format: u32,
    settled: bool,
    payload: Option<Vec<u8>>,
}

/// The receiving end of a link.
#[derive(Debug)]
pub(crate) struct Inflow {
    granted: u32,
    credit: u32,
    delivery_count: u32,
    partial: Option<Partial>,
}

impl Inflow {
    pub(crate) fn new(granted: u32, delivery_count: u32) -> Self {
        Self { granted, credit: 0, delivery_count, partial: None }
    }

    /// Delivery count and credit to tell the sender, if it is time to.
    pub(crate) fn refill(&mut self) -> Option<[u32; 2]> {
        (self.credit <= self.granted / 2).then(|| {
            self.credit = self.granted;
            [self.delivery_count, self.credit]
        })
    }

    /// Takes a transfer. Answers the message if it is whole.
    pub(crate) fn take<'a>(&mut self, transfer: &Transfer, payload: &'a [u8]) -> Result<Option<Delivery<'a>>, String> {
        let first = self.partial.is_none();
        let partial = match (self.partial.take(), transfer.delivery_id) {
            (Some(mut partial), _) => {
                partial.settled |= transfer.settled.unwrap_or(false);
                partial
            }
            (None, Some(id)) => Partial {
                id,
                format: transfer.message_format.unwrap_or(0),
                settled: transfer.settled.unwrap_or(false),
                payload: Some(Vec::new()),
            },
            (None, None) => return Err("the first transfer of a delivery has no delivery-id".to_owned()),
        };
        if first {
            self.credit = self.credit.checked_sub(1).ok_or("a transfer without credit")?;
            self.delivery_count = self.delivery_count.wrapping_add(1);
        }
        if transfer.aborted {
            return Ok(None);
        }
        let Partial { id, format, settled, payload: before } = partial;
        let before = before.filter(|before| before.len() + payload.len() <= MAX_MESSAGE + SLACK);
        let whole = match before {
            None => None,
            Some(before) if before.is_empty() && !transfer.more => Some(Cow::Borrowed(payload)),
            Some(mut before) => {
                before.extend_from_slice(payload);
                Some(Cow::Owned(before))
            }
        };
        if transfer.more {
            self.partial = Some(Partial { id, format, settled, payload: whole.map(Cow::into_owned) });
            return Ok(None);
        }
        Ok(Some(Delivery { id, format, settled, payload: whole }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(id: Option<u32>, more: bool) -> Transfer {
        Transfer {
            handle: 0.into(),
            delivery_id: id,
            delivery_tag: None,
            message_format: Some(7),
            settled: None,
            more,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        }
    }

    fn inflow() -> Inflow {
        let mut inflow = Inflow::new(4, u32::MAX);
        assert_eq!(inflow.refill(), Some([u32::MAX, 4]));
        inflow
    }

    #[test]
    fn parts_become_one_message() {
        let mut inflow = inflow();
        assert!(inflow.take(&transfer(Some(9), true), b"one ").unwrap().is_none());
        assert!(inflow.take(&transfer(None, true), b"two ").unwrap().is_none());
        let delivery =
            inflow.take(&Transfer { settled: Some(true), ..transfer(None, false) }, b"three").unwrap().unwrap();
        assert_eq!((delivery.id, delivery.format, delivery.settled), (9, 7, true));
        assert_eq!(delivery.payload.as_deref(), Some(&b"one two three"[..]));
        assert!(inflow.take(&transfer(None, false), b"").is_err());
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_still_is_one_delivery() {
        let mut inflow = inflow();
        let part = vec![0; 60_000];
        for _ in 0..100 {
            assert!(inflow.take(&transfer(Some(1), true), &part).unwrap().is_none());
        }
        assert!(inflow.partial.as_ref().unwrap().payload.is_none());
        let delivery = inflow.take(&transfer(None, false), b"end").unwrap().unwrap();
        assert!(delivery.id == 1 && delivery.payload.is_none());
        let next = inflow.take(&transfer(Some(2), false), b"next").unwrap().unwrap();
        assert_eq!(next.payload.as_deref(), Some(&b"next"[..]));
    }

    #[test]
    fn an_aborted_message_is_forgotten_and_credit_is_kept_to() {
        let mut inflow = inflow();
        assert!(inflow.take(&transfer(Some(1), true), b"x").unwrap().is_none());
        assert!(inflow.take(&Transfer { aborted: true, ..transfer(None, false) }, b"").unwrap().is_none());
        assert_eq!(inflow.refill(), None);
        for id in 2..5 {
            assert!(inflow.take(&transfer(Some(id), false), b"x").unwrap().is_some());
        }
        assert!(inflow.take(&transfer(Some(5), false), b"x").is_err());
        assert_eq!(inflow.refill(), Some([3, 4]));
    }
}
