//! Aim: what the service answers, when the relay is there and when it is not.
//! Method: requests are handed to the router, and time is virtual.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{ETAG, IF_MATCH, LOCATION, RETRY_AFTER};
use axum::http::{Method, Request, StatusCode};
use reconverge::automerge::{Automerge, ROOT, transaction::Transactable};
use reconverge::native::testing::TestRelay;
use reconverge::native::{RelayState, Repo};
use reconverge::typed;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::ServiceExt;

use super::service::{self, Order, Service};

const SYNCED_WITHIN: Duration = Duration::from_secs(5);
const MISSING: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

struct Answer {
    status: StatusCode,
    tag: String,
    place: String,
    retry_after: Option<String>,
    body: Value,
}

/// A service with a file in this folder.
async fn start(relay: &TestRelay, folder: &Path) -> (Repo, Router) {
    let builder = Repo::builder().relay(&relay.url());
    let builder = builder.file(folder.join("orders.redb"));
    let repo = builder.build().await.unwrap();
    let router = service::router(Service {
        repo: repo.clone(),
        synced_within: SYNCED_WITHIN,
    });
    (repo, router)
}

async fn connected(repo: &Repo) {
    let mut connections = repo.connections();
    let all = connections.wait_for(|now| now[0].state == RelayState::Connected);
    drop(all.await.unwrap());
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let answer = router.clone().oneshot(request).await.unwrap();
    let header = |name| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let (tag, place) = (header(ETAG), header(LOCATION));
    let (status, retry_after) = (answer.status(), header(RETRY_AFTER));
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    Answer {
        status,
        tag: tag.unwrap_or_default(),
        place: place.unwrap_or_default(),
        retry_after,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

fn get(place: &str) -> Request<Body> {
    Request::get(place).body(Body::empty()).unwrap()
}

fn with_order(method: Method, place: &str, tag: Option<&str>, order: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(place);
    request = request.header("content-type", "application/json");
    if let Some(tag) = tag {
        request = request.header(IF_MATCH, tag);
    }
    request.body(Body::from(order.to_string())).unwrap()
}

fn order(state: &str) -> Value {
    json!({ "customer": "ann", "items": ["lamp"], "state": state })
}

async fn create(router: &Router) -> Answer {
    send(
        router,
        with_order(Method::POST, "/orders", None, &order("new")),
    )
    .await
}

async fn put(router: &Router, place: &str, tag: &str, state: &str) -> Answer {
    let request = with_order(Method::PUT, place, Some(tag), &order(state));
    send(router, request).await
}

fn state_at(relay: &TestRelay, place: &str) -> String {
    let document: Automerge = relay
        .document(place.trim_start_matches("/orders/"))
        .unwrap();
    typed::read::<Order>(&document, &ROOT).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn an_order_is_made_read_and_replaced() {
    let (relay, folder) = (TestRelay::new(), tempfile::tempdir().unwrap());
    let (repo, router) = start(&relay, folder.path()).await;
    let made = create(&router).await;
    assert_eq!(
        (made.status, &made.body),
        (StatusCode::CREATED, &order("new"))
    );
    assert_eq!(
        state_at(&relay, &made.place),
        "new",
        "201: the relay has it"
    );
    let read = send(&router, get(&made.place)).await;
    assert_eq!((read.status, &read.body), (StatusCode::OK, &order("new")));
    assert_eq!(read.tag, made.tag);

    let paid = put(&router, &made.place, &read.tag, "paid").await;
    assert_eq!((paid.status, &paid.body), (StatusCode::OK, &order("paid")));
    assert_ne!(paid.tag, read.tag);
    assert_eq!(state_at(&relay, &made.place), "paid");
    // Whoever read it before may not write.
    let stale = put(&router, &made.place, &read.tag, "cancelled").await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let request = with_order(Method::PUT, &made.place, None, &order("cancelled"));
    let unconditional = send(&router, request).await;
    assert_eq!(unconditional.status, StatusCode::PRECONDITION_REQUIRED);
    assert_eq!(state_at(&relay, &made.place), "paid");
    repo.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_others_write_makes_a_tag_stale() {
    let (relay, folder) = (TestRelay::new(), tempfile::tempdir().unwrap());
    let (_repo, router) = start(&relay, folder.path()).await;
    let made = create(&router).await;
    let page = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let id = made.place.trim_start_matches("/orders/");
    let seen = page.find(id).await.unwrap();
    seen.change(|tx| tx.put(ROOT, "customer", "bob")).unwrap();
    seen.when_synced().await.unwrap();
    // The service hears of it a moment later.
    let mut read = send(&router, get(&made.place)).await;
    while read.body["customer"] != "bob" {
        tokio::time::sleep(Duration::from_millis(10)).await;
        read = send(&router, get(&made.place)).await;
    }
    let stale = put(&router, &made.place, &made.tag, "paid").await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let paid = put(&router, &made.place, &read.tag, "paid").await;
    assert_eq!(paid.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_and_what_cannot_be_asked_for_are_two_answers() {
    let (relay, folder) = (TestRelay::new(), tempfile::tempdir().unwrap());
    let (repo, router) = start(&relay, folder.path()).await;
    let missing = format!("/orders/{MISSING}");
    assert_eq!(
        send(&router, get(&missing)).await.status,
        StatusCode::NOT_FOUND
    );
    let none = send(&router, get("/orders/hello")).await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        send(&router, get("/ready")).await.status,
        StatusCode::NO_CONTENT
    );

    relay.cut();
    let (asked, answer) = (Instant::now(), send(&router, get(&missing)).await);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
    assert_eq!(asked.elapsed(), Duration::from_secs(10), "and no real time");
    let ready = send(&router, get("/ready")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);

    relay.restore();
    connected(&repo).await;
    assert_eq!(
        send(&router, get(&missing)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_relay_is_away_orders_are_accepted_and_kept() {
    let (relay, folder) = (TestRelay::new(), tempfile::tempdir().unwrap());
    let (repo, router) = start(&relay, folder.path()).await;
    connected(&repo).await;
    relay.cut();
    let made = create(&router).await;
    assert_eq!(
        (made.status, &made.body),
        (StatusCode::ACCEPTED, &order("new"))
    );
    let read = send(&router, get(&made.place)).await;
    assert_eq!((read.status, &read.tag), (StatusCode::OK, &made.tag));
    let paid = put(&router, &made.place, &made.tag, "paid").await;
    assert_eq!(paid.status, StatusCode::ACCEPTED);
    // The next run sends them.
    repo.shutdown().await.unwrap();
    assert_eq!(relay.documents(), Vec::<String>::new());
    relay.restore();
    let (_repo, _router) = start(&relay, folder.path()).await;
    relay.until(|relay| !relay.documents().is_empty()).await;
    assert_eq!(state_at(&relay, &made.place), "paid");
}

#[tokio::test(start_paused = true)]
async fn an_order_is_not_confirmed_before_it_is_on_the_relays_disk() {
    let (relay, folder) = (TestRelay::new(), tempfile::tempdir().unwrap());
    let (_repo, router) = start(&relay, folder.path()).await;
    relay.hold_acknowledgements();
    let (made, ()) = tokio::join!(create(&router), async {
        relay.until(|relay| !relay.waiting().is_empty()).await;
        relay.crash();
        assert_eq!(relay.documents(), Vec::<String>::new());
        relay.acknowledge();
    });
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(state_at(&relay, &made.place), "new");
    relay.refuse_changes("the disk is full");
    let refused = put(&router, &made.place, &made.tag, "paid").await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
}

/// Over a socket, where time is real: a request that is under way when the service stops is answered,
/// nobody else is let in, and then the file is free.
#[tokio::test]
async fn the_end_comes_in_order() {
    let (relay, folder) = (TestRelay::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("orders.redb");
    let builder = Repo::builder().relay(&relay.url()).file(&file);
    let repo = builder.build().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let patience = Duration::from_secs(60);
    let running = service::run(listener, repo, patience, stopped);
    let using = async {
        relay.hold_acknowledgements();
        let mut client = TcpStream::connect(address).await.unwrap();
        let body = order("new").to_string();
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(request.as_bytes()).await.unwrap();
        relay.until(|relay| !relay.waiting().is_empty()).await;
        stop.send(()).unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(relay.peers().len(), 1, "the client goes on");
        relay.acknowledge();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    };
    let (ran, ()) = tokio::join!(running, using);
    ran.unwrap();
    relay.until(|relay| relay.peers().is_empty()).await;
    assert_eq!(relay.documents().len(), 1);
    let next = Repo::builder().file(&file).build().await.unwrap();
    next.shutdown().await.unwrap();
}
