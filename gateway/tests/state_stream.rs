//! The state stream to the operator.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use slipway_gateway_policy::config::BrakeConfig;
use support::client::{http1, predict};
use support::upstream::Mood;
use support::{CANDIDATE, STABLE, World, two_arms, within};

/// Lines of `/v1/state`.
struct Stream(hyper::body::Incoming, Vec<u8>);

impl Stream {
    async fn open(world: &World) -> Self {
        let request = Request::get(format!("http://{}/v1/state", world.admin))
            .body(Full::<Bytes>::default())
            .unwrap();
        Self(http1().request(request).await.unwrap().into_body(), Vec::new())
    }

    async fn line(&mut self) -> Value {
        loop {
            if let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.1.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let frame = within(Duration::from_secs(5), self.0.frame()).await.unwrap().unwrap();
            self.1.extend_from_slice(&frame.into_data().unwrap());
        }
    }

    async fn until(&mut self, what: &str, met: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..20 {
            let line = self.line().await;
            if met(&line) {
                return line;
            }
        }
        panic!("no line tells of {what}");
    }
}

#[tokio::test]
async fn the_operator_hears_of_every_change_at_once() {
    let (mut world, _stable, candidate) = two_arms().await;
    let mut stream = Stream::open(&world).await;
    let first = stream.line().await;
    assert_eq!(first["pod"], "slipway-gateway");
    let model = &first["models"][0];
    assert_eq!(
        (&model["name"], &model["generation"], &model["brake"]),
        (&"digits".into(), &1.into(), &Value::Null)
    );
    assert_eq!(
        (&model["uid"], &model["readyEndpoints"][STABLE]),
        (&"uid-of-digits".into(), &1.into())
    );

    let client = http1();
    for _ in 0..3 {
        predict(&client, world.data).await;
    }
    let counted = stream.until("requests", |line| line["models"][0]["requests"][STABLE] == 3).await;
    assert_eq!(counted["models"][0]["inFlight"][STABLE], 0);
    assert_eq!(counted["models"][0]["answered"][STABLE], 3);

    candidate.set(Mood::Status(500));
    world.model().brake = BrakeConfig::DEFAULT;
    world.weigh(2, 1000).apply();
    let fresh = stream.until("generation 2", |line| line["models"][0]["generation"] == 2).await;
    assert_eq!(fresh["models"][0]["requests"][STABLE], 0, "counted from the generation on");
    assert_eq!(fresh["models"][0]["answered"][STABLE], 0);
    for _ in 0..12 {
        assert_eq!(predict(&client, world.data).await.status, 200);
    }
    let braked = stream.until("the brake", |line| !line["models"][0]["brake"].is_null()).await;
    assert_eq!(braked["models"][0]["answered"][CANDIDATE], 0);
    let brake = &braked["models"][0]["brake"];
    assert_eq!((&brake["revision"], &brake["generation"]), (&CANDIDATE.into(), &2.into()));
    assert_eq!((&brake["failures"], &brake["requests"]), (&10.into(), &10.into()));
    assert!(
        brake["at"].as_str().unwrap().ends_with('Z')
            && !brake["reason"].as_str().unwrap().is_empty()
    );
}

#[tokio::test]
async fn streams_are_bounded_and_the_newest_has_a_place() {
    let world = World::with(|settings| settings.max_state_streams = 1).await;
    world.apply();
    let mut first = Stream::open(&world).await;
    first.line().await;
    let mut second = Stream::open(&world).await;
    second.line().await;
    let ended = async { while first.0.frame().await.is_some() {} };
    within(Duration::from_secs(5), ended).await;
    second.line().await;
}
