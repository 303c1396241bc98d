//! What can be asked, and who answers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::answers::Everything;
use super::board::Board;
use super::guard::{Guard, Known, guard, refused};
use super::{exposition, openapi, stream};

/// Listeners to the stream at one time.
const LISTENERS: usize = 16;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The console: files that are part of the program.
const CONSOLE: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("console/index.html")),
    ("/console.css", "text/css; charset=utf-8", include_str!("console/console.css")),
    ("/console.js", "text/javascript; charset=utf-8", include_str!("console/console.js")),
    ("/charts.js", "text/javascript; charset=utf-8", include_str!("console/charts.js")),
    ("/icon.svg", "image/svg+xml", include_str!("console/icon.svg")),
];

#[derive(Clone)]
struct Served {
    board: Arc<Board>,
    listeners: Arc<Semaphore>,
}

/// The routes: of process 0 all, of the others those that speak of one process alone.
pub(super) fn router(board: &Arc<Board>, guards: Guard) -> Router {
    let served = Served { board: Arc::clone(board), listeners: Arc::new(Semaphore::new(LISTENERS)) };
    let mut router = Router::new()
        .route("/livez", get(|| async { answered(TEXT, "alive\n") }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    if board.facts.process == 0 {
        for (path, media_type, content) in CONSOLE {
            router = router.route(path, get(move || async move { answered(media_type, content) }));
        }
        router = router
            .route("/api/v1/openapi.json", get(|| async { answered(JSON, openapi::document().to_string()) }))
            .route("/api/v1/status", get(|State(at): State<Served>| section(at, |all| json(&all.status))))
            .route("/api/v1/graph", get(|State(at): State<Served>| section(at, |all| json(&all.graph))))
            .route("/api/v1/contract", get(|State(at): State<Served>| section(at, |all| json(&all.contract))))
            .route("/api/v1/quarantine", get(|State(at): State<Served>| section(at, |all| json(&all.quarantine))))
            .route("/api/v1/tables", get(|State(at): State<Served>| section(at, |all| json(&all.tables))))
            .route("/api/v1/checkpoints", get(|State(at): State<Served>| section(at, |all| json(&all.checkpoints))))
            .route("/api/v1/all", get(|State(at): State<Served>| section(at, json)))
            .route("/api/v1/history", get(|State(at): State<Served>| async move { json(&at.board.history()) }))
            .route("/api/v1/stream", get(listen));
    }
    router
        .fallback(|| async {
            refused(StatusCode::NOT_FOUND, "there is nothing here; /api/v1/openapi.json lists what is")
        })
        .layer(middleware::from_fn_with_state(Arc::new(guards), guard))
        .with_state(served)
}

fn answered(media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn json(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => answered(JSON, body),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn section(at: Served, part: fn(&Everything) -> Response) -> Response {
    part(&at.board.everything())
}

/// Lines for people, and JSON for those who ask for it. Reasons can name places and errors, so they are for those who have
/// said who they are.
async fn readyz(State(at): State<Served>, Extension(known): Extension<Known>, headers: HeaderMap) -> Response {
    let mut readiness = at.board.readiness();
    if !known.0 {
        readiness.reasons.clear();
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|a| a.contains(JSON));
    let mut response = if wants_json {
        json(&readiness)
    } else {
        let first = if readiness.ready { "ready" } else { "not ready" };
        let lines = std::iter::once(first.to_owned()).chain(readiness.reasons);
        answered(TEXT, lines.map(|line| line.replace(['\r', '\n'], " ") + "\n").collect::<String>())
    };
    *response.status_mut() = status;
    response
}

async fn metrics(State(at): State<Served>) -> Response {
    match exposition::text(&at.board) {
        Ok(text) => answered(exposition::MEDIA_TYPE, text),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn listen(State(at): State<Served>) -> Response {
    match at.listeners.try_acquire_owned() {
        Ok(place) => stream::answer(at.board, place),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "too many listen already; close another console"),
    }
}
