//! When a checkpoint is asked for, and when an operator may answer.
//!
//! Checkpoints are asked for through a stream of their own: a message at time `s` asks for all that has changed up to
//! the end of epoch `s` since the last request, and the frontier says which requests may still come. What an operator
//! answers has to hold the epochs up to `s` and none after, though the request may come long after `s` was closed. So
//! closed epochs and requests are worked off in one order: epoch 1, request 1, epoch 2, request 2, and so on, and an
//! epoch waits until all requests for the epochs before it are known. It does not wait for a request of its own.

use std::collections::BTreeMap;

use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::frontier::MutableAntichain;

use crate::event::Epoch;

/// What an operator does next.
pub(crate) enum Turn<const OUTPUTS: usize> {
    /// Take up this epoch: it is closed, and every request before it has been answered.
    Close(Epoch),
    /// Answer the request for this epoch: it and all before it have been taken up.
    Answer(Epoch, [Capability<Epoch>; OUTPUTS]),
}

/// The requests that have come and are not answered yet, each at so many outputs.
pub(crate) struct Requests<const OUTPUTS: usize> {
    asked: BTreeMap<Epoch, [Capability<Epoch>; OUTPUTS]>,
}

impl<const OUTPUTS: usize> Requests<OUTPUTS> {
    /// None so far.
    pub(crate) fn new() -> Self {
        Requests { asked: BTreeMap::new() }
    }

    /// Takes up a request, to be answered at `outputs`.
    pub(crate) fn ask(&mut self, request: &InputCapability<Epoch>, outputs: [usize; OUTPUTS]) {
        if let Some(epoch) = request.least() {
            self.asked.entry(*epoch).or_insert_with(|| outputs.map(|output| request.delayed(epoch, output)));
        }
    }

    /// What may be done next, if anything. `frontier` is that of the requests, `open` the first epoch that was not taken
    /// up, and `closed` says whether all that belongs to an epoch is there.
    pub(crate) fn turn(
        &mut self,
        frontier: &MutableAntichain<Epoch>,
        open: Option<Epoch>,
        closed: impl Fn(&Epoch) -> bool,
    ) -> Option<Turn<OUTPUTS>> {
        let ready = |epoch: &Epoch| closed(epoch) && !frontier.less_than(epoch);
        if let Some(asked) = self.asked.first_entry().filter(|asked| open.is_none_or(|open| *asked.key() < open)) {
            return ready(asked.key()).then(|| asked.remove_entry()).map(|(epoch, caps)| Turn::Answer(epoch, caps));
        }
        open.filter(ready).map(Turn::Close)
    }
}
