//! The service: what requests do, and what is answered.
//!
//! | request | answer |
//! |---|---|
//! | `POST /orders` | 201 when the relay has it on its disk, 202 when it is in the file only |
//! | `GET /orders/{id}` | 200; 404 when nobody has it, 503 when the relay cannot be asked |
//! | `PUT /orders/{id}` | 200 or 202; 412 when the order is not as it was when the caller read it |
//! | `GET /ready` | 204 while the relay is connected, else 503 |
//!
//! The `ETag` of an order is its heads, so it names exactly what the caller saw.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::header::{ETAG, IF_MATCH, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use reconverge::automerge::{Automerge, ChangeHash, ROOT};
use reconverge::native::{ChangeError, DocHandle, FindError, Gone, RelayState, Repo, SyncError};
use reconverge::storage::StorageError;
use reconverge::typed::{self, TypedError};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) items: Vec<String>,
    pub(crate) state: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) repo: Repo,
    /// How long a request waits for the relay.
    pub(crate) synced_within: Duration,
}

/// Serves until `stop`. Then no more requests are taken, those that are under way are answered, and
/// only then the client is shut down, which frees its file.
pub(crate) async fn run(
    listener: TcpListener,
    repo: Repo,
    synced_within: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let service = Service {
        repo: repo.clone(),
        synced_within,
    };
    let serving = axum::serve(listener, router(service));
    let served = serving.with_graceful_shutdown(stop).await;
    repo.shutdown().await?;
    Ok(served?)
}

pub(crate) fn router(service: Service) -> Router {
    Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(read).put(replace))
        .route("/ready", get(ready))
        .with_state(service)
}

async fn create(
    State(service): State<Service>,
    Json(order): Json<Order>,
) -> Result<Response, Problem> {
    let created = service.repo.create_from(&order)?;
    let place = format!("/orders/{}", created.document_id());
    let answer = service.kept(&created, StatusCode::CREATED).await?;
    Ok(([(LOCATION, place)], answer).into_response())
}

async fn read(State(service): State<Service>, Path(id): Path<String>) -> Result<Response, Problem> {
    let order = service.repo.find(&id).await?;
    shown(&order, StatusCode::OK)
}

async fn replace(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(new): Json<Order>,
) -> Result<Response, Problem> {
    let expected = headers.get(IF_MATCH).ok_or(Problem::NoCondition)?;
    let order = service.repo.find(&id).await?;
    let expected = version(expected.as_bytes()).ok_or(Problem::Stale)?;
    // Nothing that others write comes in between; and what is the same in both is not touched.
    order.change_if(&expected, |tx| {
        typed::update(tx, &ROOT, |order: &mut Order| *order = new)
    })?;
    service.kept(&order, StatusCode::OK).await
}

async fn ready(State(service): State<Service>) -> Result<StatusCode, Problem> {
    let connections = service.repo.connections();
    let connections = connections.borrow();
    let missing = connections
        .iter()
        .find(|connection| connection.state != RelayState::Connected);
    match missing {
        None => Ok(StatusCode::NO_CONTENT),
        Some(connection) => Err(Problem::NotNow(match &connection.fault {
            Some(fault) => fault.to_string(),
            None => "the relay is being connected to".into(),
        })),
    }
}

impl Service {
    /// What is answered to an edit: `done` once it is on the relay's disk, 202 if that takes too long,
    /// as it is in the file by then and goes to the relay later.
    async fn kept(&self, order: &DocHandle, done: StatusCode) -> Result<Response, Problem> {
        order.when_stored().await?;
        match tokio::time::timeout(self.synced_within, order.when_synced()).await {
            Ok(Ok(())) => shown(order, done),
            Ok(Err(refused)) => Err(refused.into()),
            Err(_) => shown(order, StatusCode::ACCEPTED),
        }
    }
}

/// An order, and what it is called at this moment.
fn shown(order: &DocHandle, status: StatusCode) -> Result<Response, Problem> {
    let (order, heads) = order.read(|document: &Automerge| {
        (typed::read::<Order>(document, &ROOT), document.get_heads())
    })?;
    Ok((status, [(ETAG, tag(heads))], Json(order?)).into_response())
}

fn tag(mut heads: Vec<ChangeHash>) -> String {
    heads.sort_unstable();
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    format!("\"{}\"", heads.join(","))
}

/// What [`tag`] made; `None` for anything else, which names no version of ours.
fn version(tag: &[u8]) -> Option<Vec<ChangeHash>> {
    let tag = std::str::from_utf8(tag).ok()?;
    let heads = tag.strip_prefix('"')?.strip_suffix('"')?;
    heads.split(',').map(|head| head.parse().ok()).collect()
}

/// Why a request fails: the table of `docs/services.md`.
enum Problem {
    BadRequest(String),
    NotFound,
    Stale,
    NoCondition,
    /// The document is none of ours.
    Unprocessable(String),
    Internal(String),
    /// The relay does not take it.
    Refused(String),
    NotNow(String),
    Late,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why),
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such order".into()),
            Self::Stale => (
                StatusCode::PRECONDITION_FAILED,
                "the order has changed: read it again".into(),
            ),
            Self::NoCondition => (
                StatusCode::PRECONDITION_REQUIRED,
                "send the order's ETag as If-Match".into(),
            ),
            Self::Unprocessable(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
            Self::Internal(why) => (StatusCode::INTERNAL_SERVER_ERROR, why),
            Self::Refused(why) => (StatusCode::BAD_GATEWAY, why),
            Self::NotNow(why) => {
                let again = [(RETRY_AFTER, "1")];
                return (StatusCode::SERVICE_UNAVAILABLE, again, why).into_response();
            }
            Self::Late => (
                StatusCode::GATEWAY_TIMEOUT,
                "it did not come in time".into(),
            ),
        };
        (status, why).into_response()
    }
}

impl From<FindError> for Problem {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Url(error) => Self::BadRequest(error.to_string()),
            FindError::Unavailable | FindError::Deleted => Self::NotFound,
            FindError::Unreachable(_) | FindError::Closed => Self::NotNow(error.to_string()),
            FindError::Late => Self::Late,
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl From<Gone> for Problem {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Deleted => Self::NotFound,
            _ => Self::NotNow(gone.to_string()),
        }
    }
}

impl From<SyncError> for Problem {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Gone(gone) => gone.into(),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<TypedError> for Problem {
    fn from(error: TypedError) -> Self {
        Self::Unprocessable(format!("it is no order: {error}"))
    }
}

impl From<ChangeError<TypedError>> for Problem {
    fn from(error: ChangeError<TypedError>) -> Self {
        match error {
            ChangeError::Gone(gone) => gone.into(),
            ChangeError::Changed { .. } => Self::Stale,
            ChangeError::Edit(error) => error.into(),
            ChangeError::Limit(limit) => Self::Unprocessable(limit.to_string()),
            _ => Self::Internal("the order was not written".into()),
        }
    }
}
