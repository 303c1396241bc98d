//! Who may ask what, and what every answer says to browsers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use blake3::Hash;

use super::answers::Refusal;
use super::board::Board;

/// Everything of the console comes from here, and nothing else may run in its page.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every answer says.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Who may ask.
pub(super) struct Guard {
    /// What whoever asks has to know. Of the token only this is kept; that it is compared by hashes takes the same time
    /// wherever a guess is wrong, and however long it is.
    token: Option<Hash>,
    /// Whether this machine alone is listened to. A page of a stranger could reach it under a name of the stranger's own,
    /// so the name that it is called by is looked at.
    loopback: bool,
    board: Arc<Board>,
}

/// Whether the one who asks has said who it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known(pub(super) bool);

/// Noted for a connection once the token was shown on it.
#[derive(Clone, Debug)]
pub(super) struct TokenShown(pub(super) Arc<AtomicBool>);

impl Guard {
    pub(super) fn new(token: Option<&str>, loopback: bool, board: Arc<Board>) -> Guard {
        Guard { token: token.map(|token| blake3::hash(token.as_bytes())), loopback, board }
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, given)| blake3::hash(given.trim().as_bytes()) == *token)
    }

    fn is_called_rightly(&self, request: &Request) -> bool {
        if !self.loopback {
            return true;
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(is_of_this_machine)
    }

    /// Why a request gets no other answer.
    fn refusal(&self, request: &Request, known: bool) -> Option<Response> {
        if !self.is_called_rightly(request) {
            let why = "this server is called 127.0.0.1, [::1] or localhost, and answers under no other name";
            return Some(refused(StatusCode::MISDIRECTED_REQUEST, why));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here; ask with GET");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        if !known && !is_open(request.uri().path()) {
            let why = "a token is needed: the header `Authorization: Bearer TOKEN`, with the one of http.token";
            let mut response = refused(StatusCode::UNAUTHORIZED, why);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Some(response);
        }
        None
    }
}

/// What may be had without a token: the page itself, which holds no data, and what an orchestrator asks.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/console.js" | "/charts.js" | "/console.css" | "/icon.svg" | "/livez" | "/readyz")
}

/// Whether a `Host` names this machine as it names itself.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An answer that says why there is no other.
pub(super) fn refused(status: StatusCode, why: &str) -> Response {
    let body = serde_json::to_vec(&Refusal { error: why.to_owned() }).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Stands before every route.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let known = guard.is_known(request.headers());
    if let Some(TokenShown(shown)) = request.extensions().get::<TokenShown>().filter(|_| known && guard.token.is_some())
    {
        shown.store(true, Ordering::Relaxed);
    }
    request.extensions_mut().insert(Known(known));
    let mut response = match guard.refusal(&request, known) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let class = usize::from(response.status().as_u16() / 100);
    if let Some(count) = guard.board.asked.answered.get(class) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_few_names() {
        for host in ["127.0.0.1:9464", "localhost", "LOCALHOST:1", "[::1]:80", "[::1]", "127.8.0.1"] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::2]", "10.0.0.1", "[", "::1"]
        {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }
}
