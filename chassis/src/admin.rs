//! The admin port: probes, metrics, and what a program adds to them.
//!
//! The paths are the same in all programs. The form of the answers ([`AdminFormat`]) is each
//! program's own, because probes and scrapers of users rely on it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use slipway_contracts::paths;
use slipway_listener::{HttpServer, ListenerSettings, ShutdownMode};
use tokio::net::TcpListener;

/// Content type of a text in UTF-8.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// The answer of an admin port.
pub type AdminResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The text of a probe that succeeds (200), or of one that fails (503).
pub type ProbeResult = Result<Cow<'static, str>, Cow<'static, str>>;

/// The form of a program's answers.
#[derive(Clone, Copy, Debug)]
pub struct AdminFormat {
    /// Content type of texts, unless they are empty.
    pub text_type: Option<&'static str>,
    /// Text of the answer at a path that does not exist (404).
    pub not_found: &'static str,
    /// Which methods are answered.
    pub methods: AllowedMethods,
}

/// Which methods are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedMethods {
    /// All of them, alike.
    Any,
    /// GET and HEAD, whatever the path. Others get 405 with this text.
    ReadAnywhere(&'static str),
    /// GET and HEAD at probes and metrics. Others get 405 with `allow` there, and at other paths
    /// what GET gets.
    ReadKnownPaths,
}

/// What a program answers at its admin port.
pub trait AdminEndpoints: Send + Sync + 'static {
    /// The form of the answers.
    const FORMAT: AdminFormat;

    /// Whether the process works, at `/livez`.
    fn liveness(&self) -> ProbeResult {
        Ok(Cow::Borrowed("ok\n"))
    }

    /// Whether the process may get work, at `/readyz`.
    fn readiness(&self) -> ProbeResult;

    /// Content type and body of the metrics for a scrape with these headers, at `/metrics`.
    ///
    /// # Errors
    /// When they cannot be encoded.
    fn metrics(&self, headers: &HeaderMap) -> Result<(&'static str, Vec<u8>), fmt::Error>;

    /// The answer at a path of the program's own; nothing where there is no such path.
    fn respond(&self, _request: &Parts, _peer: IpAddr) -> Option<AdminResponse> {
        None
    }
}

/// Serves the admin port until `stop`, and returns when all connections have ended.
pub async fn serve_admin<E: AdminEndpoints>(
    socket: TcpListener,
    shutdown_mode: ShutdownMode,
    endpoints: Arc<E>,
    stop: impl Future<Output = ()>,
) {
    let make = move |peer| {
        let endpoints = Arc::clone(&endpoints);
        service_fn(move |request: Request<Incoming>| {
            let (request, _body) = request.into_parts();
            let response = respond(E::FORMAT, endpoints.as_ref(), &request, peer);
            ready(Ok::<_, Infallible>(response))
        })
    };
    let settings = ListenerSettings::for_admin_port(shutdown_mode);
    let builder = auto::Builder::new(TokioExecutor::new());
    HttpServer::new(socket, settings, builder).serve(make, stop).await;
}

/// An answer with a body.
pub fn body_response(
    status: StatusCode,
    content_type: Option<&'static str>,
    body: impl Into<Bytes>,
) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

fn respond<E: AdminEndpoints>(
    format: AdminFormat,
    endpoints: &E,
    request: &Parts,
    peer: IpAddr,
) -> AdminResponse {
    let path = request.uri.path();
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let known = matches!(path, paths::LIVENESS | paths::READINESS | paths::METRICS);
        match format.methods {
            AllowedMethods::ReadAnywhere(refusal) => {
                return text_response(format, StatusCode::METHOD_NOT_ALLOWED, refusal.into());
            }
            AllowedMethods::ReadKnownPaths if known => {
                let mut response =
                    text_response(format, StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed(""));
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
                return response;
            }
            AllowedMethods::ReadKnownPaths | AllowedMethods::Any => {}
        }
    }
    match path {
        paths::LIVENESS => probe_response(format, endpoints.liveness()),
        paths::READINESS => probe_response(format, endpoints.readiness()),
        paths::METRICS => match endpoints.metrics(&request.headers) {
            Ok((content_type, body)) => body_response(StatusCode::OK, Some(content_type), body),
            Err(fmt::Error) => text_response(
                format,
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics cannot be written\n".into(),
            ),
        },
        _ => endpoints.respond(request, peer).unwrap_or_else(|| {
            text_response(format, StatusCode::NOT_FOUND, format.not_found.into())
        }),
    }
}

fn probe_response(format: AdminFormat, result: ProbeResult) -> AdminResponse {
    match result {
        Ok(text) => text_response(format, StatusCode::OK, text),
        Err(text) => text_response(format, StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

fn text_response(
    format: AdminFormat,
    status: StatusCode,
    text: Cow<'static, str>,
) -> AdminResponse {
    let content_type = format.text_type.filter(|_| !text.is_empty());
    match text {
        Cow::Borrowed(text) => body_response(status, content_type, text),
        Cow::Owned(text) => body_response(status, content_type, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Program {
        ready: bool,
        metrics: Result<(&'static str, Vec<u8>), fmt::Error>,
    }

    static WORKING: Program = Program { ready: true, metrics: Ok(("x/metrics", Vec::new())) };

    const FORMAT: AdminFormat = AdminFormat {
        text_type: Some(TEXT_PLAIN),
        not_found: "no such path\n",
        methods: AllowedMethods::Any,
    };

    impl AdminEndpoints for Program {
        const FORMAT: AdminFormat = FORMAT;

        fn readiness(&self) -> ProbeResult {
            if self.ready { Ok("ready".into()) } else { Err(format!("not {}", "ready").into()) }
        }

        fn metrics(&self, headers: &HeaderMap) -> Result<(&'static str, Vec<u8>), fmt::Error> {
            assert_eq!(headers["accept"], "x/metrics");
            self.metrics.clone()
        }

        fn respond(&self, request: &Parts, peer: IpAddr) -> Option<AdminResponse> {
            let own = || body_response(StatusCode::ACCEPTED, None, peer.to_string());
            (request.uri.path() == "/own").then(own)
        }
    }

    /// Status, content type, `allow` and body of an answer.
    async fn ask(
        format: AdminFormat,
        program: &Program,
        method: Method,
        path: &str,
    ) -> (u16, Option<String>, Option<String>, String) {
        let request = Request::builder().method(method).uri(path).header("accept", "x/metrics");
        let (request, ()) = request.body(()).unwrap().into_parts();
        let response = respond(format, program, &request, IpAddr::from([10, 0, 0, 7]));
        let header = |name| {
            let value: Option<&HeaderValue> = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (content_type, allow) = (header(CONTENT_TYPE), header(ALLOW));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, allow, String::from_utf8(body.to_vec()).unwrap())
    }

    fn text(status: u16, text: &str) -> (u16, Option<String>, Option<String>, String) {
        (status, Some(TEXT_PLAIN.to_owned()), None, text.to_owned())
    }

    #[tokio::test]
    async fn probes_and_metrics_answer() {
        let broken = Program { ready: false, metrics: Err(fmt::Error) };
        let get = |program, path| ask(FORMAT, program, Method::GET, path);
        assert_eq!(get(&WORKING, "/livez").await, text(200, "ok\n"));
        assert_eq!(get(&WORKING, "/readyz").await, text(200, "ready"));
        assert_eq!(get(&broken, "/readyz").await, text(503, "not ready"));
        let metrics = (200, Some("x/metrics".to_owned()), None, String::new());
        assert_eq!(get(&WORKING, "/metrics").await, metrics);
        assert_eq!(get(&broken, "/metrics").await, text(500, "metrics cannot be written\n"));
    }

    #[tokio::test]
    async fn a_program_has_paths_of_its_own() {
        let own = (202, None, None, "10.0.0.7".to_owned());
        assert_eq!(ask(FORMAT, &WORKING, Method::GET, "/own").await, own);
        assert_eq!(ask(FORMAT, &WORKING, Method::GET, "/other").await, text(404, "no such path\n"));
    }

    #[tokio::test]
    async fn methods_are_refused_in_the_form_of_the_program() {
        let ask =
            |methods, path| ask(AdminFormat { methods, ..FORMAT }, &WORKING, Method::POST, path);
        assert_eq!(ask(AllowedMethods::Any, "/livez").await, text(200, "ok\n"));
        let anywhere = AllowedMethods::ReadAnywhere("only GET\n");
        assert_eq!(ask(anywhere, "/livez").await, text(405, "only GET\n"));
        assert_eq!(ask(anywhere, "/own").await, text(405, "only GET\n"));
        let known = AllowedMethods::ReadKnownPaths;
        let refused = (405, None, Some("GET,HEAD".to_owned()), String::new());
        assert_eq!(ask(known, "/livez").await, refused);
        assert_eq!(ask(known, "/other").await, text(404, "no such path\n"));
    }

    #[tokio::test]
    async fn a_text_may_have_no_type_and_an_empty_one_has_none() {
        let format = AdminFormat { text_type: None, ..FORMAT };
        let untyped = (200, None, None, "ok\n".to_owned());
        assert_eq!(ask(format, &WORKING, Method::GET, "/livez").await, untyped);
        let format = AdminFormat { not_found: "", ..FORMAT };
        let empty = (404, None, None, String::new());
        assert_eq!(ask(format, &WORKING, Method::GET, "/other").await, empty);
    }
}
