//! ModelDeployments with hanging pods, and clients whose bodies do not arrive, take no capacity
//! away from the others.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, select_all};
use http::{Request, StatusCode};
use http_body_util::Full;
use slipway_gateway_policy::config::EndpointGroup;
use support::client::{http1, http2, predict, send};
use support::upstream::{Mood, Upstream};
use support::{STABLE, World, eventually, model, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const DEADLINE: Duration = Duration::from_secs(30);

/// Adds a ModelDeployment `letters` beside `digits`.
fn add_letters(world: &mut World, upstream: &Upstream) {
    let mut letters = model("letters");
    letters.weights = world.model().weights.clone();
    world.snapshot.models.insert("letters".into(), letters);
    let group = EndpointGroup { ready: [upstream.addr].into(), ..EndpointGroup::default() };
    world.snapshot.endpoints.insert(("letters".into(), STABLE.into()), group);
}

async fn letters(client: &support::client::Http, world: &World) -> StatusCode {
    let request = Request::post(format!("http://{}/v2/models/letters/infer", world.data));
    let answer = send(client, request.body(Full::from("{}")).unwrap());
    within(DEADLINE, answer).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_hangs_takes_nothing_from_its_neighbour() {
    let (hangs, good) =
        (Upstream::start("hangs", Mood::Hang).await, Upstream::start("good", Mood::Good).await);
    let mut world = World::with(|settings| settings.max_in_flight = 90).await;
    world.weigh(1, 0).endpoints(STABLE, &[hangs.addr]).model().timeout = Duration::from_secs(3600);
    add_letters(&mut world, &good);
    world.apply();
    let (crowd, data) = (http2(), world.data);
    let waiting: Vec<_> = (0..400)
        .map(|_| {
            let crowd = crowd.clone();
            tokio::spawn(async move { predict(&crowd, data).await.status })
        })
        .collect();
    eventually("it has all it can get", || world.metrics().sum("rejected_total", &[]) == 400 - 60)
        .await;
    eventually("all of it is with its pod", || hangs.served() == 60).await;
    let client = http1();
    for _ in 0..20 {
        let answers = join_all((0..10).map(|_| letters(&client, &world))).await;
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    }
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

/// How a client occupies a permit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slow {
    /// With a body that would be buffered.
    Small,
    /// With a streamed body, to a pod that waits for it.
    Large,
    /// With a gRPC call whose target the gateway does not know yet.
    Nameless,
}

/// From a separate address: sends the head of a request and one byte of its body.
async fn slow_body(world: &World, kind: Slow) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from([127, 255, 0, 1]), 0).into()).unwrap();
    let mut stream = within(DEADLINE, socket.connect(world.data)).await.unwrap();
    let (path, kind, length) = match kind {
        Slow::Small => ("/v2/models/digits/infer", "application/json", 100),
        Slow::Large => ("/v2/models/digits/infer", "application/json", 100 << 20),
        Slow::Nameless => ("/inference.GRPCInferenceService/ModelInfer", "application/grpc", 100),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), b"\0"].concat()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_come_keep_no_other_client_out() {
    for kind in [Slow::Small, Slow::Large, Slow::Nameless] {
        let good = Upstream::start("good", Mood::Good).await;
        let mut world = World::with(|settings| settings.max_in_flight = 30).await;
        world.weigh(1, 0).endpoints(STABLE, &[good.addr]).model().timeout =
            Duration::from_secs(3600);
        world.apply();
        let mut crowd = Vec::new();
        for _ in 0..20 {
            crowd.push(slow_body(&world, kind).await);
        }
        // A further one finds no permit: the client's own earlier requests do not give theirs up.
        let shares = match kind {
            Slow::Nameless => world.gateway.unrouted_shares.clone(),
            _ => world.gateway.router.table().models["digits"].shares.clone(),
        };
        eventually("they have all places", || shares.in_flight() == 20).await;
        let mut refused = slow_body(&world, kind).await;
        let mut answer = vec![0; 12];
        within(DEADLINE, refused.read_exact(&mut answer)).await.unwrap();
        let overloaded = if kind == Slow::Nameless { "HTTP/1.1 200" } else { "HTTP/1.1 503" };
        assert_eq!(String::from_utf8_lossy(&answer), overloaded, "{kind:?}");

        for client in [http1(), http2()] {
            for _ in 0..20 {
                let answers = join_all((0..5).map(|_| predict(&client, world.data))).await;
                assert!(answers.iter().all(|answer| answer.status == 200), "{kind:?} {answers:?}");
            }
        }
        if kind == Slow::Nameless {
            continue;
        }
        // An evicted client receives the status 408, and may retry. Most of them stay, because the
        // permits suffice.
        let told = crowd.iter_mut().map(|stream| {
            Box::pin(async move {
                let mut answer = vec![0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                answer
            })
        });
        let (answer, ..) = within(DEADLINE, select_all(told)).await;
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408", "{kind:?}");
        let late = world.metrics().sum("rejected_total", &[("reason", "body_timeout")]);
        let ended = world.metrics().client("client_error");
        assert!((1..=10).contains(&ended) && late <= ended, "{kind:?} {ended} {late}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_alone_may_have_every_place() {
    let good = Upstream::start("good", Mood::Slow(Duration::from_millis(200))).await;
    let mut world = World::with(|settings| settings.max_in_flight = 30).await;
    world.weigh(1, 0).endpoints(STABLE, &[good.addr]).apply();
    let client = http1();
    let body = Bytes::from(vec![b' '; 200_000]);
    let answers = join_all((0..20).map(|_| {
        let url = format!("http://{}/v2/models/digits/infer", world.data);
        send(&client, Request::post(url).body(Full::new(body.clone())).unwrap())
    }));
    for answer in within(DEADLINE, answers).await {
        assert_eq!(answer.unwrap().status, 200);
    }
}
