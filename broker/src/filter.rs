//! Where a receiver wants to begin.

use crate::log::Log;
use fe2o3_amqp_types::messaging::Source;
use fe2o3_amqp_types::primitives::Value;

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Behind the newest event.
    Latest,
    Offset(i64, bool),
    Sequence(i64, bool),
    /// Milliseconds since 1970.
    Time(i64, bool),
}

impl Position {
    /// Reads the selector filter of a source; a receiver without one begins behind the newest event.
    pub(crate) fn of(source: Option<&Source>) -> Result<Self, String> {
        let filters = source.and_then(|source| source.filter.as_ref());
        let selector = filters.and_then(|filters| filters.iter().find(|(name, _)| is_selector(name.as_str())));
        match selector {
            None => Ok(Self::Latest),
            Some((_, value)) => match selector_text(value) {
                Some(text) => Self::parse(&text),
                None => Err("The selector filter is not a string.".to_owned()),
            },
        }
    }

    fn parse(selector: &str) -> Result<Self, String> {
        let refuse = || format!("The selector '{selector}' is not understood.");
        let (name, rest) = selector.split_once('>').ok_or_else(refuse)?;
        let (inclusive, value) = match rest.strip_prefix('=') {
            Some(value) => (true, value),
            None => (false, rest),
        };
        let value = value.trim().trim_matches('\'');
        let number = || value.parse::<i64>().map_err(|_| refuse());
        match name.trim().strip_prefix("amqp.annotation.").ok_or_else(refuse)? {
            "x-opt-offset" if value == "@latest" => Ok(Self::Latest),
            "x-opt-offset" => Ok(Self::Offset(number()?, inclusive)),
            "x-opt-sequence-number" => Ok(Self::Sequence(number()?, inclusive)),
            "x-opt-enqueued-time" => Ok(Self::Time(number()?, inclusive)),
            _ => Err(refuse()),
        }
    }

    /// The first sequence number to deliver. What is no longer kept, or never was, means the oldest event after it.
    pub(crate) fn first(self, log: &Log) -> u64 {
        let bounds = log.bounds();
        match self {
            Self::Latest => bounds.next,
            Self::Offset(offset, inclusive) => log.at_offset(offset, inclusive),
            Self::Time(time, inclusive) => log.at_time(time, inclusive),
            Self::Sequence(sequence, inclusive) => {
                let first = if inclusive { sequence } else { sequence.saturating_add(1) };
                u64::try_from(first).unwrap_or(0).clamp(bounds.begin, bounds.next)
            }
        }
    }
}

fn is_selector(name: &str) -> bool {
    name.contains("selector-filter")
}

fn selector_text(value: &Value) -> Option<String> {
    match value {
        Value::Described(described) => selector_text(&described.value),
        Value::String(text) => Some(text.clone()),
        Value::Symbol(text) => Some(text.as_str().to_owned()),
        Value::Binary(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_all_clients_are_understood() {
        let parse = |selector: &str| Position::parse(selector);
        assert_eq!(parse("amqp.annotation.x-opt-offset > '@latest'"), Ok(Position::Latest));
        assert_eq!(parse("amqp.annotation.x-opt-offset > '-1'"), Ok(Position::Offset(-1, false)));
        assert_eq!(parse("amqp.annotation.x-opt-offset >='120'"), Ok(Position::Offset(120, true)));
        assert_eq!(parse("amqp.annotation.x-opt-sequence-number >= 5"), Ok(Position::Sequence(5, true)));
        assert_eq!(
            parse("amqp.annotation.x-opt-enqueued-time > '1700000000000'"),
            Ok(Position::Time(1_700_000_000_000, false))
        );
        for bad in ["", "x", "amqp.annotation.x-opt-offset > 'x'", "x-opt-offset > '1'", "amqp.annotation.other > '1'"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_outside_the_log_become_its_ends() {
        let mut log = Log::default();
        (0..10).for_each(|i| log.append_body(b"x", i));
        log.expire(4);
        for (sequence, inclusive, first) in
            [(-1, false, 4), (0, true, 4), (4, false, 5), (9, false, 10), (99, true, 10), (i64::MAX, false, 10)]
        {
            assert_eq!(Position::Sequence(sequence, inclusive).first(&log), first);
        }
        assert_eq!((Position::Latest.first(&log), Position::Offset(0, false).first(&log)), (10, 4));
    }
}
