//! The processes of one pipeline: how they find each other, prove who they are, and notice that one is gone.
//!
//! Every pair of processes has two connections: one for the dataflow, which is handed to timely, and a control link. A
//! process listens for those with greater numbers and connects to those with smaller ones, so they may start in any order.
//! [`handshake`] keeps strangers away, [`channel`] hides what is said from them, [`fingerprint`] keeps away processes that would compute something else; [`mesh`] makes all
//! connections, [`links`] carries [`messages`] over the control links and watches over them, and [`ending`] ends the
//! process when another is lost. [`supervisor`] runs several processes of one machine. What is not here: what the
//! messages mean, which is the business of the runtime.

pub mod channel;
pub mod ending;
pub mod fingerprint;
pub mod handshake;
pub mod links;
pub mod mesh;
pub mod messages;
pub mod supervisor;

use std::fs;
use std::time::Duration;

use crate::config::Config;
use crate::config::cluster::SECRET_BYTES_MIN;
use crate::exit::ExitStatus;

use self::fingerprint::Fingerprint;
use self::handshake::Key;

/// Why the processes did not come together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong, here or in another process.
    #[error("{0}")]
    Setting(String),
    /// Another process, the network, or this machine does not do what it should.
    #[error("{0}")]
    Unavailable(String),
    /// It was asked to stop before all were there.
    #[error("stopped as asked, before all processes had come")]
    Stopped,
}

impl Error {
    /// The status that the program ends with.
    pub fn status(&self) -> ExitStatus {
        match self {
            Error::Setting(_) => ExitStatus::Usage,
            Error::Unavailable(_) => ExitStatus::Unavailable,
            Error::Stopped => ExitStatus::Done,
        }
    }
}

/// This process among the others.
pub struct Member {
    /// Its number.
    pub process: usize,
    /// The address of each process, also its own.
    pub addresses: Vec<String>,
    /// Where it listens.
    pub listen: String,
    /// What it proves to know.
    pub key: Key,
    /// What must be the same everywhere.
    pub fingerprint: Fingerprint,
    /// How long it waits for the others at its start.
    pub join_timeout: Duration,
    /// How long another one may be silent.
    pub lost_after: Duration,
}

impl Member {
    /// The member that the configuration describes; `None` where it is the only one.
    ///
    /// # Errors
    ///
    /// When the secret cannot be read, or is too short.
    pub fn of(config: &Config) -> Result<Option<Member>, Error> {
        let cluster = &config.cluster;
        if !cluster.is_shared() {
            return Ok(None);
        }
        let addresses = cluster.addresses();
        let own = addresses.get(cluster.process).cloned().unwrap_or_default();
        Ok(Some(Member {
            process: cluster.process,
            listen: cluster.listen.clone().unwrap_or(own),
            addresses,
            key: key(config)?,
            fingerprint: Fingerprint::of(config),
            join_timeout: cluster.join_timeout,
            lost_after: cluster.lost_after,
        }))
    }

    /// Number of processes.
    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// What messages call a process.
    pub fn name(&self, process: usize) -> String {
        match self.addresses.get(process) {
            Some(address) => format!("process {process} ({address})"),
            None => format!("process {process}"),
        }
    }
}

fn key(config: &Config) -> Result<Key, Error> {
    let cluster = &config.cluster;
    if let Some(secret) = &cluster.secret {
        return Ok(Key::of(secret.expose().as_bytes()));
    }
    let Some(path) = &cluster.secret_file else {
        return Err(Error::Setting("several processes need cluster.secret or cluster.secret_file".to_owned()));
    };
    let secret = fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let secret = secret.map_err(|error| {
        Error::Setting(format!("cluster.secret_file = {}: it cannot be read: {error}", path.display()))
    })?;
    let secret = secret.trim();
    if secret.len() < SECRET_BYTES_MIN {
        let path = path.display();
        let problem = format!("cluster.secret_file = {path}: too short; allowed: at least {SECRET_BYTES_MIN} bytes");
        return Err(Error::Setting(problem));
    }
    Ok(Key::of(secret.as_bytes()))
}
