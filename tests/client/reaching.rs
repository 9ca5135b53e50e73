//! The address of a relay, its certificate, and whom it lets in.

use std::sync::Arc;
use std::time::Duration;

use reconverge::native::{AddressError, BuildError, Repo, SyncError};
use reconverge_tests::door::UNAUTHORIZED;
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;
use reconverge_tests::socket::address_of;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::editing::{client, has, put, synced};

#[tokio::test(flavor = "multi_thread")]
async fn what_no_relay_can_be_at_is_refused_at_once() {
    for url in ["http://127.0.0.1:1/", "127.0.0.1:1", "ws://", "wss:///sync"] {
        let refused = Repo::builder().relay(url).build().await;
        let refused = refused.expect_err(url);
        let BuildError::Address(AddressError::Url { .. }) = &refused else {
            panic!("{url}: {refused}");
        };
        assert!(refused.to_string().starts_with(url), "{refused}");
    }
    let refused = Repo::builder().relay("ws://a/").token("a\nb").build().await;
    assert!(matches!(
        refused,
        Err(BuildError::Address(AddressError::Token))
    ));
    let refused = Repo::builder().relay("wss://a/").root_certificates(b"no");
    assert!(matches!(
        refused.build().await,
        Err(BuildError::Address(AddressError::Certificates(_)))
    ));
}

/// Reads a request's head; the rest of the connection is left.
async fn request_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why_and_can_end() {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", door.local_addr().unwrap());
    let visits = tokio::spawn(async move {
        for visits in 1.. {
            let (mut stream, _) = match visits {
                1 => door.accept().await.unwrap(),
                // Nobody comes a second time.
                _ => match tokio::time::timeout(Duration::from_secs(2), door.accept()).await {
                    Ok(_) => panic!("it came again"),
                    Err(_) => return,
                },
            };
            let head = request_head(&mut stream).await.to_lowercase();
            assert!(head.contains("authorization: bearer forged"), "{head}");
            stream.write_all(UNAUTHORIZED).await.unwrap();
        }
    });
    let repo = Repo::builder().relay(&url).token("forged").build();
    let repo = repo.await.unwrap();
    let document = repo.create().unwrap();
    let refused = in_time("a refusal", document.when_synced()).await;
    let Err(SyncError::Refused(reason)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(reason.code, "unauthorized");
    assert!(reason.text.contains("401"), "{reason}");
    in_time("the end", repo.shutdown()).await.unwrap();
    visits.await.unwrap();
}

/// Takes TLS off and passes the rest on; gives its port, its certificate in PEM, and the heads of
/// the requests that it saw.
async fn terminator(relay: &Relay) -> (u16, String, tokio::sync::mpsc::Receiver<String>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let relay = address_of(&relay.url()).to_owned();
    let (seen, heads) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen, relay) = (acceptor.clone(), seen.clone(), relay.clone());
            tokio::spawn(async move {
                // Who does not trust the certificate hangs up.
                let Ok(mut inside) = acceptor.accept(stream).await else {
                    return;
                };
                let head = request_head(&mut inside).await;
                let mut outside = TcpStream::connect(relay).await.unwrap();
                outside.write_all(head.as_bytes()).await.unwrap();
                seen.send(head).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    (port, made.cert.pem(), heads)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_reached_by_tls_if_its_certificate_is_trusted() {
    let relay = Relay::start();
    let (port, certificate, mut heads) = terminator(&relay).await;
    let secure = format!("wss://localhost:{port}/?space=shop");
    let ann = Repo::builder()
        .relay(&secure)
        .token("secret")
        .root_certificates(certificate.as_bytes());
    let ann = ann.build().await.unwrap();
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 1);
    synced(&of_ann).await;
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.contains("authorization: bearer secret"), "{head}");
    let bob = client(&relay).await;
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    put(&of_bob, "n", 2);
    has(&of_ann, "n", 2).await;

    let (_, other, _) = terminator(&relay).await;
    let by_address = format!("wss://127.0.0.1:{port}/");
    for (url, trusted) in [(&secure, &other), (&by_address, &certificate)] {
        let eve = Repo::builder().relay(url);
        let eve = eve.root_certificates(trusted.as_bytes()).build().await;
        let of_eve = eve.unwrap().create().unwrap();
        let refused = in_time("distrust", of_eve.when_synced()).await;
        let Err(SyncError::Refused(reason)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(reason.code, "tls");
        assert!(reason.text.contains("certificate"), "{reason}");
    }
}
