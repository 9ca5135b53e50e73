//! Where a relay is, and what is shown to it: its url, the token, the certificates that are
//! trusted.

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};

/// Why a client cannot speak to the relays that it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// A url is not one at which a relay can be.
    #[error("{url} is no relay's url: {reason}")]
    Url {
        /// The url, without its token.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token cannot stand in a header: it has characters other than visible ASCII.
    #[error("the token has characters that cannot be sent")]
    Token,
    /// What was given as certificates is not that, or the system has none and none was given.
    #[error("no certificates to trust: {0}")]
    Certificates(String),
}

/// A relay's address.
#[derive(Clone)]
pub(super) struct Address {
    uri: Uri,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// The addresses of the relays at these urls. `roots` are certificates in PEM that are trusted
    /// beside the system's, which are read only if some relay is to be reached by TLS.
    pub(super) fn all(
        urls: &[String],
        token: Option<&str>,
        roots: &[Vec<u8>],
    ) -> Result<Vec<Self>, AddressError> {
        let authorization = token.map(bearer).transpose()?;
        let uris: Vec<Uri> = urls
            .iter()
            .map(|url| parse(url))
            .collect::<Result<_, _>>()?;
        let tls = if uris.iter().any(is_secure) {
            Some(Arc::new(trust(roots)?))
        } else {
            None
        };
        let address = |uri: Uri| Self {
            tls: tls.clone().filter(|_| is_secure(&uri)),
            uri,
            authorization: authorization.clone(),
        };
        Ok(uris.into_iter().map(address).collect())
    }

    /// The host in its url.
    #[cfg(feature = "testing")]
    pub(super) fn host(&self) -> &str {
        self.uri.host().expect("the url was checked")
    }

    /// The request that opens a connection, and what encrypts it.
    pub(super) fn request(&self) -> (Request, Connector) {
        let request = self.uri.clone().into_client_request();
        let mut request = request.expect("the url was checked");
        if let Some(authorization) = &self.authorization {
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let tls = self.tls.clone();
        (request, tls.map_or(Connector::Plain, Connector::Rustls))
    }
}

/// A url without the token in its query, which changes and is a secret.
pub(super) fn without_token(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let kept: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.starts_with("token="))
        .collect();
    if kept.is_empty() {
        place.to_owned()
    } else {
        format!("{place}?{}", kept.join("&"))
    }
}

/// What a relay reads of the query of its url.
const PARAMETERS: [&str; 2] = ["space", "token"];

fn parse(url: &str) -> Result<Uri, AddressError> {
    let error = |reason| AddressError::Url {
        url: without_token(url),
        reason,
    };
    let uri: Uri = url.parse().map_err(|_| error("it is malformed"))?;
    if !matches!(uri.scheme_str(), Some("ws" | "wss")) {
        return Err(error("it must begin with ws:// or wss://"));
    }
    // What a url may say of its user is not sent, so it must not be thought to be.
    if uri
        .authority()
        .is_some_and(|place| place.as_str().contains('@'))
    {
        return Err(error("it must not name a user; give a token"));
    }
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut names = pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    // A space that is misspelt would be the default one.
    if !names.all(|name| name.is_empty() || PARAMETERS.contains(&name)) {
        return Err(error("its query may have space= and token= only"));
    }
    match uri.clone().into_client_request() {
        Ok(_) => Ok(uri),
        Err(_) => Err(error("it names no host")),
    }
}

fn is_secure(uri: &Uri) -> bool {
    uri.scheme_str() == Some("wss")
}

fn bearer(token: &str) -> Result<HeaderValue, AddressError> {
    let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.ok().filter(|_| visible).ok_or(AddressError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn trust(roots: &[Vec<u8>]) -> Result<ClientConfig, AddressError> {
    let error = |what: &dyn ToString| AddressError::Certificates(what.to_string());
    let system = rustls_native_certs::load_native_certs();
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(system.certs);
    for pem in roots {
        let mut given = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|fault| error(&fault))?;
            trusted.add(certificate).map_err(|fault| error(&fault))?;
            given += 1;
        }
        if given == 0 {
            return Err(error(&"there is none in what was given"));
        }
    }
    if trusted.is_empty() {
        let fault = system.errors.first().map(ToString::to_string);
        return Err(error(
            &fault.unwrap_or_else(|| "the system has none".into()),
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for them")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(config)
}

/// Why a connection failed, if that is a certificate which will not do another time. One that is
/// not valid at this time may be, or a clock may be set.
pub(super) fn distrust(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(fault) = inner else {
        return None;
    };
    let passes = matches!(
        fault,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    );
    (!passes).then(|| inner.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_name_has_no_secret_in_it() {
        for (url, name) in [
            ("ws://a/", "ws://a/"),
            ("ws://a/?space=x", "ws://a/?space=x"),
            ("ws://a/?token=s", "ws://a/"),
            ("ws://a/?token=s&space=x", "ws://a/?space=x"),
        ] {
            assert_eq!(&*without_token(url), name);
        }
    }

    #[test]
    fn a_url_at_which_no_relay_can_be_is_told_so() {
        for url in ["ws://a", "wss://a:1/sync?space=x", "ws://[::1]:3030"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "a",
            "/sync",
            "ws://",
            "ws:///",
            "ws://a b/",
            "http://a/?token=secret",
            "ws://ann:pass@a/",
            "ws://a/?Space=x",
            "ws://a/?spaces=x&token=secret",
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_is_sent_as_a_header_and_never_shown() {
        let urls = ["ws://a/".to_owned()];
        let addresses = Address::all(&urls, Some("abc.def"), &[]).expect("all is well");
        let (request, _) = addresses[0].request();
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer abc.def");
        assert!(!format!("{request:?}").contains("abc"));
        for token in ["", "a b", "a\r\nb", "ä"] {
            let refused = Address::all(&urls, Some(token), &[]).err();
            assert_eq!(refused, Some(AddressError::Token));
        }
    }
}
