//! Which ModelDeployment a request is for: by the address of its Service, a declared host, or its
//! model name; and that no other ModelDeployment changes that.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use slipway_gateway_policy::config::{EndpointGroup, ModelConfig};
use support::client::{grpc, http1, send};
use support::upstream::{Mood, Upstream};
use support::{STABLE, TOKEN, World, eventually, model};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Hosts that no ModelDeployment declares: a public name, a port-forward, a load balancer's probe.
const UNDECLARED: [&str; 4] = ["models.example.org", "localhost:8080", "10.0.0.7:8080", "10.0.0.7"];

/// A ModelDeployment `digits` with the model `ma`, and one that may be added: `b`.
struct Neighbours {
    world: World,
    digits: Upstream,
    b: Upstream,
}

impl Neighbours {
    async fn new() -> Self {
        let (digits, b) =
            (Upstream::start("digits", Mood::Good).await, Upstream::start("b", Mood::Good).await);
        let mut world = World::new().await;
        world.weigh(1, 0).endpoints(STABLE, &[digits.addr]);
        world.model().created = 100;
        world.model().claims.model_name = "ma".into();
        world.model().claims.hosts = ["digits.example.org".to_owned()].into();
        world.apply();
        Self { world, digits, b }
    }

    /// Adds or changes `b`.
    fn come(&mut self, adjust: impl FnOnce(&mut ModelConfig)) {
        let mut config = model("b");
        config.created = 200;
        config.weights.clone_from(&self.world.snapshot.models["digits"].weights);
        adjust(&mut config);
        self.world.snapshot.models.insert("b".into(), config);
        let group = EndpointGroup { ready: [self.b.addr].into(), ..EndpointGroup::default() };
        self.world.snapshot.endpoints.insert(("b".into(), STABLE.into()), group);
        self.world.apply();
    }

    fn go(&mut self) {
        self.world.snapshot.models.remove("b");
        self.world.apply();
    }

    /// Sends a request; returns its status, and the server that answered or, from the gateway
    /// itself, the body.
    async fn ask(&self, host: &str, path: &str) -> (u16, String) {
        ask(self.world.data, Method::GET, host, path).await
    }

    /// The same at the private port, with the token.
    async fn look(&self, host: &str, path: &str) -> (u16, String) {
        let request =
            Request::get(format!("http://{}{path}", self.world.private)).header("host", host);
        answer(request.header("authorization", format!("Bearer {TOKEN}"))).await
    }

    async fn call(&self, authority: &str, path: &str, message: &[u8]) -> (String, String) {
        let answer =
            grpc(self.world.data, authority, path, &[], Full::new(framed(message))).await.unwrap();
        let status = answer.grpc_status().unwrap_or("none").to_owned();
        (status, answer.header("x-upstream").map_or_else(|| "gateway".to_owned(), str::to_owned))
    }
}

async fn ask(gateway: SocketAddr, method: Method, host: &str, path: &str) -> (u16, String) {
    answer(
        Request::builder()
            .method(method)
            .uri(format!("http://{gateway}{path}"))
            .header("host", host),
    )
    .await
}

async fn answer(request: http::request::Builder) -> (u16, String) {
    let answer = send(&http1(), request.body(Full::default()).unwrap()).await.unwrap();
    (answer.status.as_u16(), answer.header("x-upstream").map_or(answer.body.clone(), str::to_owned))
}

fn framed(message: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat().into()
}

/// A message with the field `model_name` or `name`, followed by another field.
fn naming(model: &str) -> Vec<u8> {
    [&[0x0a, u8::try_from(model.len()).unwrap()][..], model.as_bytes(), &[0x12, 1, b'1']].concat()
}

fn by(name: &str) -> (u16, String) {
    (200, name.to_owned())
}

/// All kinds of requests of clients of `digits` and of the gateway itself, with their results.
async fn picture(neighbours: &Neighbours) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let paths = [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/ma",
        "/v2/models/ma/infer",
        "/v2/models/ma/jobs/7",
        "/v2/models/none",
        "/v2/jobs/7",
        "/v2/models/stats",
        "/v1/models/ma:predict",
        "/",
    ];
    let hosts = ["digits", "digits.default.svc", "digits-preview", "digits.example.org"];
    for host in UNDECLARED.into_iter().chain(hosts) {
        for path in paths {
            all.push((format!("{host}{path}"), format!("{:?}", neighbours.ask(host, path).await)));
        }
        for method in [
            "ServerLive",
            "ServerReady",
            "ServerMetadata",
            "ModelInfer",
            "ModelMetadata",
            "RepositoryIndex",
        ] {
            let path = format!("/inference.GRPCInferenceService/{method}");
            let answer = neighbours.call(host, &path, &naming("ma")).await;
            all.push((format!("{host}{path}"), format!("{answer:?}")));
        }
    }
    all
}

/// Regression test: with a second ModelDeployment in the namespace, `/v2`, `/v2/health/ready` and
/// `/v2/models/ma` of the first were 404 at a public host.
#[tokio::test]
async fn a_neighbour_changes_nothing() {
    type Change = (&'static str, fn(&mut ModelConfig));
    let mut neighbours = Neighbours::new().await;
    let alone = picture(&neighbours).await;
    let answered = alone.iter().filter(|(_, answer)| answer.contains("digits")).count();
    assert!(answered >= UNDECLARED.len() * 4, "{alone:#?}");
    let changes: [Change; 4] = [
        ("comes", |_| {}),
        ("takes the same model name", |b| b.claims.model_name = "ma".into()),
        ("declares the same host", |b| b.claims.hosts = ["digits.example.org".to_owned()].into()),
        ("is broken", |b| b.weights = None),
    ];
    for (what, change) in changes {
        neighbours.come(change);
        assert_eq!(picture(&neighbours).await, alone, "b {what}");
    }
    neighbours.go();
    assert_eq!(picture(&neighbours).await, alone, "b has gone");
    neighbours.world.metrics().assert_conserved();
}

#[tokio::test]
async fn the_address_of_a_service_decides_before_all_else() {
    let mut neighbours = Neighbours::new().await;
    neighbours.come(|_| {});
    for host in [
        "b",
        "B:8080",
        "b.default",
        "b.default.svc",
        "b.default.svc.cluster.local",
        "b.default.svc.cluster.local.",
    ] {
        assert_eq!(neighbours.ask(host, "/v2/models/ma").await, by("b"), "{host}");
        assert_eq!(neighbours.ask(host, "/v2").await, by("b"), "{host}");
    }
    assert_eq!(neighbours.call("b.default", INFER, &naming("ma")).await, ("0".into(), "b".into()));
    for host in ["b.other", "b.default.example.org", "b-preview.other"] {
        assert_eq!(neighbours.ask(host, "/v2/models/ma").await, by("digits"), "{host}");
    }
}

#[tokio::test]
async fn a_declared_host_is_an_address_like_that_of_the_service() {
    let mut neighbours = Neighbours::new().await;
    neighbours.come(|b| {
        b.claims.hosts = ["digits.example.org".to_owned(), "b.example.org".to_owned()].into()
    });
    for host in ["b.example.org", "B.Example.org:443", "b.example.org."] {
        for path in ["/v2", "/v2/jobs/7", "/v2/models/ma/infer", "/v1/anything"] {
            assert_eq!(neighbours.ask(host, path).await, by("b"), "{host}{path}");
        }
        let ready = (200, r#"{"live":true,"ready":true}"#.to_owned());
        assert_eq!(neighbours.ask(host, "/v2/health/ready").await, ready);
    }
    assert_eq!(
        neighbours.call("b.example.org", INFER, &naming("ma")).await,
        ("0".into(), "b".into())
    );
    assert_eq!(
        neighbours.ask("digits.example.org", "/v2").await,
        by("digits"),
        "the older one holds it"
    );
    neighbours.come(|b| {
        b.created = 50;
        b.claims.hosts = ["digits.example.org".to_owned()].into();
        b.claims.model_name = "ma".into();
    });
    assert_eq!(neighbours.ask("digits.example.org", "/v2").await, by("b"));
    assert_eq!(neighbours.ask("models.example.org", "/v2/models/ma").await, by("b"));
    assert_eq!(
        neighbours.call("models.example.org", INFER, &naming("ma")).await,
        ("0".into(), "b".into())
    );
    assert_eq!(
        neighbours.ask("digits", "/v2/models/ma").await,
        by("digits"),
        "its Service serves all the same"
    );
}

#[tokio::test]
async fn a_modeldeployment_called_localhost_takes_no_port_forward() {
    let mut neighbours = Neighbours::new().await;
    let mut config = model("localhost");
    config.weights.clone_from(&neighbours.world.snapshot.models["digits"].weights);
    neighbours.world.snapshot.models.insert("localhost".into(), config);
    neighbours.world.apply();
    assert_eq!(neighbours.ask("localhost:8080", "/v2/models/ma").await, by("digits"));
}

#[tokio::test]
async fn what_names_no_model_is_refused_with_the_remedy() {
    let neighbours = Neighbours::new().await;
    for path in ["/v2/jobs/7", "/v2/repository/index", "/v1/models/ma:predict", "/", "/v2/health"] {
        let (status, body) = neighbours.ask("models.example.org", path).await;
        assert!(status == 404 && body.contains("spec.traffic.hosts"), "{path}: {status} {body}");
    }
    let (status, body) = neighbours.ask("models.example.org", "/v2/models/none/infer").await;
    assert!(
        status == 404 && body.contains("no ModelDeployment of this namespace serves"),
        "{body}"
    );
    let list = "/inference.GRPCInferenceService/RepositoryIndex";
    assert_eq!(
        neighbours.call("models.example.org", list, &[]).await,
        ("12".into(), "gateway".into())
    );
    assert_eq!(neighbours.world.metrics().sum("unrouted_total", &[]), 7);
}

#[tokio::test]
async fn probes_at_any_host_find_whether_the_gateway_takes_requests() {
    let mut neighbours = Neighbours::new().await;
    let (ready, not_ready) =
        (r#"{"live":true,"ready":true}"#.to_owned(), r#"{"live":true,"ready":false}"#.to_owned());
    // Even when no model has a pod: the request is about the gateway.
    neighbours.world.endpoints(STABLE, &[]).apply();
    for host in UNDECLARED {
        assert_eq!(neighbours.ask(host, "/v2/health/live").await, (200, ready.clone()), "{host}");
        assert_eq!(neighbours.ask(host, "/v2/health/ready").await, (200, ready.clone()), "{host}");
        let (status, about) = neighbours.ask(host, "/v2").await;
        assert!(status == 200 && about.contains(r#""name":"slipway-gateway""#), "{about}");
    }
    let data = neighbours.world.data;
    assert_eq!(ask(data, Method::POST, "10.0.0.7", "/v2/health/ready").await.0, 405);
    for (path, message, expected) in [
        ("/grpc.health.v1.Health/Check", &b""[..], &[8, 1][..]),
        ("/grpc.health.v1.Health/Check", b"\x0a\x1einference.GRPCInferenceService", &[8, 1]),
        ("/inference.GRPCInferenceService/ServerLive", b"", &[8, 1]),
        ("/inference.GRPCInferenceService/ServerReady", b"", &[8, 1]),
        (
            "/inference.GRPCInferenceService/ServerMetadata",
            b"",
            b"\x0a\x0fslipway-gateway\x12\x050.1.0",
        ),
    ] {
        let answer =
            grpc(data, "10.0.0.7:8080", path, &[], Full::new(framed(message))).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("0"), "{path}");
        assert_eq!(answer.body.as_bytes(), framed(expected), "{path}");
    }
    neighbours.world.gateway.set_draining();
    assert_eq!(neighbours.ask("10.0.0.7:8080", "/v2/health/ready").await, (503, not_ready.clone()));
    assert_eq!(neighbours.ask("10.0.0.7:8080", "/v2/health/live").await, (200, not_ready));
    let answer =
        grpc(data, "10.0.0.7", "/grpc.health.v1.Health/Check", &[], Full::new(framed(b"")))
            .await
            .unwrap();
    assert_eq!(answer.body.as_bytes(), framed(&[8, 2]));
}

#[tokio::test]
async fn a_health_check_that_names_a_model_is_that_models() {
    let neighbours = Neighbours::new().await;
    let check = "/grpc.health.v1.Health/Check";
    assert_eq!(
        neighbours.call("models.example.org", check, &naming("ma")).await,
        ("0".into(), "digits".into())
    );
    assert_eq!(
        neighbours.call("models.example.org", check, &naming("none")).await,
        ("5".into(), "gateway".into())
    );
    assert_eq!(neighbours.digits.served(), 1);
}

#[tokio::test]
async fn preview_addresses_are_found_by_name() {
    let mut neighbours = Neighbours::new().await;
    neighbours.come(|b| {
        if let Some(weights) = &mut b.weights {
            weights.preview = Some(STABLE.into());
        }
    });
    assert_eq!(neighbours.look("b-preview.default", "/v2/models/ma").await, by("b"));
    let (status, _) = neighbours.look("digits-preview", "/v2/models/ma").await;
    assert_eq!(
        status,
        StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        "it has none, and is no other host for that"
    );
}

#[tokio::test]
async fn requests_at_hosts_that_nobody_declares_are_judged_like_others() {
    let neighbours = Neighbours::new().await;
    for _ in 0..3 {
        neighbours.call("models.example.org", INFER, &naming("ma")).await;
        neighbours.ask("models.example.org", "/v2/models/ma").await;
    }
    let metrics = neighbours.world.metrics();
    assert_eq!((metrics.arm(STABLE, "success"), metrics.client("success")), (6, 6));
    metrics.assert_conserved();
    let digits = &neighbours.digits;
    eventually("all were served", || digits.served() == 6).await;
}
