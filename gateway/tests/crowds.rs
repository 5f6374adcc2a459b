//! Many connections that send nothing, to both ports: probes, the operator and other clients are
//! served all the same.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use slipway_listener::OperatorKey;
use support::client::{get, grpc, http1, http2, predict};
use support::upstream::{Mood, Upstream};
use support::{STABLE, World, eventually, loopback, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(30);
const STATE: &[u8] = b"GET /v1/state HTTP/1.1\r\nhost: x\r\n\r\n";

/// Opens connections from one 127.x address that no test or client uses otherwise; each sends
/// `says` and nothing more.
async fn crowd(to: SocketAddr, last: u8, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from([127, 255, 0, last]), 0).into()).unwrap();
        let mut stream = within(DEADLINE, socket.connect(to)).await.unwrap();
        stream.write_all(says).await.unwrap();
        crowd.push(stream);
    }
    crowd
}

async fn world() -> (World, Upstream) {
    let stable = Upstream::start("stable", Mood::Good).await;
    let mut world = World::with(|settings| settings.max_connections = 100).await;
    world.weigh(1, 0).endpoints(STABLE, &[stable.addr]).apply();
    (world, stable)
}

/// Opens a new connection and returns the answer on it, within a second.
async fn probe(world: &World, path: &str) -> StatusCode {
    within(SECOND, get(&http1(), format!("http://{}{path}", world.admin))).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_to_the_admin_port_keep_no_probe_out() {
    let half_head = b"GET /livez HTTP/1.1\r\nhost: ";
    for says in [&b""[..], b"P", half_head] {
        let (world, _stable) = world().await;
        let mut crowds = Vec::new();
        // From one address, and from more addresses than there are permits.
        for last in [1, 1, 2, 3] {
            crowds.push(crowd(world.admin, last, 256, says).await);
            for path in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(probe(&world, path).await, 200, "{path} {says:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_to_the_admin_port_are_closed_in_time() {
    let (world, _stable) = world().await;
    let begun = Instant::now();
    for stream in &mut crowd(world.admin, 1, 2, b"P").await {
        drop(within(DEADLINE, stream.read(&mut [0; 1])).await);
    }
    assert!(begun.elapsed() > SECOND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_show_the_operators_signature_is_told_nothing_of_the_state() {
    let key = OperatorKey::from_pkcs8(&OperatorKey::generate().unwrap()).unwrap();
    let other = OperatorKey::from_pkcs8(&OperatorKey::generate().unwrap()).unwrap();
    let world =
        World::with(|settings| settings.operator_key = Some(key.public_key().parse().unwrap()))
            .await;
    world.apply();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ask = async |shown: Option<String>| {
        let request = Request::get(format!("http://{}/v1/state?changes=true", world.admin));
        let request = shown
            .into_iter()
            .fold(request, |request, shown| request.header("authorization", shown));
        let answer =
            within(SECOND, http1().request(request.body(Full::<Bytes>::default()).unwrap()))
                .await
                .unwrap();
        let status = answer.status().as_u16();
        let first = within(DEADLINE, answer.into_body().frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        (status, String::from_utf8_lossy(&first).into_owned())
    };
    let refused = [
        (None, "only the operator"),
        (Some("Bearer x".to_owned()), "authorization"),
        (Some(other.authorization("default", "slipway-gateway", now)), "another operator's key"),
        (Some(key.authorization("default", "slipway-gateway-2", now)), "another pod"),
        (Some(key.authorization("default", "slipway-gateway", now - 400)), "clocks"),
    ];
    for (shown, why) in refused {
        let (status, said) = ask(shown).await;
        assert!(status == 401 && said.contains(why), "{status} {said}");
    }
    let (status, said) = ask(Some(key.authorization("default", "slipway-gateway", now))).await;
    assert!(status == 200 && said.contains("\"pod\":\"slipway-gateway\""), "{status} {said}");
    assert_eq!(probe(&world, "/livez").await, 200, "probes and scrapes are for everybody");
    assert_eq!(probe(&world, "/metrics").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_is_heard_however_many_listen() {
    let (world, _stable) = world().await;
    let open = || {
        let request = Request::get(format!("http://{}/v1/state", world.admin))
            .body(Full::<Bytes>::default())
            .unwrap();
        async move { within(SECOND, http1().request(request)).await.unwrap().into_body() }
    };
    let mut early = open().await;
    let _strangers =
        [crowd(world.admin, 1, 16, STATE).await, crowd(world.admin, 2, 300, STATE).await];
    let mut late = open().await;
    // More than the streams had sent before the other connections were opened.
    for _ in 0..3 {
        assert!(within(DEADLINE, late.frame()).await.unwrap().unwrap().is_data());
        assert!(within(DEADLINE, early.frame()).await.unwrap().unwrap().is_data());
    }
    assert_eq!(probe(&world, "/readyz").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_to_the_data_port_lose_nobodys_requests() {
    for says in [&b""[..], b"P"] {
        let (world, stable) = world().await;
        // A request that started earlier, and continues.
        let slow = Duration::from_secs(2);
        stable.set(Mood::Slow(slow));
        let (client, data) = (http2(), world.data);
        let long = tokio::spawn(async move { predict(&client, data).await.status });
        eventually("it is on its way", || world.metrics().sum("connections", &[]) == 1).await;
        eventually("the pod has it", || stable.served() == 1).await;
        stable.set(Mood::Good);
        let _crowd = crowd(world.data, 1, 300, says).await;
        let kept = http1();
        for _ in 0..50 {
            assert_eq!(within(SECOND, predict(&kept, world.data)).await.status, 200);
            assert_eq!(within(SECOND, predict(&http1(), world.data)).await.status, 200);
            assert_eq!(within(SECOND, predict(&http2(), world.data)).await.status, 200);
        }
        assert_eq!(within(DEADLINE, long).await.unwrap(), 200);
        assert_eq!(world.metrics().client("success"), 151);
        world.metrics().assert_conserved();
    }
}

/// The pod does not read its connections for a while, and then behaves like many servers: it closes
/// those with more than 20 cancelled calls.
#[tokio::test]
async fn calls_that_are_taken_back_unseen_end_nobody_elses() {
    let busy = TcpListener::bind(loopback()).await.unwrap();
    let mut world = World::new().await;
    world.declare_address().weigh(1, 0).endpoints(STABLE, &[busy.local_addr().unwrap()]).apply();
    let in_flight = || world.gateway.router.models()[0].stable().unwrap().state.in_flight();
    let data = world.data;
    let call = || {
        let path = "/inference.GRPCInferenceService/ModelStreamInfer";
        tokio::spawn(async move {
            grpc(data, &data.to_string(), path, &[], Full::from("message")).await
        })
    };
    let stays = call();
    eventually("one is there", || in_flight() == 1).await;
    let leave: Vec<_> = (0..60).map(|_| call()).collect();
    eventually("all are there", || in_flight() == 61).await;
    leave.iter().for_each(|call| call.abort());
    eventually("the others have left", || in_flight() == 1).await;
    let _pod = Upstream::on(busy, "stable", Mood::Good);
    let answer = within(DEADLINE, stays).await.unwrap().unwrap();
    assert_eq!((answer.body.as_str(), answer.grpc_status()), ("message", Some("0")));
    assert_eq!(within(DEADLINE, call()).await.unwrap().unwrap().grpc_status(), Some("0"));
}
