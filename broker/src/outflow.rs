//! Messages that go out on a link: the credit that its receiver has given, and the window of the session.

use fe2o3_amqp_types::performatives::Flow;

/// The sending end of a link.
#[derive(Debug, Default)]
pub(crate) struct Outflow {
    pub(crate) credit: u32,
    pub(crate) delivery_count: u32,
    /// The receiver wants what is there now, and its credit to be used up.
    pub(crate) drain: bool,
    /// The receiver wants to be told the state of the link.
    pub(crate) echo: bool,
}

impl Outflow {
    /// Takes the receiver's view of the link.
    pub(crate) fn update(&mut self, flow: &Flow) {
        if let Some(credit) = flow.link_credit {
            let under_way = self.delivery_count.wrapping_sub(flow.delivery_count.unwrap_or(0));
            self.credit = credit.saturating_sub(under_way);
        }
        self.drain = flow.drain;
        self.echo |= flow.echo;
    }

    /// Uses one credit. Answers the number of the delivery on this link.
    pub(crate) fn spend(&mut self) -> u32 {
        let number = self.delivery_count;
        self.credit = self.credit.saturating_sub(1);
        self.delivery_count = self.delivery_count.wrapping_add(1);
        number
    }

    /// Delivery count and credit to tell the receiver, if it has asked. `idle` says that nothing is left to send.
    pub(crate) fn report(&mut self, idle: bool) -> Option<[u32; 2]> {
        let drained = self.drain && idle;
        if drained {
            self.delivery_count = self.delivery_count.wrapping_add(self.credit);
            (self.credit, self.drain) = (0, false);
        }
        (drained || std::mem::take(&mut self.echo)).then_some([self.delivery_count, self.credit])
    }
}

/// Numbers of a session, and how many frames its peer takes.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) next_outgoing_id: u32,
    pub(crate) next_delivery_id: u32,
    pub(crate) frames: u32,
}

impl Window {
    pub(crate) fn new(frames: u32) -> Self {
        Self { next_outgoing_id: 0, next_delivery_id: 0, frames }
    }

    /// Takes the peer's view of the session.
    pub(crate) fn update(&mut self, flow: &Flow) {
        let under_way = self.next_outgoing_id.wrapping_sub(flow.next_incoming_id.unwrap_or(0));
        self.frames = flow.incoming_window.saturating_sub(under_way);
    }

    /// The number of the next delivery.
    pub(crate) fn number(&mut self) -> u32 {
        let number = self.next_delivery_id;
        self.next_delivery_id = number.wrapping_add(1);
        number
    }

    /// A delivery took so many frames.
    pub(crate) fn sent(&mut self, frames: u32) {
        self.next_outgoing_id = self.next_outgoing_id.wrapping_add(frames);
        // A delivery in several frames may go over: the peer's window bounds what is begun.
        self.frames = self.frames.saturating_sub(frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(delivery_count: Option<u32>, credit: u32) -> Flow {
        Flow {
            next_incoming_id: Some(0),
            incoming_window: 100,
            next_outgoing_id: 0,
            outgoing_window: 100,
            handle: None,
            delivery_count,
            link_credit: Some(credit),
            available: None,
            drain: false,
            echo: false,
            properties: None,
        }
    }

    #[test]
    fn credit_counts_from_what_the_receiver_has_seen_also_where_numbers_wrap() {
        let mut out = Outflow { delivery_count: u32::MAX, ..Outflow::default() };
        out.update(&flow(Some(u32::MAX), 10));
        (0..3).for_each(|_| {
            out.spend();
        });
        assert_eq!((out.credit, out.delivery_count), (7, 2));
        out.update(&flow(Some(0), 10));
        assert_eq!(out.credit, 8);
        out.update(&flow(Some(u32::MAX), 1));
        assert_eq!(out.credit, 0);
    }

    #[test]
    fn drain_uses_credit_up_once_nothing_is_left() {
        let mut out = Outflow::default();
        out.update(&Flow { drain: true, ..flow(Some(0), 10) });
        assert_eq!(out.report(false), None);
        assert_eq!(out.report(true), Some([10, 0]));
        assert_eq!(out.report(true), None);
    }

    #[test]
    fn a_window_without_end_stays_open() {
        let mut window = Window::new(u32::MAX);
        window.sent(12);
        window.update(&Flow { next_incoming_id: Some(10), incoming_window: u32::MAX, ..flow(None, 0) });
        assert_eq!(window.frames, u32::MAX - 2);
    }
}
