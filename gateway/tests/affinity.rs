//! Equal requests reach the same pod: the effect on the pods' caches, and what must not change.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::Full;
use slipway_gateway_policy::affinity::{load_bound, request_fingerprint};
use slipway_gateway_policy::config::EndpointGroup;
use slipway_gateway_policy::split::mix_bits;
use slipway_gateway_upstream::endpoint::{EndpointSet, InFlightGuard};
use slipway_gateway_upstream::pool::PodConnector;
use support::client::{Answer, Http, http1, http2, infer, send};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, STABLE, World};

/// Number of keys in the simulation, and capacity of one pod's cache.
const KEYS: usize = 20_000;
const ROOM: usize = 1_000;
const REQUESTS: usize = 100_000;
/// Number of requests in flight.
const CONCURRENT: usize = 32;

/// A cache that evicts the least recently used key.
#[derive(Default)]
struct Lru {
    used: HashMap<usize, usize>,
    order: BTreeMap<usize, usize>,
}

impl Lru {
    fn ask(&mut self, key: usize, now: usize) -> bool {
        let before = self.used.insert(key, now);
        before.inspect(|before| _ = self.order.remove(before));
        self.order.insert(now, key);
        if self.used.len() > ROOM
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.used.remove(&oldest);
        }
        before.is_some()
    }
}

/// A sequence of keys with frequencies 1/rank.
fn zipf() -> Vec<usize> {
    let weights = (1..=KEYS).scan(0.0, |sum, rank| {
        *sum += 1.0 / rank as f64;
        Some(*sum)
    });
    let sums: Vec<f64> = weights.collect();
    let all = sums.last().copied().unwrap_or_default();
    // The same pseudo-random numbers in every run.
    let roll = |n: usize| mix_bits(n as u64) as f64 / u64::MAX as f64 * all;
    (0..REQUESTS).map(|n| sums.partition_point(|sum| *sum < roll(n))).collect()
}

struct Seen {
    hit_ratio: f64,
    /// Requests of the busiest pod over the mean.
    imbalance: f64,
}

fn simulate(
    pods: u16,
    keys: &[usize],
    pick: impl Fn(&EndpointSet, usize) -> Option<InFlightGuard>,
) -> Seen {
    let ready = (0..pods).map(|n| SocketAddr::from(([10, 0, 0, n as u8], 8080))).collect();
    let group = EndpointGroup { ready, ..EndpointGroup::default() };
    let set = EndpointSet::new(&group, &EndpointSet::default(), &PodConnector::default());
    let mut caches: HashMap<SocketAddr, (Lru, usize)> = HashMap::new();
    let mut in_flight = VecDeque::new();
    let mut hits = 0;
    for (now, key) in keys.iter().enumerate() {
        if in_flight.len() == CONCURRENT {
            in_flight.pop_front();
        }
        let visit = pick(&set, *key).unwrap();
        let (cache, requests) = caches.entry(visit.endpoint.addr).or_default();
        *requests += 1;
        hits += usize::from(cache.ask(*key, now));
        in_flight.push_back(visit);
    }
    let busiest = caches.values().map(|(_, requests)| *requests).max().unwrap();
    Seen {
        hit_ratio: hits as f64 / keys.len() as f64,
        imbalance: busiest as f64 * f64::from(pods) / keys.len() as f64,
    }
}

/// The figures of docs/caches.md: `cargo test -p slipway-gateway --test affinity -- --nocapture
/// hit_ratio`.
#[test]
fn the_hit_ratio_against_routing_without_affinity() {
    let keys = zipf();
    let affine = |set: &EndpointSet, key: usize| {
        set.pick_affine(request_fingerprint("/v2/models/m/infer", &[key.to_string().into()]), &[])
    };
    println!("pods  without  with affinity  busiest pod over mean");
    let alone = simulate(1, &keys, |set, _| set.pick(&[])).hit_ratio;
    for pods in [1, 2, 4, 8, 16] {
        let random = simulate(pods, &keys, |set, _| set.pick(&[]));
        let affine = simulate(pods, &keys, affine);
        println!(
            "{pods:4}  {:6.1}%  {:12.1}%  {:.2}",
            random.hit_ratio * 100.0,
            affine.hit_ratio * 100.0,
            affine.imbalance
        );
        if pods > 1 {
            assert!(affine.hit_ratio > random.hit_ratio + 0.05, "{pods} pods");
            assert!(affine.hit_ratio > alone + 0.02, "together they hold more than one alone");
            assert!(random.hit_ratio < alone + 0.01, "each for itself they do not");
        }
        let allowed = load_bound(CONCURRENT - 1, usize::from(pods)) as f64 * f64::from(pods)
            / CONCURRENT as f64;
        assert!(
            affine.imbalance <= allowed,
            "no pod is drowned: {} of {allowed}",
            affine.imbalance
        );
    }
}

async fn ask(client: &Http, world: &World, body: &str) -> Answer {
    send(client, infer(world.data).body(Full::from(body.to_owned())).unwrap()).await.unwrap()
}

fn body(n: usize) -> String {
    format!(r#"{{"inputs":[{{"name":"x","data":[{n}]}}]}}"#)
}

async fn world() -> (World, Vec<Upstream>) {
    let mut pods = Vec::new();
    for name in ["s1", "s2", "s3", "c1", "c2"] {
        pods.push(Upstream::start(name, Mood::Good).await);
    }
    let addrs: Vec<_> = pods.iter().map(|pod| pod.addr).collect();
    let mut world = World::new().await;
    world.model().caching = true;
    world.weigh(1, 250).endpoints(STABLE, &addrs[..3]).endpoints(CANDIDATE, &addrs[3..]).apply();
    (world, pods)
}

#[tokio::test]
async fn equal_requests_meet_one_pod_of_each_revision_and_the_split_stays_exact() {
    let (world, pods) = world().await;
    let client = http1();
    let mut met: HashMap<(usize, String), HashSet<String>> = HashMap::new();
    for n in 0..1000 {
        let answer = ask(&client, &world, &body(n % 10)).await;
        let revision = answer.header("x-slipway-revision").unwrap().to_owned();
        met.entry((n % 10, revision))
            .or_default()
            .insert(answer.header("x-upstream").unwrap().to_owned());
    }
    assert!(met.values().all(|pods| pods.len() == 1), "{met:?}");
    let candidate: usize = pods[3..].iter().map(Upstream::served).sum();
    assert_eq!(candidate, 250, "a quarter, exactly");
    let used: HashSet<&String> = met.values().flatten().collect();
    assert!(used.len() >= 4, "different requests meet different pods: {used:?}");
    world.metrics().assert_conserved();
}

/// A `ModelInferRequest` for model `m` with this id and one raw input.
fn message(id: u8, input: u8) -> Bytes {
    let message = [0x0a, 1, b'm', 0x1a, 1, id, 0x3a, 1, input];
    [&[0, 0, 0, 0, 9][..], &message].concat().into()
}

#[tokio::test]
async fn equal_messages_of_grpc_meet_one_pod_whatever_their_id() {
    let (mut world, pods) = world().await;
    world.declare_address().weigh(2, 0).apply();
    let client = http2();
    let url = format!("http://{}/inference.GRPCInferenceService/ModelInfer", world.data);
    let mut homes = HashSet::new();
    for input in 0..20 {
        let before: Vec<usize> = pods.iter().map(Upstream::served).collect();
        for id in 0..5 {
            let request = Request::post(&url)
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let answer =
                send(&client, request.body(Full::from(message(id, input))).unwrap()).await.unwrap();
            assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
        }
        let served: Vec<usize> =
            pods.iter().zip(before).map(|(pod, before)| pod.served() - before).collect();
        assert!(served.contains(&5), "five equal messages at one pod: {served:?}");
        homes.insert(served);
    }
    assert!(homes.len() > 1, "different messages meet different pods");
}

#[tokio::test]
async fn when_a_pod_goes_only_its_requests_move() {
    let (mut world, pods) = world().await;
    world.weigh(2, 0).apply();
    let client = http1();
    let mut homes = HashMap::new();
    for n in 0..60 {
        homes.insert(
            n,
            ask(&client, &world, &body(n)).await.header("x-upstream").unwrap().to_owned(),
        );
    }
    // The gateway does not know of the crash yet: it detects it by a failed attempt, and chooses
    // the next pod in rank.
    pods[1].crash();
    for n in 0..60 {
        let answer = ask(&client, &world, &body(n)).await;
        assert_eq!(answer.status, 200);
        let pod = answer.header("x-upstream").unwrap();
        assert!(pod == homes[&n] || homes[&n] == "s2", "{n} moved from {} to {pod}", homes[&n]);
    }
}

#[tokio::test]
async fn stickiness_decides_the_revision_and_affinity_the_pod() {
    let (mut world, _pods) = world().await;
    world.model().sticky_header = Some(HeaderName::from_static("x-user-id"));
    world.weigh(2, 500).apply();
    let client = http1();
    for user in 0..20 {
        let mut seen = HashSet::new();
        for n in 0..5 {
            let request = infer(world.data).header("x-user-id", format!("user-{user}"));
            let answer = send(&client, request.body(Full::from(body(n))).unwrap()).await.unwrap();
            seen.insert(answer.header("x-slipway-revision").unwrap().to_owned());
        }
        assert_eq!(seen.len(), 1, "user-{user} saw both revisions");
    }
}

#[tokio::test]
async fn kept_answers_say_nothing_about_how_fast_a_revision_is() {
    let (mut world, pods) = world().await;
    pods.iter().for_each(|pod| pod.set(Mood::Cached));
    let client = http1();
    let durations = |world: &World| world.metrics().sum("request_duration_seconds_count", &[]);
    for n in 0..40 {
        assert_eq!(ask(&client, &world, &body(n)).await.header("x-slipway-cache"), Some("hit"));
    }
    support::eventually("counted", || world.metrics().client("success") == 40).await;
    assert_eq!(durations(&world), 0, "counted, but not timed");
    // Without a cache the header has no effect.
    world.model().caching = false;
    world.apply();
    for n in 0..40 {
        ask(&client, &world, &body(n)).await;
    }
    support::eventually("counted", || world.metrics().client("success") == 80).await;
    assert_eq!(durations(&world), 40);
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn a_hot_request_spills_over_instead_of_drowning_its_pod() {
    let (mut world, pods) = world().await;
    pods.iter().for_each(|pod| pod.set(Mood::Slow(Duration::from_millis(300))));
    world.weigh(2, 0).apply();
    let client = http1();
    let text = body(1);
    let all = futures::future::join_all((0..30).map(|_| ask(&client, &world, &text))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    let served: Vec<usize> = pods[..3].iter().map(Upstream::served).collect();
    assert!(served.iter().all(|n| *n <= 13), "at most 1.25 times the mean of 10: {served:?}");
}
