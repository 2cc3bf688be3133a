//! The status over HTTP: a page for people, JSON for programs, metrics for monitors, health for load balancers.
//!
//! | path | what |
//! |---|---|
//! | `/` | the dashboard: HTML without any script, loads itself again every few seconds |
//! | `/rounds`, `/rounds/N` | all rounds that are kept; one of them |
//! | `/status.json` | [`crate::net::status::Status`] |
//! | `/metrics` | the text format 0.0.4 of Prometheus |
//! | `/healthz` | 200 `ok`, or 503 with the reason: whether callers belong here |
//! | `/livez` | 200 `alive`, also while the server drains or stands by |
//!
//! Nothing can be changed over it, so that there is neither a login nor a cookie. It belongs on a loopback address or behind
//! a proxy that asks who is there: its readers see which clients take part, hence have the server's view of the releases.

pub mod charts;
pub mod metrics;
pub mod page;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use crate::net::status::Status;
use crate::net::status::board::Board;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the handlers share.
struct Shared {
    board: Arc<Board>,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Shared {
    fn status(&self) -> Status {
        self.board.snapshot(crate::net::now())
    }
}

/// The routes over `board`. `ready` says whether the server takes clients: `/healthz` answers 503 where it does not. It is
/// called for every such request and must not block.
pub fn router(board: Arc<Board>, ready: impl Fn() -> bool + Send + Sync + 'static) -> Router {
    Router::new()
        .route("/", get(dashboard))
        .route("/rounds", get(rounds))
        .route("/rounds/{number}", get(round))
        .route("/status.json", get(status_json))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health))
        .route("/livez", get(alive))
        .fallback(absent)
        .method_not_allowed_fallback(read_only)
        .layer(axum::middleware::map_response(protect))
        .with_state(Arc::new(Shared { board, ready: Box::new(ready) }))
}

async fn dashboard(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, HTML, page::dashboard(&shared.status()))
}

async fn rounds(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, HTML, page::rounds(&shared.status()))
}

async fn round(State(shared): State<Arc<Shared>>, Path(number): Path<String>) -> Response {
    let status = shared.status();
    match number.parse().ok().and_then(|number: u64| page::round(&status, number)) {
        Some(html) => answer(StatusCode::OK, HTML, html),
        None => answer(StatusCode::NOT_FOUND, HTML, page::no_round(&status, &number)),
    }
}

async fn status_json(State(shared): State<Arc<Shared>>) -> Response {
    match serde_json::to_string(&shared.status()) {
        Ok(json) => answer(StatusCode::OK, "application/json", json),
        Err(e) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("the status has no JSON form: {e}\n")),
    }
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::text(&shared.status()))
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if (shared.ready)() {
        return answer(StatusCode::OK, TEXT, "ok\n".to_owned());
    }
    let status = shared.status();
    let reason = format!("not ready: {}: {}\n", status.state.label(), status.sentence);
    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, reason)
}

async fn alive() -> Response {
    answer(StatusCode::OK, TEXT, "alive\n".to_owned())
}

async fn absent() -> Response {
    let paths = "/, /rounds, /rounds/N, /status.json, /metrics, /healthz, /livez";
    answer(StatusCode::NOT_FOUND, TEXT, format!("nothing is here; there are {paths}\n"))
}

async fn read_only() -> Response {
    answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "nothing can be changed here; GET and HEAD are answered\n".to_owned())
}

fn answer(code: StatusCode, kind: &'static str, body: String) -> Response {
    (code, [(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}

/// The headers of every answer: nothing is stored, guessed, framed or loaded from anywhere, no script runs, and of styles the
/// page's own only.
async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (axum::http::header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, policy().clone());
    response
}

/// The content security policy, with the hash of the one style sheet.
fn policy() -> &'static HeaderValue {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = Base64::encode_string(&Sha256::digest(page::STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // The text is plain ASCII; without a style the page would still be whole.
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;
    use crate::net::status::sample;

    async fn ask(router: &Router, method: &str, path: &str) -> (StatusCode, axum::http::HeaderMap, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn early() -> Router {
        router(Arc::new(sample::early(Duration::from_secs(1_795_383_271))), || true)
    }

    #[tokio::test]
    async fn every_answer_is_protected() {
        let router = early();
        for (method, path, code) in [
            ("GET", "/", 200),
            ("GET", "/rounds", 200),
            ("GET", "/rounds/2", 200),
            ("GET", "/rounds/9", 404),
            ("GET", "/rounds/-1", 404),
            ("GET", "/rounds/%3Cscript%3E", 404),
            ("GET", "/status.json", 200),
            ("GET", "/metrics", 200),
            ("GET", "/healthz", 200),
            ("GET", "/livez", 200),
            ("GET", "/etc/passwd", 404),
            ("HEAD", "/", 200),
            ("POST", "/", 405),
            ("DELETE", "/status.json", 405),
        ] {
            let (status, headers, body) = ask(&router, method, path).await;
            assert_eq!(status.as_u16(), code, "{method} {path}");
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"),
                "{policy}"
            );
            if let Some(style) = body.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()) {
                assert!(
                    policy.contains(&Base64::encode_string(&Sha256::digest(style))),
                    "the policy would refuse the style of {path}"
                );
            }
            assert_eq!(headers[CACHE_CONTROL], "no-store");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[REFERRER_POLICY], "no-referrer");
            assert!(
                !headers.contains_key("set-cookie") && (path == "/status.json" || !body.contains("<script")),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn the_json_is_a_status() {
        let (_, headers, body) = ask(&early(), "GET", "/status.json").await;
        let status: Status = serde_json::from_str(&body).unwrap();
        assert_eq!((status.run.name.as_str(), status.progress.round), ("first-steps", 3));
        assert_eq!(status.parties[1].name, "<script>alert(1)</script>");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
    }

    #[tokio::test]
    async fn health_follows_the_server() {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let board = Arc::new(sample::empty(Duration::ZERO));
        let router = router(board, move || asked.load(Ordering::Relaxed));
        let (code, _, body) = ask(&router, "GET", "/healthz").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.starts_with("not ready: waiting for clients: 0 clients are connected"), "{body}");
        assert_eq!(ask(&router, "GET", "/livez").await.2, "alive\n");
        ready.store(true, Ordering::Relaxed);
        assert_eq!(ask(&router, "GET", "/healthz").await.2, "ok\n");
    }
}
