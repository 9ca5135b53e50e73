//! The demo: a page that is part of the binary, for those who want to see what this is.
//!
//! Its files are put in by the build script, if they were built before the relay.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};

/// Everything from here but two things: the core runs in a worker that the page makes of a string,
/// and a page may be told to use another relay. The editor makes its style sheets by itself.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
    worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    path: &'static str,
    kind: &'static str,
    etag: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// Whether this binary has the demo.
#[must_use]
pub fn is_built() -> bool {
    FILES.iter().any(|file| file.path == "/index.html")
}

/// A route for each of the demo's files.
pub(super) fn routes() -> Router {
    let mut router = Router::new();
    for file in FILES {
        let answer = async |request: HeaderMap| file.answer(&request);
        if file.path == "/index.html" {
            router = router.route("/", get(answer));
        }
        router = router.route(file.path, get(answer));
    }
    router
}

impl File {
    fn answer(&'static self, request: &HeaderMap) -> Response {
        let (encoding, bytes) = match (self.brotli, self.gzip) {
            (Some(brotli), _) if accepts(request, "br") => (Some("br"), brotli),
            (_, Some(gzip)) if accepts(request, "gzip") => (Some("gzip"), gzip),
            _ => (None, self.plain),
        };
        let known = request
            .get(IF_NONE_MATCH)
            .is_some_and(|known| known == self.etag);
        let mut response = match known {
            true => Response::new(Body::empty()),
            false => Response::new(Body::from(Bytes::from_static(bytes))),
        };
        let headers = response.headers_mut();
        if let (Some(encoding), false) = (encoding, known) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        for (name, value) in [
            (CONTENT_TYPE, self.kind),
            // The names stay the same with every release, so browsers ask each time.
            (CACHE_CONTROL, "no-cache"),
            (ETAG, self.etag),
            (VARY, "accept-encoding"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // The page's address names the document, though behind a "#".
            (REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

/// Whether a client takes this encoding. One that it gives no weight is one that it refuses.
fn accepts(request: &HeaderMap, encoding: &str) -> bool {
    let lists = request.get_all(ACCEPT_ENCODING).iter();
    let mut offers = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    offers.any(|offer| {
        let (name, weight) = offer.split_once(';').unwrap_or((offer, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        name.trim().eq_ignore_ascii_case(encoding) && weight.parse() != Ok(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_used_if_the_client_takes_it() {
        let check = |header: &'static str, expect: bool| {
            let mut request = HeaderMap::new();
            request.insert(ACCEPT_ENCODING, HeaderValue::from_static(header));
            assert_eq!(accepts(&request, "br"), expect, "{header}");
        };
        check("gzip, deflate, br, zstd", true);
        check("gzip;q=1.0, BR;q=0.5", true);
        check("gzip, br;q=0", false);
        check("gzip, deflate", false);
        check("", false);
    }
}
