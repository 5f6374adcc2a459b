//! gRPC calls whose model is determined by their first message: read only as far as needed,
//! forwarded completely, and limited.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use futures::channel::mpsc;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use support::client::{Answer, grpc};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, STABLE, World, eventually, within};
use tokio::task::JoinHandle;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const HOST: &str = "models.example.org";

type Pieces = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

async fn world(mood: Mood) -> (World, Upstream) {
    let upstream = Upstream::start("digits", mood).await;
    let mut world = World::with(|settings| settings.max_in_flight = 1).await;
    world.weigh(1, 0).endpoints(STABLE, &[upstream.addr]).apply();
    (world, upstream)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// A request for model `digits`, followed by `rest` bytes of raw input.
fn request(rest: usize) -> Vec<u8> {
    let length = u32::try_from(rest).unwrap();
    let varint =
        [(length & 0x7f) as u8 | 0x80, (length >> 7 & 0x7f) as u8 | 0x80, (length >> 14) as u8];
    framed(&[&b"\x0a\x06digits\x3a"[..], &varint, &vec![b'x'; rest]].concat())
}

/// A call whose body is sent piece by piece.
fn call(
    world: &World,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
) -> (Pieces, JoinHandle<Answer>) {
    let (sender, receiver) = mpsc::channel(0);
    let data = world.data;
    let answer =
        async move { grpc(data, HOST, path, headers, StreamBody::new(receiver)).await.unwrap() };
    (sender, tokio::spawn(answer))
}

async fn send(pieces: &mut Pieces, bytes: &[u8]) {
    pieces.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.unwrap();
}

async fn ended(answer: JoinHandle<Answer>) -> Answer {
    within(Duration::from_secs(10), answer).await.unwrap()
}

fn says(answer: &Answer) -> (&str, &str) {
    (answer.grpc_status().unwrap(), answer.header("grpc-message").unwrap_or_default())
}

#[tokio::test]
async fn a_name_that_comes_byte_by_byte_is_read_and_nothing_is_lost() {
    let (world, upstream) = world(Mood::Good).await;
    let body = request(300);
    let (mut pieces, answer) = call(&world, INFER, &[]);
    for byte in &body[..40] {
        send(&mut pieces, &[*byte]).await;
    }
    send(&mut pieces, &body[40..]).await;
    drop(pieces);
    let answer = ended(answer).await;
    assert_eq!(answer.grpc_status(), Some("0"));
    assert!(answer.bytes == body, "{} bytes of {}", answer.bytes.len(), body.len());
    assert_eq!(upstream.served(), 1);
    world.metrics().assert_conserved();
}

/// The pod receives the call while the client is still sending: the gateway waits only for the
/// first message.
#[tokio::test]
async fn a_stream_goes_on_while_the_client_speaks() {
    let (world, upstream) = world(Mood::Good).await;
    let (mut pieces, answer) = call(&world, STREAM, &[]);
    send(&mut pieces, &request(200)).await;
    eventually("the pod hears of it", || upstream.last.lock().unwrap().is_some()).await;
    send(&mut pieces, &request(100)).await;
    drop(pieces);
    let answer = ended(answer).await;
    let sent = [request(200), request(100)].concat();
    assert_eq!(answer.grpc_status(), Some("0"));
    assert!(answer.bytes == sent, "{} bytes of {}", answer.bytes.len(), sent.len());
}

/// The part that was read to find the model is included in the shield's replay.
#[tokio::test]
async fn the_shield_replays_what_was_read_for_the_name() {
    let (mut world, _stable) = world(Mood::Good).await;
    let bad = Upstream::start("bad", Mood::Grpc("13")).await;
    world.weigh(2, 1000).endpoints(CANDIDATE, &[bad.addr]).apply();
    let body = request(20_000);
    let answer =
        grpc(world.data, HOST, INFER, &[], Full::new(Bytes::from(body.clone()))).await.unwrap();
    assert_eq!(answer.header("x-upstream"), Some("digits"));
    assert!(answer.bytes == body, "{} bytes of {}", answer.bytes.len(), body.len());
    assert_eq!(bad.served(), 1);
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn only_so_much_is_read_for_a_name() {
    let (world, upstream) = world(Mood::Good).await;
    let (mut pieces, answer) = call(&world, INFER, &[]);
    // A field that exceeds the searched prefix comes first, and never ends.
    let begin = [&[0, 0, 0, 0xff, 0xff, 0x1a, 0xff, 0x7f][..], &[b'x'; 4096]].concat();
    send(&mut pieces, &begin).await;
    let answer = ended(answer).await;
    assert!(
        matches!(says(&answer), ("12", message) if message.contains("spec.traffic.hosts")),
        "{answer:?}"
    );
    let call = |body: Vec<u8>| grpc(world.data, HOST, INFER, &[], Full::new(Bytes::from(body)));
    let compressed = call([&[1][..], &request(10)[1..]].concat()).await.unwrap();
    assert!(
        matches!(says(&compressed), ("12", message) if message.contains("compressed")),
        "{compressed:?}"
    );
    assert_eq!(says(&call(framed(b"")).await.unwrap()).0, "12", "no name at all");
    assert_eq!(says(&call(Vec::new()).await.unwrap()).0, "12", "no message at all");
    assert_eq!(says(&call(framed(b"\x0a\x04none")).await.unwrap()).0, "5");
    assert_eq!(says(&call(framed(b"\x0a\x02\xff\xfe")).await.unwrap()).0, "5", "no text");
    assert_eq!(upstream.served(), 0);
    assert_eq!(world.metrics().sum("unrouted_total", &[]), 6);
}

/// Silent clients hold a permit each, like all clients whose bodies are awaited, and only for a
/// limited time.
#[tokio::test]
async fn who_says_nothing_waits_within_bounds() {
    let (world, _upstream) = world(Mood::Good).await;
    let (mut pieces, silent) = call(&world, INFER, &[]);
    send(&mut pieces, &request(10)[..6]).await;
    let gateway = std::sync::Arc::clone(&world.gateway);
    eventually("it has the only place", || gateway.unrouted_shares.try_acquire().is_none()).await;
    let turned_away =
        grpc(world.data, HOST, INFER, &[], Full::new(Bytes::from(request(10)))).await.unwrap();
    assert_eq!(says(&turned_away).0, "14");
    silent.abort();
    eventually("its place is free again", || gateway.unrouted_shares.try_acquire().is_some()).await;

    let (mut pieces, impatient) = call(&world, INFER, &[("grpc-timeout", "50m")]);
    send(&mut pieces, &request(10)[..6]).await;
    assert_eq!(says(&ended(impatient).await).0, "4");
}
