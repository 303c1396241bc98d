//! What went wrong with an event hub, by what can be done about it.

use std::error::Error as StdError;

use azure_core_amqp::error::{AmqpErrorCondition, AmqpErrorKind};
use azure_core_amqp::{AmqpDescribedError, AmqpError};
use azure_messaging_eventhubs::EventHubsError;
use azure_messaging_eventhubs::error::ErrorKind as Reported;

/// Links of an error's chain that are followed, so that one that leads back to itself ends.
const MAX_CHAIN: usize = 16;

/// Who has to act.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was configured cannot be meant.
    Usage,
    /// We are not who may do this: a wrong key, an expired signature, a missing role.
    Unauthorized,
    /// There is no such namespace, event hub, consumer group or partition.
    NotFound,
    /// Another receiver with a higher owner level reads the partition.
    Stolen,
    /// The event hub is not the one that was read before.
    Changed,
    /// What comes next is past its retention.
    Expired,
    /// Anything else: trying again may help.
    Passing,
}

/// An event hub that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Error {
    kind: ErrorKind,
    what: String,
    why: String,
}

impl Error {
    /// An error of `kind`: `what` failed, and `why`.
    pub fn new(kind: ErrorKind, what: impl Into<String>, why: impl Into<String>) -> Self {
        Error { kind, what: what.into(), why: why.into() }
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What failed.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Why.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Nobody answered within `seconds`.
    pub(crate) fn timeout(what: impl Into<String>, seconds: f64) -> Self {
        Error::new(ErrorKind::Passing, what, format!("no answer within {seconds} s"))
    }

    /// What the client says about `what`.
    pub(crate) fn of_client(what: impl Into<String>, error: &EventHubsError) -> Self {
        let (kind, why) = match &error.kind {
            Reported::ConsumerDisconnected(Some(described)) => of_described(described),
            Reported::ConsumerDisconnected(None) => (ErrorKind::Stolen, "the receiver was disconnected".to_owned()),
            _ => read(error),
        };
        Error::new(kind, what, why)
    }

    /// What the client's credentials or its HTTP requests say about `what`.
    pub(crate) fn of_core(what: impl Into<String>, error: &azure_core::Error) -> Self {
        let (kind, why) = read(error);
        Error::new(kind, what, why)
    }
}

/// Looks along the chain for a link that says more than that something failed.
fn read(error: &(dyn StdError + 'static)) -> (ErrorKind, String) {
    let mut link = Some(error);
    for _ in 0..MAX_CHAIN {
        let Some(current) = link else { break };
        if let Some(found) = current.downcast_ref::<AmqpError>().and_then(of_amqp) {
            return found;
        }
        if let Some(found) = current.downcast_ref::<azure_core::Error>().and_then(of_http) {
            return found;
        }
        link = current.source();
    }
    let text = error.to_string();
    (of_text(&text), innermost(error))
}

/// The last link is the one that knows: those before it repeat it, or say that something failed.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    for _ in 0..MAX_CHAIN {
        match last.source() {
            Some(source) => last = source,
            None => break,
        }
    }
    let text = last.to_string();
    if text.is_empty() { error.to_string() } else { text }
}

fn of_amqp(error: &AmqpError) -> Option<(ErrorKind, String)> {
    match error.kind() {
        AmqpErrorKind::AmqpDescribedError(described) => Some(of_described(described)),
        AmqpErrorKind::ManagementStatusCode(status, description) => {
            let why = description.clone().unwrap_or_else(|| format!("status {status}"));
            Some((of_status(u16::from(*status)), why))
        }
        _ => None,
    }
}

fn of_described(error: &AmqpDescribedError) -> (ErrorKind, String) {
    let kind = match error.condition {
        AmqpErrorCondition::LinkStolen => ErrorKind::Stolen,
        AmqpErrorCondition::UnauthorizedAccess => ErrorKind::Unauthorized,
        AmqpErrorCondition::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Passing,
    };
    let condition = format!("{:?}", error.condition);
    let why = match error.description.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("{text} ({condition})"),
        None => condition,
    };
    (kind, why)
}

fn of_http(error: &azure_core::Error) -> Option<(ErrorKind, String)> {
    let status = error.http_status()?;
    let inner = error.to_string();
    Some((of_status(u16::from(status)), format!("status {}: {inner}", u16::from(status))))
}

fn of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Unauthorized,
        404 => ErrorKind::NotFound,
        _ => ErrorKind::Passing,
    }
}

/// The last resort: links that are texts only.
fn of_text(text: &str) -> ErrorKind {
    let holds = |word: &str| text.contains(word);
    if holds("partition stolen") || holds("link:stolen") || holds("LinkStolen") {
        ErrorKind::Stolen
    } else if holds("unauthorized-access") || holds("UnauthorizedAccess") || holds("Unauthorized") {
        ErrorKind::Unauthorized
    } else if holds("amqp:not-found") || holds("NotFound") {
        ErrorKind::NotFound
    } else {
        ErrorKind::Passing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(condition: AmqpErrorCondition) -> AmqpError {
        let error = AmqpDescribedError::new(condition, Some("because".into()), Default::default());
        AmqpError::from(AmqpErrorKind::AmqpDescribedError(error))
    }

    #[test]
    fn conditions_decide_who_acts_however_deep_they_lie() {
        for (condition, kind) in [
            (AmqpErrorCondition::LinkStolen, ErrorKind::Stolen),
            (AmqpErrorCondition::UnauthorizedAccess, ErrorKind::Unauthorized),
            (AmqpErrorCondition::NotFound, ErrorKind::NotFound),
            (AmqpErrorCondition::ServerBusyError, ErrorKind::Passing),
        ] {
            let plain = EventHubsError::from(described(condition.clone()));
            assert_eq!(Error::of_client("x", &plain).kind(), kind);
            let deep =
                azure_core::Error::with_error(azure_core::error::ErrorKind::Other, described(condition), "wrapped");
            let deep = EventHubsError::from(AmqpError::from(deep));
            let error = Error::of_client("reading", &deep);
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().starts_with("reading: because"), "{error}");
        }
    }

    #[test]
    fn what_has_no_condition_is_tried_again() {
        let error = EventHubsError::from(AmqpError::with_message("broken pipe"));
        assert_eq!(Error::of_client("x", &error).kind(), ErrorKind::Passing);
    }
}
