//! No request is lost when weights change, pods start and stop, or the gateway itself shuts down.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use slipway_gateway_policy::config::{BrakeConfig, EndpointGroup};
use support::client::{Http, get, http1, http2, infer, predict, send};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, STABLE, Scrape, World, eventually, two_arms, within};
use tokio::task::JoinSet;

/// Clients that send one request after the other until they are stopped.
struct Load {
    answered: Arc<AtomicUsize>,
    gave_up: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    fn start(addr: SocketAddr, clients: usize, make: fn() -> Http) -> Self {
        let mut load = Self {
            answered: Arc::default(),
            gave_up: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..clients {
            let (answered, gave_up) = (Arc::clone(&load.answered), Arc::clone(&load.gave_up));
            let (stop, client) = (Arc::clone(&load.stop), make());
            load.clients.spawn(async move {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match send(&client, infer(addr).body(Full::from("{}")).unwrap()).await {
                        Ok(answer) if answer.status == 200 => {
                            _ = answered.fetch_add(1, Ordering::Relaxed)
                        }
                        Ok(answer) => lost.push(format!("{} {}", answer.status, answer.body)),
                        // A refused connection carried no request: the endpoint is removed by then.
                        Err(error) if error.starts_with("refused") => break,
                        Err(error) if error.starts_with("gave up") => {
                            gave_up.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Err(error) => lost.push(error),
                    }
                }
                lost
            });
        }
        load
    }

    async fn more(&self, requests: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + requests;
        eventually("the load goes on", || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    async fn lost(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        within(Duration::from_secs(10), self.clients.join_all()).await.concat()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_weights_loses_nothing() {
    let (mut world, _stable, _candidate) = two_arms().await;
    let load = Load::start(world.data, 8, http1);
    for (generation, permille) in [50, 250, 500, 1000, 0].into_iter().enumerate() {
        world.weigh(generation as i64 + 2, permille).apply();
        load.more(500).await;
    }
    assert_eq!(load.lost().await, [""; 0]);
    world.metrics().assert_conserved();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_come_and_go_lose_nothing() {
    let (mut world, first, _) = two_arms().await;
    let load = Load::start(world.data, 8, http1);
    let mut leaving = first;
    for _ in 0..5 {
        load.more(200).await;
        let next = Upstream::start("next", Mood::Good).await;
        world.endpoints(STABLE, &[leaving.addr, next.addr]).apply();
        load.more(200).await;
        let shutting_down = EndpointGroup {
            ready: [next.addr].into(),
            draining: [leaving.addr].into(),
            ..EndpointGroup::default()
        };
        world.snapshot.endpoints.insert(("digits".into(), STABLE.into()), shutting_down);
        world.apply();
        let gone = leaving.served();
        load.more(200).await;
        assert!(leaving.served() <= gone + 8, "chosen after it left");
        leaving = next;
    }
    assert_eq!(load.lost().await, [""; 0]);
}

/// A model with few requests would lose its last pod before the replacement is ready, so the
/// gateway probes it.
#[tokio::test]
async fn the_last_pod_is_asked_to_stay_until_another_is_ready() {
    let (mut world, last, candidate) = two_arms().await;
    let leaves = |world: &mut World, revision: &str, addr| {
        let group = EndpointGroup { draining: [addr].into(), ..EndpointGroup::default() };
        world.snapshot.endpoints.insert(("digits".into(), revision.into()), group);
    };
    leaves(&mut world, STABLE, last.addr);
    leaves(&mut world, CANDIDATE, candidate.addr);
    world.apply();
    eventually("asked to stay", || last.served() >= 3).await;
    assert_eq!(last.last.lock().unwrap().as_ref().unwrap().uri.path(), "/v2/health/ready");
    assert_eq!(candidate.served(), 0, "it has no share");
    assert_eq!(predict(&http1(), world.data).await.status, 200);
    let health = get(&http1(), format!("http://{}/v2/health/ready", world.data)).await;
    assert_eq!(health.status, 200, "it serves");
    assert_eq!(world.metrics().arm(STABLE, "success"), 1, "none of it is evidence");

    world.weigh(2, 10).apply();
    eventually("it has a share", || candidate.served() > 0).await;

    let (replacement, watched) =
        (Upstream::start("replacement", Mood::Good).await, candidate.served());
    world.endpoints(STABLE, &[replacement.addr]).apply();
    let asked = last.served();
    eventually("others are asked still", || candidate.served() >= watched + 4).await;
    // One probe may have been in transit.
    assert!(last.served() <= asked + 1, "asked although another one is ready");
    world.model().scaled_to_zero = true;
    leaves(&mut world, STABLE, replacement.addr);
    world.apply();
    let quiet = async { eventually("asked", || replacement.served() > 1).await };
    assert!(tokio::time::timeout(Duration::from_secs(3), quiet).await.is_err(), "no pod is wanted");
}

#[tokio::test]
async fn pods_are_told_the_timeout_of_the_spec() {
    let (mut world, stable, _) = two_arms().await;
    world.model().timeout = Duration::from_secs(120);
    world.declare_address().apply();
    let told =
        |name: &str| stable.last.lock().unwrap().as_ref().unwrap().headers.get(name).cloned();
    predict(&http1(), world.data).await;
    assert_eq!(told("x-request-timeout-ms").unwrap(), "120000");
    let own =
        infer(world.data).header("x-request-timeout-ms", "4000").body(Full::default()).unwrap();
    assert_eq!(send(&http1(), own).await.unwrap().status, 200);
    assert_eq!(told("x-request-timeout-ms").unwrap(), "4000");
    let grpc = |headers: &[(&str, &str)]| {
        let url = format!("http://{}/inference.GRPCInferenceService/ModelInfer", world.data);
        let request =
            Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Full::<Bytes>::from("x")).unwrap()
    };
    send(&http2(), grpc(&[])).await.unwrap();
    assert_eq!(
        (told("grpc-timeout").unwrap(), told("x-request-timeout-ms")),
        ("120S".parse().unwrap(), None)
    );
    send(&http2(), grpc(&[("grpc-timeout", "9S")])).await.unwrap();
    assert_eq!(told("grpc-timeout").unwrap(), "9S");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_crashes_under_load_loses_nothing() {
    let (mut world, first, second) = two_arms().await;
    world.endpoints(STABLE, &[first.addr, second.addr]).apply();
    let load = Load::start(world.data, 8, http1);
    load.more(500).await;
    first.crash();
    load.more(500).await;
    assert_eq!(load.lost().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_loses_nothing() {
    for make in [http1 as fn() -> Http, http2] {
        let (mut world, stable, _) = two_arms().await;
        world.weigh(2, 250).apply();
        let load = Load::start(world.data, 8, make);
        load.more(300).await;

        stable.set(Mood::Slow(Duration::from_millis(50)));
        let ready = format!("http://{}/readyz", world.admin);
        assert_eq!(get(&http1(), ready.clone()).await.status, 200);
        world.terminate();
        let gateway = Arc::clone(&world.gateway);
        eventually("it wants no new clients", || gateway.is_draining()).await;
        assert_eq!(get(&http1(), ready).await.status, StatusCode::SERVICE_UNAVAILABLE, "at once");
        load.more(1).await;
        within(Duration::from_secs(10), world.ended()).await;
        let (answered, gave_up) = (Arc::clone(&load.answered), Arc::clone(&load.gave_up));
        assert_eq!(load.lost().await, [""; 0]);
        // The reverse check: every request that the gateway accepted was answered to a client, or
        // cancelled by the client.
        let metrics = Scrape(gateway.metrics.encode_text().unwrap());
        let (answered, gave_up) =
            (answered.load(Ordering::Relaxed) as u64, gave_up.load(Ordering::Relaxed) as u64);
        let (taken, cancelled) =
            (metrics.sum("client_requests_total", &[]), metrics.client("cancelled"));
        assert_eq!((metrics.client("success"), taken), (answered, answered + cancelled));
        assert!(cancelled <= gave_up, "{cancelled} cancelled, {gave_up} gave up");
        metrics.assert_conserved();
    }
}

#[tokio::test]
async fn http1_clients_are_asked_to_leave_while_it_drains() {
    let (world, _stable, _candidate) = two_arms().await;
    assert_eq!(predict(&http1(), world.data).await.header("connection"), None);
    world.gateway.set_draining();
    assert_eq!(predict(&http1(), world.data).await.header("connection"), Some("close"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_always_fails_costs_no_client_an_error_and_is_taken_out() {
    for mood in [Mood::Status(500), Mood::Reset, Mood::Truncate] {
        let (mut world, _stable, candidate) = two_arms().await;
        candidate.set(mood);
        world.model().brake = BrakeConfig::DEFAULT;
        world.weigh(2, 500).apply();
        let load = Load::start(world.data, 16, http1);
        let gateway = Arc::clone(&world.gateway);
        eventually("the brake acts", || {
            gateway.router.table().models["digits"].arms[1].is_braked()
        })
        .await;
        load.more(100).await;
        let after = candidate.served();
        load.more(500).await;
        assert!(
            candidate.served() <= after + 16,
            "it gets nothing any more but what each client may have on its way"
        );
        assert_eq!(load.lost().await, [""; 0]);

        let metrics = world.metrics();
        assert_eq!(metrics.sum("braked", &[("revision", CANDIDATE)]), 1);
        let failures = metrics.arm(CANDIDATE, "server_error");
        assert!((10..=26).contains(&failures), "{failures}: ten, and what was on its way");
        metrics.assert_conserved();

        world.endpoints(CANDIDATE, &[candidate.addr]).apply();
        assert!(
            world.gateway.router.table().models["digits"].arms[1].is_braked(),
            "an update of endpoints keeps it"
        );
        world.weigh(3, 0).apply();
        assert_eq!(world.metrics().sum("braked", &[]), 0);
    }
}

#[tokio::test]
async fn a_failure_that_stable_shares_does_not_feed_the_brake() {
    let (mut world, stable, candidate) = two_arms().await;
    stable.set(Mood::Status(500));
    candidate.set(Mood::Status(500));
    world.model().brake = BrakeConfig::DEFAULT;
    world.weigh(2, 500).apply();
    let client = http1();
    for _ in 0..100 {
        assert_eq!(predict(&client, world.data).await.status, 500);
    }
    assert!(!world.gateway.router.table().models["digits"].arms[1].is_braked());
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let (mut world, _stable, _candidate) = two_arms().await;
    world.declare_address().apply();
    for method in ["ModelInfer", "ModelStreamInfer"] {
        let url = format!("http://{}/inference.GRPCInferenceService/{method}", world.data);
        let request =
            Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
        let answer = send(&http2(), request.body(Full::from(method)).unwrap()).await.unwrap();
        let trailers = answer
            .trailers
            .unwrap_or_else(|| panic!("{method} {:?} {}", answer.headers, answer.body));
        assert_eq!(
            (answer.body.as_str(), &trailers["grpc-status"]),
            (method, &"0".parse().unwrap())
        );
        assert_eq!(trailers["x-trailer"], "kept");
    }
    assert_eq!(world.metrics().arm(STABLE, "success"), 2);
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_words() {
    let mut world = World::with(|settings| settings.endpoint_wait = Duration::ZERO).await;
    world.declare_address().weigh(1, 0).apply();
    let url = format!("http://{}/inference.GRPCInferenceService/ModelInfer", world.data);
    let request = Request::post(url).header("content-type", "application/grpc");
    let answer = send(&http2(), request.body(Full::from("x")).unwrap()).await.unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (StatusCode::OK, Some("14")));
}
