//! What there is to say about a metric, said once.

use std::borrow::Cow;
use std::hash::Hash;

use differential_dataflow::ExchangeData;

use super::Totals;
use crate::event::{Event, Micros};

/// A metric: totals of accepted events by some key of theirs, kept up to date, and a table of them with a row for each key.
///
/// Operators, lists in the checkpoint and the table follow from what it says.
pub trait Metric: Sized + 'static {
    /// What events are grouped by.
    type Key: Key;

    /// Its name in operators, and the list of the checkpoint that keeps its totals. Lower-case letters and `_`, and not `ids`.
    const NAME: &'static str;

    /// Its table.
    const TABLE: TableText;

    /// Whether there may be more keys than fit a sorted batch well: thousands and more.
    const MANY_KEYS: bool;

    /// The group that an event falls into.
    fn key(event: &Event) -> Self::Key;

    /// The columns of its table: those of the key first. `updated_at` follows them in every table.
    fn columns() -> Vec<Column<Self>>;
}

/// What totals are kept by. It is stored, so what stands for a key never changes.
pub trait Key: ExchangeData + Hash {
    /// The bytes that stand for it. Different keys have different bytes.
    fn to_bytes(&self) -> Cow<'_, [u8]>;

    /// The key that some bytes stand for, if they stand for any.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Path of a table below the output, and what it is in words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TableText(pub &'static str, pub &'static str);

/// A column of a metric's table.
pub struct Column<M: Metric> {
    /// Its name.
    pub name: &'static str,
    /// What it is in words.
    pub comment: &'static str,
    /// What a row has there.
    pub value: Value<M>,
}

impl<M: Metric> Column<M> {
    /// A column.
    pub fn new(name: &'static str, comment: &'static str, value: Value<M>) -> Self {
        Column { name, comment, value }
    }
}

/// What a row of a metric's table has in a column, as a function of its key and totals.
pub enum Value<M: Metric> {
    /// A part of the key. All parts together tell every key from every other.
    Key(fn(&M::Key) -> Cow<'_, str>),
    /// A number of events.
    Count(fn(&M::Key, &Totals) -> u64),
    /// An amount, in pence.
    Money(fn(&M::Key, &Totals) -> i128),
    /// An instant.
    Time(fn(&M::Key, &Totals) -> Micros),
}

/// What is done with each metric; see [`each`](super::each).
pub trait Visit {
    /// Does it with one.
    fn metric<M: Metric>(&mut self);
}
