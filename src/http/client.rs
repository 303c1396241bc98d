//! The other side of the API: asks a running instance.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use tokio::runtime::Runtime;

use super::answers::{Everything, Refusal};
use super::server::{HttpError, token};
use crate::config::http::{Http, is_loopback};

/// Longest time that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer that is taken: many times what an instance says.
const ANSWER_BYTES: usize = 16 << 20;

/// Why an instance cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody says where it is.
    #[error("http.listen = off: nothing is served; give --url, or the address")]
    Off,
    /// No URL.
    #[error("--url {url}: {problem}; allowed: http://HOST:PORT or https://HOST")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The token cannot be read, or there is no thread to ask with.
    #[error(transparent)]
    Token(#[from] HttpError),
    /// It does not answer.
    #[error("no answer from {url}: {why}; is an instance running there? http.listen or --url says where to ask")]
    Silent {
        /// Who was asked.
        url: String,
        /// Why there is none.
        why: String,
    },
    /// It answers something else.
    #[error("{url} answers {status}: {why}")]
    Refused {
        /// Who was asked.
        url: String,
        /// The status of the answer.
        status: u16,
        /// What it says.
        why: String,
    },
}

impl ClientError {
    /// Whether the question is wrong, and not the world around.
    pub fn is_usage(&self) -> bool {
        match self {
            ClientError::Off | ClientError::Url { .. } => true,
            ClientError::Token(error) => error.is_usage(),
            ClientError::Refused { status, .. } => matches!(status, 401 | 404 | 421),
            ClientError::Silent { .. } => false,
        }
    }
}

/// Asks one instance.
pub struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    url: Url,
    token: Option<String>,
}

impl Client {
    /// For the instance at a URL, or the one that the configuration describes.
    ///
    /// # Errors
    ///
    /// When neither says where it is, or the token cannot be read.
    pub fn new(url: Option<&str>, config: &Http) -> Result<Client, ClientError> {
        let given = match (url, &config.listen) {
            (Some(url), _) => url.to_owned(),
            (None, Some(address)) => format!("http://{}", reachable(address)),
            (None, None) => return Err(ClientError::Off),
        };
        let wrong = |problem: String| ClientError::Url { url: given.clone(), problem };
        let parsed = Url::parse(&given).map_err(|error| wrong(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(wrong("not a place on the web".to_owned()));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("a token belongs into http.token".to_owned()));
        }
        let mut builder = reqwest::Client::builder().timeout(PATIENCE).redirect(Policy::none());
        if is_loopback(&format!("{}:0", parsed.host_str().unwrap_or_default())) {
            builder = builder.no_proxy();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, http) = (runtime.map_err(HttpError::Start)?, builder.build());
        let http = http.map_err(|error| wrong(error.to_string()))?;
        Ok(Client { runtime, http, url: parsed, token: token(config)? })
    }

    /// Everything that the instance shows.
    ///
    /// # Errors
    ///
    /// When it does not answer, or answers something else.
    pub fn everything(&self) -> Result<Everything, ClientError> {
        let silent = |error: reqwest::Error| ClientError::Silent { url: self.url.to_string(), why: innermost(&error) };
        let refused = |status: StatusCode, why: String| ClientError::Refused {
            url: self.url.to_string(),
            status: status.as_u16(),
            why,
        };
        self.runtime.block_on(async {
            let mut request = self.http.get(self.url.join("/api/v1/all").unwrap_or_else(|_| self.url.clone()));
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let mut response = request.send().await.map_err(silent)?;
            let (status, mut body) = (response.status(), Vec::new());
            while let Some(part) = response.chunk().await.map_err(silent)? {
                body.extend_from_slice(&part);
                if body.len() > ANSWER_BYTES {
                    return Err(refused(status, "it says more than an instance would".to_owned()));
                }
            }
            if status != StatusCode::OK {
                let why = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.error);
                return Err(refused(status, why.unwrap_or_else(|_| "not an instance of Tidemark".to_owned())));
            }
            let unknown = |error| refused(status, format!("not what this version understands: {error}"));
            serde_json::from_slice(&body).map_err(unknown)
        })
    }
}

/// Whoever listens on every address is asked on this machine.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

/// What is at the bottom of an error: the library wraps it several times.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
