//! How a broker is to be.

use crate::error::Error;
use crate::log::Retention;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// More partitions than any hub of the service has.
pub const MAX_PARTITIONS: usize = 2048;
/// The consumer group that every hub has.
pub const DEFAULT_CONSUMER_GROUP: &str = "$Default";

/// Certificate and key of a broker that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate, and those of its issuers behind it.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// How a broker is to be. The default listens on a free port of the loopback interface and asks for tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Name of the event hub.
    pub hub: String,
    /// Number of its partitions, 1 to [`MAX_PARTITIONS`].
    pub partitions: usize,
    /// Consumer groups besides [`DEFAULT_CONSUMER_GROUP`].
    pub consumer_groups: Vec<String>,
    /// How long events are kept in memory.
    pub retention: Retention,
    /// Name of the shared access key.
    pub key_name: String,
    /// The shared access key. Not shown by `Debug`.
    pub key: String,
    /// Whether a link needs a token.
    pub require_tokens: bool,
    /// Whether tokens of Microsoft Entra ID are accepted. They are not verified, as the keys for it are elsewhere.
    pub accept_jwt: bool,
    /// Speaks TLS on the port, and nothing else.
    pub tls: Option<TlsFiles>,
    /// Where to listen for the lines of [`ControlPort`](crate::control_port); a loopback address.
    pub control: Option<SocketAddr>,
    /// How long a received message waits for its outcome. Versions of the Rust client hang if the outcome comes before
    /// they have taken note of what they sent: rarely, when the system keeps their thread from running at that
    /// moment. On a runtime of one thread they never do.
    pub settle_delay: Duration,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hub: "transactions".to_owned(),
            partitions: 4,
            consumer_groups: Vec::new(),
            retention: Retention::default(),
            key_name: "RootManageSharedAccessKey".to_owned(),
            key: "SAS_KEY_VALUE".to_owned(),
            require_tokens: true,
            accept_jwt: false,
            tls: None,
            control: None,
            settle_delay: Duration::from_millis(10),
        }
    }
}

impl fmt::Debug for BrokerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerOptions")
            .field("listen", &self.listen)
            .field("hub", &self.hub)
            .field("partitions", &self.partitions)
            .field("consumer_groups", &self.consumer_groups)
            .field("retention", &self.retention)
            .field("key_name", &self.key_name)
            .field("require_tokens", &self.require_tokens)
            .field("accept_jwt", &self.accept_jwt)
            .field("tls", &self.tls)
            .field("control", &self.control)
            .field("settle_delay", &self.settle_delay)
            .finish_non_exhaustive()
    }
}

/// Names go into addresses and connection strings.
fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'$'))
}

impl BrokerOptions {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Options(what));
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return refuse(format!("{} partitions; 1 to {MAX_PARTITIONS} are possible", self.partitions));
        }
        for (what, name) in
            [("hub", &self.hub)].into_iter().chain(self.consumer_groups.iter().map(|group| ("consumer group", group)))
        {
            if !is_name(name) {
                return refuse(format!(
                    "{name:?} as the name of a {what}; it takes 1 to 256 letters, digits, '-', '_', '.' or '$'"
                ));
            }
        }
        if !is_name(&self.key_name) {
            return refuse(format!("{:?} as the name of a key", self.key_name));
        }
        if self.key.is_empty() || self.key.contains(';') {
            return refuse("a key that is empty or holds ';', which ends it in a connection string".to_owned());
        }
        if let Some(control) = self.control.filter(|control| !control.ip().is_loopback()) {
            return refuse(format!("a control port on {control}; it has no password, so only loopback is possible"));
        }
        if self.settle_delay > Duration::from_secs(10) {
            return refuse(format!("a settle delay of {:?}; at most 10 s are possible", self.settle_delay));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let good = BrokerOptions::default();
        assert!(good.validate().is_ok());
        let bad = [
            BrokerOptions { partitions: 0, ..good.clone() },
            BrokerOptions { hub: "a/b".into(), ..good.clone() },
            BrokerOptions { consumer_groups: vec![String::new()], ..good.clone() },
            BrokerOptions { key: "a;b".into(), ..good.clone() },
            BrokerOptions { key_name: "a b".into(), ..good.clone() },
            BrokerOptions { control: Some(([0, 0, 0, 0], 0).into()), ..good.clone() },
            BrokerOptions { settle_delay: Duration::from_secs(60), ..good.clone() },
        ];
        for options in bad {
            assert!(matches!(options.validate(), Err(Error::Options(_))), "{options:?}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", BrokerOptions::default()).contains("SAS_KEY_VALUE"));
    }
}
