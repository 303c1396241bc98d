//! `tidemark broker`: a local broker for development and tests.

use crate::cli::Global;
use crate::cli::flags::{OfBroker, SettingFlags};
use crate::config::units::{parse_duration, parse_size};
use crate::exit::{ExitStatus, Failure};
use crate::signals;
use clap::{Args, ValueHint};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemark_broker::{Broker, BrokerOptions, Error, Retention, TlsFiles};

const EXAMPLES: &str = "Examples:
  tidemark broker                                       listens on 127.0.0.1:5672, and prints the connection string
  tidemark broker --listen 127.0.0.1:0 --partitions 8   on a free port
  tidemark broker --control 127.0.0.1:5680              with switches for faults, one line each (see docs/broker.md)

It keeps events in memory and is for development and tests. Any client of Event Hubs can use it.";

/// Time between two looks at the stop flag.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `broker`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BrokerVerb {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5672")]
    pub listen: SocketAddr,
    /// Name of the event hub
    #[arg(long, value_name = "NAME", default_value = "transactions")]
    pub hub: String,
    /// Number of partitions
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub partitions: usize,
    /// Consumer groups besides $Default
    #[arg(long, value_name = "NAME")]
    pub consumer_group: Vec<String>,
    /// How long events are kept [default: until the end]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub retention: Option<Duration>,
    /// Most bytes that a partition keeps [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub retention_bytes: Option<u64>,
    /// Most events that a partition keeps [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    pub retention_events: Option<u64>,
    /// Name of the shared access key
    #[arg(long, value_name = "NAME", default_value = "RootManageSharedAccessKey")]
    pub key_name: String,
    /// File that holds the shared access key [default: the key SAS_KEY_VALUE, which everybody knows]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
    /// Let everybody in
    #[arg(long)]
    pub no_tokens: bool,
    /// Take tokens of Microsoft Entra ID as well, without verifying them
    #[arg(long)]
    pub accept_entra: bool,
    /// PEM file with the certificate: speak TLS
    #[arg(long, value_name = "FILE", requires = "tls_key", value_hint = ValueHint::FilePath)]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate", value_hint = ValueHint::FilePath)]
    pub tls_key: Option<PathBuf>,
    /// Loopback address for the lines that switch faults on and off
    #[arg(long, value_name = "ADDRESS")]
    pub control: Option<SocketAddr>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfBroker>,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("expected a duration such as 30s or 1 day")
}

fn size(text: &str) -> Result<u64, &'static str> {
    parse_size(text).ok_or("expected a size such as 64 MiB")
}

impl BrokerVerb {
    /// Serves until a signal comes.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        global.start(&self.settings)?;
        let stop = signals::stop_flag().map_err(|error| Failure::new(ExitStatus::Unavailable, error))?;
        let options = self.options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(ExitStatus::Unavailable, error))?;
        runtime.block_on(async {
            let broker = Broker::start(options).await.map_err(failure)?;
            let mut string = broker.connection_string();
            if self.key_file.is_some() {
                string = without_key(&string);
            }
            let mut text = format!("EVENT_HUB_CONNECTION_STRING={string}\n");
            if let Some(control) = broker.control_addr() {
                text += &format!("control={control}\n");
            }
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)?;
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
            broker.stop().await;
            Ok(ExitStatus::Done)
        })
    }

    fn options(&self) -> Result<BrokerOptions, Failure> {
        let defaults = BrokerOptions::default();
        let key = match &self.key_file {
            Some(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| Failure::new(ExitStatus::Usage, format_args!("{}: {error}", path.display())))?,
            None => defaults.key.clone(),
        };
        let tls = self.tls_certificate.clone().zip(self.tls_key.clone());
        Ok(BrokerOptions {
            listen: self.listen,
            hub: self.hub.clone(),
            partitions: self.partitions,
            consumer_groups: self.consumer_group.clone(),
            retention: Retention { age: self.retention, bytes: self.retention_bytes, events: self.retention_events },
            key_name: self.key_name.clone(),
            key,
            require_tokens: !self.no_tokens,
            accept_jwt: self.accept_entra,
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            control: self.control,
            ..defaults
        })
    }
}

fn failure(error: Error) -> Failure {
    let status = match error {
        Error::Listen { .. } => ExitStatus::Unavailable,
        _ => ExitStatus::Usage,
    };
    Failure::new(status, error)
}

fn without_key(string: &str) -> String {
    let mask = |part: &str| if part.starts_with("SharedAccessKey=") { "SharedAccessKey=****" } else { part }.to_owned();
    string.split(';').map(mask).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::without_key;

    #[test]
    fn a_key_from_a_file_is_not_printed() {
        let string = "Endpoint=sb://h;SharedAccessKeyName=a;SharedAccessKey=b==;EntityPath=c";
        assert_eq!(without_key(string), "Endpoint=sb://h;SharedAccessKeyName=a;SharedAccessKey=****;EntityPath=c");
    }
}
