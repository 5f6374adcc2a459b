use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use slipway_cluster_views::ObjectOwner;
use slipway_contracts::state::MAX_LINE_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout};

use super::*;
use crate::report::StreamRateLimiter;

const DEADLINE: Duration = Duration::from_secs(10);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

/// Accepts one connection and sends the head of a stream.
async fn accept(listener: &TcpListener) -> OwnedWriteHalf {
    let (socket, _) = soon(listener.accept()).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(read.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"GET /v1/state?changes=true "), "{}", String::from_utf8_lossy(&head));
    write
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
        .await
        .unwrap();
    tokio::spawn(async move { while read.read_u8().await.is_ok() {} });
    write
}

async fn say(to: &mut OwnedWriteHalf, pod: &str, generation: i64) {
    let line = format!(
        "{{\"pod\":\"{pod}\",\"models\":[{{\"name\":\"m\",\"uid\":\"u\",\"generation\":{generation}}}]}}\n"
    );
    to.write_all(line.as_bytes()).await.unwrap();
}

fn pod(uid: &str, address: SocketAddr, ready: bool, deleting: bool) -> CachedPod {
    CachedPod {
        uid: uid.into(),
        ip: Some(address.ip().to_string()),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        controller: None,
        ready,
        deleting,
        ended: false,
        problem: None,
        fetched: None,
    }
}

fn change(before: Option<CachedPod>, after: Option<CachedPod>) -> ViewChange<CachedPod> {
    ViewChange { owner: ObjectOwner::gateway("ns"), name: "gw".into(), before, after }
}

/// A namespace with a few ModelDeployments; `is_gateway` determines whether its pods are gateways.
struct Namespace {
    is_gateway: AtomicBool,
}

impl GatewayLookup for Namespace {
    fn is_gateway(&self, _: &str, _: &str, _: &str) -> bool {
        self.is_gateway.load(Ordering::Relaxed)
    }

    fn count_models(&self, _: &str) -> usize {
        3
    }
}

async fn world() -> (TcpListener, GatewayStreams, UnboundedReceiver<ReconcileTrigger>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (triggers, triggered) = unbounded_channel();
    let port = listener.local_addr().unwrap().port();
    let gateways = Arc::new(Namespace { is_gateway: true.into() });
    let links = GatewayStreams::new(
        triggers,
        Gauge::default(),
        gateways,
        CancellationToken::new(),
        port,
        None,
    );
    (listener, links, triggered)
}

/// Regression test: the operator connected to any pod of any namespace with the labels of a
/// gateway, and such pods kept it busy.
#[tokio::test]
async fn a_pod_that_the_operator_did_not_make_is_not_called() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (triggers, _triggered) = unbounded_channel();
    let gateways = Arc::new(Namespace { is_gateway: false.into() });
    let port = listener.local_addr().unwrap().port();
    let known = Arc::clone(&gateways) as Arc<dyn GatewayLookup>;
    let links = GatewayStreams::new(
        triggers,
        Gauge::default(),
        known,
        CancellationToken::new(),
        port,
        None,
    );
    links.follow(&change(None, Some(pod("p", listener.local_addr().unwrap(), true, false))));
    let told = async || {
        while !links
            .unreachable("p")
            .is_some_and(|it| it.error.contains("Deployment slipway-gateway"))
        {
            tokio::task::yield_now().await;
        }
    };
    soon(told()).await;
    assert!(listener.accept().now_or_never().is_none(), "nobody has called");
    // Its ReplicaSet becomes known a moment later.
    gateways.is_gateway.store(true, Ordering::Relaxed);
    accept(&listener).await;
    soon(links.close()).await;
}

#[tokio::test]
async fn a_pod_that_tells_of_more_than_there_is_is_not_listened_to() {
    let (listener, links, _triggered) = world().await;
    links.follow(&change(None, Some(pod("p", listener.local_addr().unwrap(), true, false))));
    let mut stream = accept(&listener).await;
    let model = |n: usize| format!("{{\"name\":\"m{n}\",\"uid\":\"u{n}\",\"generation\":1}}");
    for lines in 0..10 {
        let models: Vec<_> = (0..20).map(|n| model(lines * 20 + n)).collect();
        let line =
            format!("{{\"pod\":\"gw\",\"models\":[{}],\"changes\":true}}\n", models.join(","));
        // The operator closes the connection after the sixth line.
        let _ = stream.write_all(line.as_bytes()).await;
    }
    drop(accept(&listener).await);
    assert_eq!(links.report("p", "u0"), None);
    soon(links.close()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_brings_too_much_is_read_slowly() {
    let begun = Instant::now();
    let mut pace = StreamRateLimiter::default();
    for _ in 0..20 {
        pace.consume(1 << 20).await;
    }
    assert_eq!(begun.elapsed().as_secs(), 4, "16 MiB at once and 1 MiB a second");
}

#[tokio::test]
async fn lines_are_read_wherever_the_bytes_break_and_none_without_an_end() {
    let (listener, links, mut triggered) = world().await;
    links.follow(&change(None, Some(pod("p", listener.local_addr().unwrap(), true, false))));
    let mut stream = accept(&listener).await;
    stream.write_all(b"\n{\"pod\":\"gw\",\"mod").await.unwrap();
    tokio::task::yield_now().await;
    stream
        .write_all(b"els\":[{\"name\":\"m\",\"uid\":\"u\",\"generation\":5}]}\r\n")
        .await
        .unwrap();
    soon(triggered.recv()).await.unwrap();
    assert_eq!(links.report("p", "u").map(|r| r.generation), Some(5));
    // It may hang up before it has all of them.
    let _ = stream.write_all(&vec![b'x'; MAX_LINE_BYTES + 1]).await;
    let refused = async || {
        while !links.unreachable("p").is_some_and(|it| it.error.contains("longer than 1048576")) {
            tokio::task::yield_now().await;
        }
    };
    soon(refused()).await;
    soon(links.close()).await;
}

#[tokio::test]
async fn news_triggers_and_a_lost_stream_is_forgotten_and_made_again() {
    let (listener, links, mut triggered) = world().await;
    let ready = pod("p", listener.local_addr().unwrap(), true, false);
    links.follow(&change(None, Some(ready.clone())));

    let mut stream = accept(&listener).await;
    say(&mut stream, "gw", 3).await;
    let trigger = soon(triggered.recv()).await.unwrap();
    assert_eq!((trigger.name.as_str(), trigger.namespace.as_deref()), ("m", Some("ns")));
    assert_eq!(links.report("p", "u").map(|r| r.generation), Some(3));
    // The same line again triggers nothing; the next generation does.
    say(&mut stream, "gw", 3).await;
    say(&mut stream, "gw", 4).await;
    soon(triggered.recv()).await.unwrap();
    assert_eq!(links.report("p", "u").map(|r| r.generation), Some(4));

    drop(stream);
    soon(triggered.recv()).await.unwrap();
    assert_eq!(links.report("p", "u"), None, "what a lost stream said is not known any more");
    let mut stream = accept(&listener).await;
    say(&mut stream, "gw", 4).await;
    soon(triggered.recv()).await.unwrap();
    assert!(links.report("p", "u").is_some());

    links.follow(&change(Some(ready), None));
    assert_eq!(links.report("p", "u"), None);
    soon(links.close()).await;
}

#[tokio::test]
async fn a_stream_of_changes_says_only_what_is_new() {
    let (listener, links, mut triggered) = world().await;
    links.follow(&change(None, Some(pod("p", listener.local_addr().unwrap(), true, false))));
    let mut stream = accept(&listener).await;
    let line = |models: &str, gone: &str, more: bool| {
        format!(
            "{{\"pod\":\"gw\",\"models\":[{models}],\"changes\":true,\"gone\":[{gone}],\"more\":{more}}}\n"
        )
    };
    let model = |name: &str, generation: i64| {
        format!("{{\"name\":\"{name}\",\"uid\":\"u-{name}\",\"generation\":{generation}}}")
    };
    let generation =
        |name: &str| links.report("p", &format!("u-{name}")).map(|report| report.generation);
    stream.write_all(line(&model("a", 3), "", true).as_bytes()).await.unwrap();
    assert_eq!(soon(triggered.recv()).await.unwrap().name, "a");
    assert!(links.unreachable("p").is_some(), "it has not said everything");
    stream.write_all(line(&model("b", 1), "", false).as_bytes()).await.unwrap();
    assert_eq!(soon(triggered.recv()).await.unwrap().name, "b");
    stream.write_all(line("", "", false).as_bytes()).await.unwrap();
    stream.write_all(line(&model("b", 2), "", false).as_bytes()).await.unwrap();
    assert_eq!(soon(triggered.recv()).await.unwrap().name, "b");
    assert_eq!((generation("a"), generation("b")), (Some(3), Some(2)));
    assert!(links.unreachable("p").is_none());
    stream.write_all(line("", "\"u-a\", \"u-unknown\"", false).as_bytes()).await.unwrap();
    assert_eq!(soon(triggered.recv()).await.unwrap().name, "a");
    assert_eq!((generation("a"), generation("b")), (None, Some(2)));
    soon(links.close()).await;
}

#[tokio::test]
async fn the_stream_outlives_readiness_until_the_pod_is_gone() {
    let (listener, links, mut triggered) = world().await;
    let address = listener.local_addr().unwrap();
    let (starting, ready) = (pod("p", address, false, false), pod("p", address, true, false));
    links.follow(&change(None, Some(starting.clone())));
    links.follow(&change(Some(starting), Some(ready.clone())));
    let mut stream = accept(&listener).await;
    let leaving = pod("p", address, false, true);
    links.follow(&change(Some(ready), Some(leaving)));
    say(&mut stream, "gw", 7).await;
    soon(triggered.recv()).await.unwrap();
    assert_eq!(links.report("p", "u").map(|r| r.generation), Some(7));
    soon(links.close()).await;
}

#[tokio::test]
async fn an_address_that_answers_for_another_pod_is_not_believed() {
    let (listener, links, _triggered) = world().await;
    links.follow(&change(None, Some(pod("p", listener.local_addr().unwrap(), true, false))));
    let mut stream = accept(&listener).await;
    say(&mut stream, "another", 3).await;
    // The operator closes the connection and reconnects.
    drop(accept(&listener).await);
    assert_eq!(links.report("p", "u"), None);
    soon(links.close()).await;
}

/// Regression test: any client that could connect received weights, counts and brakes. A rejected
/// operator must receive the reason.
#[tokio::test]
async fn the_operator_signs_what_it_asks_and_tells_why_it_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (triggers, _triggered) = unbounded_channel();
    let gateways = Arc::new(Namespace { is_gateway: true.into() });
    let address = listener.local_addr().unwrap();
    let key = OperatorKey::from_pkcs8(&OperatorKey::generate().unwrap()).unwrap();
    let public: slipway_listener::OperatorPublicKey = key.public_key().parse().unwrap();
    let (open, stop) = (Gauge::default(), CancellationToken::new());
    let links = GatewayStreams::new(triggers, open, gateways, stop, address.port(), Some(key));
    links.follow(&change(None, Some(pod("p", address, true, false))));
    let (mut socket, _) = soon(listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let shown = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap();
    let now = u64::try_from(Timestamp::now().as_second()).unwrap();
    assert_eq!(public.verify(Some(shown), "ns", "gw", now), Ok(()));
    let why = slipway_listener::OperatorAuthError::ClockSkew.to_string();
    let answer = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{why}", why.len());
    socket.write_all(answer.as_bytes()).await.unwrap();
    let told = async || {
        while !links
            .unreachable("p")
            .is_some_and(|it| it.error.contains("401") && it.error.contains("clocks"))
        {
            tokio::task::yield_now().await;
        }
    };
    soon(told()).await;
    soon(links.close()).await;
}
