//! From what is told of epochs to their spans: one for each epoch, and below it one for each stage.

use std::collections::BTreeMap;

use serde_json::json;
use tidemark_dataflows::event::{Epoch, Micros};
use tidemark_dataflows::tally::EpochSummary;

use super::span::{Ids, Span};
use crate::telemetry::Stage;
use crate::telemetry::follow::Told;

/// The stages that an epoch comes to one after the other, and becomes visible with the last.
const WAY: [Stage; 7] =
    [Stage::Opened, Stage::Cut, Stage::Decoded, Stage::Distinct, Stage::Aggregated, Stage::Delivered, Stage::Published];

const PUBLISHED: usize = WAY.len() - 1;

/// How long after its publication an epoch waits for what is still to be told of it: workers tell between their steps.
const LATE_US: i64 = 2_000_000;

/// Epochs on their way.
pub(super) struct Epochs {
    /// When listening began.
    since: Micros,
    open: BTreeMap<Epoch, Open>,
    /// Checkpoints that were asked for, and the spans of their epochs that are done.
    asked: BTreeMap<Epoch, (Micros, Option<Ids>)>,
}

struct Open {
    ids: Ids,
    at: [Option<Micros>; WAY.len()],
    summary: Option<Box<EpochSummary>>,
}

impl Epochs {
    /// None, at the beginning.
    pub(super) fn since(now: Micros) -> Epochs {
        Epochs { since: now, open: BTreeMap::new(), asked: BTreeMap::new() }
    }

    /// Takes down what is told. A checkpoint that is done becomes a span.
    pub(super) fn take(&mut self, told: Told, spans: &mut Vec<Span>) {
        match told {
            Told::Decided(summary) => {
                let open = self.of(summary.mark.epoch);
                open.summary = Some(summary);
            }
            Told::Asked { epoch, at } => {
                self.asked.insert(epoch, (at, None));
            }
            Told::Reached { stage: Stage::Checkpointed, epoch, at } => spans.extend(self.checkpoint(epoch, at)),
            Told::Reached { stage, epoch, at } => {
                let Some(place) = WAY.iter().position(|on_the_way| *on_the_way == stage) else { return };
                if matches!(stage, Stage::Opened | Stage::Cut) {
                    self.of(epoch);
                }
                self.open.range_mut(..=epoch).for_each(|(_, open)| {
                    open.at[place].get_or_insert(at);
                });
            }
        }
    }

    fn of(&mut self, epoch: Epoch) -> &mut Open {
        self.open.entry(epoch).or_insert_with(|| Open { ids: Ids::new(), at: [None; WAY.len()], summary: None })
    }

    fn checkpoint(&mut self, epoch: Epoch, at: Micros) -> Option<Span> {
        let later = self.asked.split_off(&(epoch + 1));
        let (from, done) = std::mem::replace(&mut self.asked, later).remove(&epoch)?;
        let parent = done.or_else(|| self.open.get(&epoch).map(|open| open.ids));
        let ids = parent.map_or_else(Ids::new, Ids::beside);
        let attributes = vec![("tidemark.epoch", json!(epoch))];
        Some(Span {
            name: "checkpoint",
            ids,
            parent: parent.map(|ids| ids.span),
            from: from.min(at),
            to: at,
            attributes,
        })
    }

    /// Makes spans of the epochs of which everything is known, or which nothing more will be told of.
    pub(super) fn finish(&mut self, now: Micros, spans: &mut Vec<Span>) {
        while let Some(first) = self.open.first_entry() {
            let open = first.get();
            let whole = open.at[Stage::Decoded as usize..].iter().all(Option::is_some) && open.summary.is_some();
            let over = open.at[PUBLISHED].is_some_and(|at| now.0.saturating_sub(at.0) > LATE_US);
            if !whole && !over {
                return;
            }
            let (epoch, open) = first.remove_entry();
            self.spans_of(epoch, &open, spans);
        }
    }

    /// The same of all that are visible, at the end.
    pub(super) fn finish_all(&mut self, spans: &mut Vec<Span>) {
        for (epoch, open) in std::mem::take(&mut self.open) {
            if open.at[PUBLISHED].is_some() {
                self.spans_of(epoch, &open, spans);
            }
        }
    }

    fn spans_of(&mut self, epoch: Epoch, open: &Open, spans: &mut Vec<Span>) {
        let Some(end) = open.at[PUBLISHED] else { return };
        if let Some((_, done)) = self.asked.get_mut(&epoch) {
            *done = Some(open.ids);
        }
        // What was cut by an earlier run begins anew with this one.
        let replayed = open.at[Stage::Cut as usize].is_none();
        let opened = open.summary.as_ref().map(|summary| summary.mark.opened).or(open.at[0]).unwrap_or(self.since);
        let opened = if replayed { opened.max(self.since) } else { opened }.min(end);
        let mut attributes = vec![("tidemark.epoch", json!(epoch)), ("tidemark.replayed", json!(replayed))];
        if let Some(EpochSummary { tally, .. }) = open.summary.as_deref() {
            attributes.extend([
                ("tidemark.received", json!(tally.received)),
                ("tidemark.accepted", json!(tally.accepted)),
                ("tidemark.duplicates", json!(tally.duplicates)),
                ("tidemark.rejected", json!(tally.rejected_total())),
                ("tidemark.remembered_ids", json!(tally.retained_ids)),
            ]);
        }
        spans.push(Span { name: "epoch", ids: open.ids, parent: None, from: opened, to: end, attributes });
        let done = in_order(open.at, opened, end);
        let stages = WAY.iter().zip(done).skip(if replayed { Stage::Decoded as usize } else { Stage::Cut as usize });
        let mut from = opened;
        for (stage, to) in stages {
            let attributes = vec![("tidemark.epoch", json!(epoch))];
            let (ids, parent) = (open.ids.beside(), Some(open.ids.span));
            spans.push(Span { name: stage.as_str(), ids, parent, from, to, attributes });
            from = to;
        }
    }
}

/// When each stage was done, in order: one that is told of late was done when the next one was, at the latest.
fn in_order(at: [Option<Micros>; WAY.len()], opened: Micros, end: Micros) -> [Micros; WAY.len()] {
    let mut next = end;
    let mut done = at.map(|at| at.unwrap_or(end));
    for (done, known) in done.iter_mut().zip(at).rev() {
        *done = known.unwrap_or(next).min(next).max(opened);
        next = *done;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_dataflows::event::EpochMark;
    use tidemark_dataflows::tally::Tally;

    fn reached(stage: Stage, epoch: Epoch, at: i64) -> Told {
        Told::Reached { stage, epoch, at: Micros(at) }
    }

    fn decided(epoch: Epoch, opened: i64) -> Told {
        let mark = EpochMark { epoch, opened: Micros(opened), closed: Micros(opened + 5), missing: 0, waits: true };
        let tally = Tally { received: 3, ..Tally::default() };
        Told::Decided(Box::new(EpochSummary { mark, tally, next_watermark: None, held_back: None }))
    }

    fn spans(told: impl IntoIterator<Item = Told>, now: i64) -> Vec<Span> {
        let (mut epochs, mut spans) = (Epochs::since(Micros(100)), Vec::new());
        told.into_iter().for_each(|told| epochs.take(told, &mut spans));
        epochs.finish(Micros(now), &mut spans);
        spans
    }

    fn times(spans: &[Span]) -> Vec<(&str, i64, i64)> {
        spans.iter().map(|span| (span.name, span.from.0, span.to.0)).collect()
    }

    #[test]
    fn stages_follow_each_other_although_workers_tell_of_them_late() {
        use Stage::{Aggregated, Cut, Decoded, Delivered, Distinct, Opened, Published};
        let told = [
            reached(Opened, 4, 111),
            reached(Cut, 4, 120),
            decided(4, 110),
            reached(Delivered, 4, 140),
            reached(Distinct, 4, 133),
            reached(Decoded, 5, 145),
            reached(Aggregated, 4, 141),
            reached(Published, 4, 150),
        ];
        let found = spans(told, 151);
        let expected = [
            ("epoch", 110, 150),
            ("cut", 110, 120),
            ("decoded", 120, 133),
            ("distinct", 133, 133),
            ("aggregated", 133, 140),
            ("delivered", 140, 140),
            ("published", 140, 150),
        ];
        assert_eq!(times(&found), expected);
        assert!(found[1..].iter().all(|span| span.parent == Some(found[0].ids.span)));
        assert!(found.iter().all(|span| span.ids.trace == found[0].ids.trace));
    }

    #[test]
    fn what_is_never_told_of_is_not_waited_for_for_ever() {
        let told = || [decided(7, 20), reached(Stage::Distinct, 9, 130), reached(Stage::Published, 9, 150)];
        assert_eq!(spans(told(), 151), []);
        let found = spans(told(), 151 + LATE_US);
        // It was cut before this process began, so it begins with it.
        let expected = [
            ("epoch", 100, 150),
            ("decoded", 100, 130),
            ("distinct", 130, 130),
            ("aggregated", 130, 150),
            ("delivered", 150, 150),
            ("published", 150, 150),
        ];
        assert_eq!(times(&found), expected);
        assert!(found[0].attributes.contains(&("tidemark.replayed", json!(true))));
    }

    #[test]
    fn a_checkpoint_belongs_to_its_epoch_also_when_that_is_done() {
        let all = |epoch| WAY.into_iter().map(move |stage| reached(stage, epoch, 120));
        let (mut epochs, mut spans) = (Epochs::since(Micros(100)), Vec::new());
        let asked = Told::Asked { epoch: 2, at: Micros(130) };
        all(2).chain([decided(2, 110), asked]).for_each(|told| epochs.take(told, &mut spans));
        epochs.finish(Micros(121), &mut spans);
        epochs.take(reached(Stage::Checkpointed, 2, 160), &mut spans);
        let (first, last) = (&spans[0], &spans[spans.len() - 1]);
        assert_eq!((last.name, last.from, last.to), ("checkpoint", Micros(130), Micros(160)));
        assert_eq!((last.parent, last.ids.trace), (Some(first.ids.span), first.ids.trace));
    }
}
