//! Ten thousand ModelDeployments in one namespace.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;
use slipway_gateway_policy::config::{
    ArmRole, EndpointGroup, ModelConfig, TrafficWeights, WeightedBackend,
};
use support::client::http1;
use support::{STABLE, World, model, within};

const COUNT: usize = 10_000;
const DEADLINE: Duration = Duration::from_secs(60);

fn numbered(number: usize) -> ModelConfig {
    let mut model = model(&format!("model-{number:05}"));
    model.weights = Some(TrafficWeights {
        generation: 1,
        backends: vec![WeightedBackend {
            revision: STABLE.into(),
            role: ArmRole::Stable,
            permille: 1000,
        }],
        preview: None,
    });
    model
}

async fn world() -> World {
    let mut world = World::new().await;
    world.snapshot.models =
        (0..COUNT).map(numbered).map(|model| (model.name.clone(), model)).collect();
    let ready = EndpointGroup {
        ready: ["10.0.0.1:8080".parse().unwrap()].into(),
        ..EndpointGroup::default()
    };
    world.snapshot.endpoints = world
        .snapshot
        .models
        .keys()
        .map(|name| ((name.clone(), STABLE.to_owned()), ready.clone()))
        .collect();
    world.apply();
    world
}

/// A stream of changes, and its reported state.
struct Stream {
    body: Incoming,
    rest: Vec<u8>,
    /// Bytes read so far.
    read: usize,
    generations: BTreeMap<String, i64>,
    requests: BTreeMap<String, u64>,
}

impl Stream {
    async fn open(world: &World) -> Self {
        let url = format!("http://{}/v1/state?changes=true", world.admin);
        let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
        let body = within(DEADLINE, http1().request(request)).await.unwrap().into_body();
        Self {
            body,
            rest: Vec::new(),
            read: 0,
            generations: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
    }

    /// Reads one line; returns whether the current report continues in the next line.
    async fn line(&mut self) -> bool {
        let line = loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                break self.rest.drain(..=end).collect::<Vec<_>>();
            }
            let data =
                within(DEADLINE, self.body.frame()).await.unwrap().unwrap().into_data().unwrap();
            self.read += data.len();
            self.rest.extend_from_slice(&data);
        };
        assert!(line.len() < 1 << 20, "the operator reads no longer ones");
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["changes"], true);
        for gone in line["gone"].as_array().unwrap() {
            self.generations
                .remove(gone.as_str().unwrap().strip_prefix("uid-of-").unwrap())
                .unwrap();
        }
        for model in line["models"].as_array().unwrap() {
            let name = model["name"].as_str().unwrap().to_owned();
            self.generations.insert(name.clone(), model["generation"].as_i64().unwrap());
            self.requests.insert(name, model["requests"][STABLE].as_u64().unwrap());
        }
        line["more"].as_bool().unwrap()
    }

    async fn all(&mut self) {
        while self.line().await {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_all_takes_little_at_rest() {
    let mut world = world().await;
    let mut stream = Stream::open(&world).await;
    stream.all().await;
    assert_eq!(stream.generations.len(), COUNT);
    let first = stream.read;

    // All of them answer requests, and none is in a rollout.
    let count = |world: &World| {
        for model in world.gateway.router.models() {
            model.arms[0].counts.requests.fetch_add(7, Ordering::Relaxed);
        }
    };
    let (begun, seconds) = (Instant::now(), 10);
    while begun.elapsed() < Duration::from_secs(seconds) {
        count(&world);
        stream.all().await;
    }
    let rate = (stream.read - first) as f64 / begun.elapsed().as_secs_f64() / 1024.0;
    println!("at first {first} bytes, then {rate:.1} KiB/s");
    assert!(rate <= 64.0, "{rate} KiB/s");
    assert!(
        stream.requests.values().filter(|requests| **requests > 0).count() > COUNT / 12,
        "counts come in turn"
    );

    // A change is reported at once, and alone.
    let before = stream.read;
    let name = "model-00007";
    world.snapshot.models.get_mut(name).unwrap().weights.as_mut().unwrap().generation = 2;
    let changed = world.snapshot.models[name].clone();
    let ready = EndpointGroup {
        ready: ["10.0.0.1:8080".parse().unwrap()].into(),
        ..EndpointGroup::default()
    };
    world.gateway.router.update_model(name, Some((&changed, [(STABLE.to_owned(), ready)].into())));
    world.gateway.router.update_model("model-00008", None);
    while stream.generations[name] != 2 || stream.generations.contains_key("model-00008") {
        stream.line().await;
    }
    assert!(stream.read - before < 200_000);
    assert_eq!(stream.generations.len(), COUNT - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_one_costs_no_more_than_one() {
    let world = world().await;
    let ready = EndpointGroup {
        ready: ["10.0.0.1:8080".parse().unwrap()].into(),
        ..EndpointGroup::default()
    };
    let mut stream = Stream::open(&world).await;
    stream.all().await;
    let (begun, changes) = (cpu(), 1000_u32);
    for number in 0..changes {
        let mut model = numbered(number as usize);
        model.weights.as_mut().unwrap().generation = 2;
        world.gateway.router.update_model(
            &model.name.clone(),
            Some((&model, [(STABLE.to_owned(), ready.clone())].into())),
        );
    }
    while stream.generations.values().filter(|generation| **generation == 2).count()
        < changes as usize
    {
        stream.line().await;
    }
    // Includes the cost of this test's reader.
    let each = (cpu() - begun) / changes;
    println!("{each:?} of CPU a change");
    assert!(each < Duration::from_millis(1), "{each:?}");
}

/// CPU time of this process; the other test in it sleeps most of the time.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
