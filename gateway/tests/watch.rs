//! The gateway's own watches, with an API server that lists, streams and drops connections.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use slipway_crds::v1alpha1::units::permille;
use slipway_gateway_control::watch;
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::settings::ProcessSettings;
use support::eventually;
use tokio::net::TcpListener;
use tokio::sync::watch as channel;

/// Objects of both kinds, and the open watch streams.
#[derive(Default)]
struct Api {
    models: Mutex<Vec<Value>>,
    slices: Mutex<Vec<Value>>,
    /// Sends events to the streams; `None` closes them.
    events: channel::Sender<Option<Value>>,
    down: AtomicBool,
    lists: AtomicUsize,
}

impl Api {
    async fn start() -> (Arc<Self>, kube::Client) {
        let api = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::clone(&api);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let api = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&api), request));
                tokio::spawn(async move {
                    drop(
                        auto::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        let mut config = kube::Config::new(format!("http://{addr}").parse().unwrap());
        config.default_retry = false;
        (api, kube::Client::try_from(config).unwrap())
    }

    /// Changes an object on the server and sends the event to the streams.
    fn modify(&self, kind: &str, object: Value) {
        let store = if kind == "EndpointSlice" { &self.slices } else { &self.models };
        *store.lock().unwrap() = vec![object.clone()];
        self.events.send_replace(Some(json!({"type": "MODIFIED", "object": object})));
    }

    /// Expires all streams: their resource versions are no longer available.
    fn expire(&self) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old",
        });
        self.events.send_replace(Some(json!({"type": "ERROR", "object": status})));
    }

    /// Closes all streams; `down` rejects new ones as well.
    fn cut(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
        self.events.send_replace(None);
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    Response::builder().status(status).body(Full::from(value.to_string()).boxed_unsync()).unwrap()
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if api.down.load(Ordering::SeqCst) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError", "message": "down"});
        return Ok(whole(StatusCode::INTERNAL_SERVER_ERROR, &status));
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let slices = request.uri().path().ends_with("/endpointslices");
    assert!(!slices || query.contains("labelSelector=app.kubernetes.io"), "{query}");
    let kind = if slices { "EndpointSlice" } else { "ModelDeployment" };
    if query.contains("watch=true") {
        return Ok(stream(&api, kind));
    }
    api.lists.fetch_add(1, Ordering::SeqCst);
    let items = if slices {
        api.slices.lock().unwrap().clone()
    } else {
        api.models.lock().unwrap().clone()
    };
    Ok(whole(
        StatusCode::OK,
        &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
    ))
}

fn stream(api: &Api, kind: &'static str) -> Response<Body> {
    let mut events = api.events.subscribe();
    events.mark_unchanged();
    let lines = futures::stream::unfold(events, move |mut events| async move {
        loop {
            events.changed().await.ok()?;
            let event = events.borrow_and_update().clone()?;
            if [kind, "Status"].contains(&event["object"]["kind"].as_str().unwrap_or_default()) {
                return Some((format!("{event}\n"), events));
            }
        }
    });
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line))));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn digits(generation: i64, candidate: i32) -> Value {
    json!({
        "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": "default", "uid": "1", "resourceVersion": format!("{}", generation + 1)},
        "spec": {"model": {"uri": "file:///models/digits"}},
        "status": {"traffic": {"generation": generation, "backends": [
            {"revision": "aaa", "role": "Stable", "weight": permille::format_permille(1000 - candidate)},
            {"revision": "bbb", "role": "Candidate", "weight": permille::format_permille(candidate)},
        ]}},
    })
}

fn slice(version: u32, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "digits-aaa-1", "namespace": "default", "resourceVersion": version.to_string(),
            "labels": {"ml.slipway.dev/modeldeployment": "digits", "ml.slipway.dev/revision": "aaa"},
        },
        "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    })
}

fn seen(gateway: &GatewayContext) -> Option<(i64, usize)> {
    let table = gateway.router.table();
    let model = table.models.get("digits")?;
    Some((model.weights.as_ref()?.generation, model.stable()?.endpoints.ready_count()))
}

#[tokio::test]
async fn it_follows_every_change_and_forgets_nothing_while_the_api_server_is_away() {
    let (api, client) = Api::start().await;
    *api.models.lock().unwrap() = vec![digits(1, 50)];
    *api.slices.lock().unwrap() = vec![slice(1, &["10.0.0.1", "10.0.0.2"])];
    let gateway = GatewayContext::new(ProcessSettings::default());
    assert!(!gateway.is_ready());
    let watching = tokio::spawn(watch::run_watch(Arc::clone(&gateway), client));
    eventually("both watches sync", || gateway.is_ready()).await;
    assert_eq!(seen(&gateway), Some((1, 2)));
    eventually("both streams are open", || api.events.receiver_count() == 2).await;

    api.modify("ModelDeployment", digits(2, 250));
    eventually("the new weights", || seen(&gateway) == Some((2, 2))).await;
    api.modify("EndpointSlice", slice(2, &["10.0.0.1"]));
    eventually("the pod that left", || seen(&gateway) == Some((2, 1))).await;

    api.cut(true);
    eventually("streams are gone", || api.events.receiver_count() == 0).await;
    assert_eq!(seen(&gateway), Some((2, 1)));
    assert!(gateway.is_ready());
    api.cut(false);
    eventually("it comes back", || api.events.receiver_count() == 2).await;
    api.modify("ModelDeployment", digits(3, 250));
    eventually("what came after", || seen(&gateway) == Some((3, 1))).await;

    // The server has compacted its history: everything is listed again. In the meantime the gateway
    // always has endpoints and weights.
    let mut changes = gateway.router.subscribe();
    *api.models.lock().unwrap() = vec![digits(4, 0)];
    *api.slices.lock().unwrap() = vec![slice(4, &["10.0.0.1", "10.0.0.3", "10.0.0.4"])];
    let lists = api.lists.load(Ordering::SeqCst);
    api.expire();
    while seen(&gateway) != Some((4, 3)) {
        support::within(std::time::Duration::from_secs(10), changes.changed()).await.unwrap();
        let (generation, ready) = seen(&gateway).expect("weights are known");
        assert!(generation >= 3 && ready > 0);
    }
    assert_eq!(api.lists.load(Ordering::SeqCst), lists + 2);
    assert!(!watching.is_finished());
}
