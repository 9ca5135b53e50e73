//! What is answered to HTTP requests: a few pages for people and probes. Further modules add routes of
//! their own here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::demo;

const ABOUT: &str = concat!(
    "Reconverge relay ",
    env!("CARGO_PKG_VERSION"),
    "\n\n",
    "This is a sync server for Automerge documents. Point an automerge-repo client's\n",
    "WebSocketClientAdapter at this address with ws:// (or wss://) instead of http://;\n",
    "any path works, and ?space=NAME chooses where new documents belong.\n\n",
    "/healthz answers while the process lives, /readyz while it serves documents.\n",
);

/// All routes. `ready` says whether documents are being served.
pub(super) fn routes(ready: Arc<AtomicBool>, serves_demo: bool) -> Router {
    let index = match serves_demo {
        true => demo::routes(),
        false => Router::new().route("/", get(async || page(StatusCode::OK, ABOUT))),
    };
    Router::new()
        .route("/healthz", get(async || page(StatusCode::OK, "ok\n")))
        .route("/readyz", get(readyz).with_state(ready))
        .merge(index)
        .fallback(async || page(StatusCode::NOT_FOUND, "nothing here; see /\n"))
        .method_not_allowed_fallback(async || {
            page(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is answered here\n",
            )
        })
}

async fn readyz(State(ready): State<Arc<AtomicBool>>) -> Response {
    match ready.load(Ordering::Relaxed) {
        true => page(StatusCode::OK, "ready\n"),
        false => page(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

/// A page of plain text.
pub(super) fn page(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
