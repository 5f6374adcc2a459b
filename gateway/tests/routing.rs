//! Which ModelDeployment, which arm, which pod.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use slipway_gateway_policy::config::{BrakeConfig, TrafficWeights};
use support::client::{Answer, Http, http1, infer, predict, send};
use support::upstream::{Mood, Upstream, nobody};
use support::{CANDIDATE, STABLE, TOKEN, World, within};

async fn two_arms() -> (World, Upstream, Upstream) {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Good).await,
    );
    let mut world = World::new().await;
    world.weigh(1, 0).endpoints(STABLE, &[stable.addr]).endpoints(CANDIDATE, &[candidate.addr]);
    (world, stable, candidate)
}

#[tokio::test]
async fn a_gateway_answers_at_both_families_and_forwards_the_plain_address_of_a_client() {
    let stable = Upstream::start("stable", Mood::Good).await;
    let mut world = World::on("[::]:0".parse().unwrap(), |_| {}).await;
    world.weigh(1, 0).endpoints(STABLE, &[stable.addr]).apply();
    let mut clients = vec!["127.0.0.1"];
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => clients.push("::1"),
        Err(error) => eprintln!("not looked at: ::1, because this machine has no IPv6 ({error})"),
    }
    for client in clients {
        let gateway = std::net::SocketAddr::new(client.parse().unwrap(), world.data.port());
        assert_eq!(predict(&http1(), gateway).await.status, StatusCode::OK, "{client}");
        let headers = stable.last.lock().unwrap().take().unwrap().headers;
        assert_eq!(headers["x-forwarded-for"], client);
    }
}

async fn as_user(client: &Http, world: &World, user: &str) -> Answer {
    send(client, infer(world.data).header("x-user-id", user).body(Full::default()).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_split_is_exact_in_steps_of_a_thousandth() {
    let (mut world, stable, candidate) = two_arms().await;
    let client = http1();
    let (mut from_stable, mut from_candidate) = (0, 0);
    for (generation, permille) in [(1, 1), (2, 50), (3, 333), (4, 1000)] {
        world.weigh(generation, permille).apply();
        for _ in 0..1000 {
            assert_eq!(predict(&client, world.data).await.status, 200);
        }
        from_candidate += permille as usize;
        from_stable += 1000 - permille as usize;
        assert_eq!((stable.served(), candidate.served()), (from_stable, from_candidate));
    }
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn an_entity_stays_with_the_candidate_while_the_weight_grows() {
    let (mut world, _stable, _candidate) = two_arms().await;
    world.model().sticky_header = Some(HeaderName::from_static("x-user-id"));
    let client = http1();
    let mut saw: HashMap<usize, bool> = HashMap::new();
    for (generation, permille) in [(1, 50), (2, 250), (3, 500), (4, 1000)] {
        world.weigh(generation, permille).apply();
        for user in 0..200 {
            let answer = as_user(&client, &world, &format!("user-{user}")).await;
            let again = as_user(&client, &world, &format!("user-{user}")).await;
            assert_eq!(answer.header("x-slipway-revision"), again.header("x-slipway-revision"));
            let candidate = answer.header("x-slipway-revision") == Some(CANDIDATE);
            assert!(
                candidate || !saw.get(&user).copied().unwrap_or(false),
                "user-{user} was sent back"
            );
            saw.insert(user, candidate);
        }
        let share = saw.values().filter(|candidate| **candidate).count();
        assert!(share.abs_diff(permille as usize / 5) < 25, "{share} of 200 at {permille}");
    }
    world.weigh(5, 500).apply();
    for _ in 0..10 {
        predict(&client, world.data).await;
    }
    let unsticky = world.snapshot.models["digits"].weights.clone();
    assert_eq!(unsticky.map(|weights| weights.generation), Some(5));
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn the_preview_address_shows_the_candidate_as_it_is() {
    let (mut world, _stable, candidate) = two_arms().await;
    let ask = async |world: &World| {
        let request = infer(world.private)
            .header("host", "digits-preview.default.svc")
            .header("authorization", format!("Bearer {TOKEN}"));
        send(&http1(), request.body(Full::default()).unwrap()).await.unwrap()
    };
    world.apply();
    assert_eq!(ask(&world).await.status, StatusCode::SERVICE_UNAVAILABLE, "no preview revision");
    if let Some(TrafficWeights { preview, .. }) = &mut world.model().weights {
        *preview = Some(CANDIDATE.into());
    }
    world.apply();
    assert_eq!(ask(&world).await.header("x-upstream"), Some("candidate"));
    candidate.set(Mood::Status(500));
    assert_eq!(ask(&world).await.status, 500);
    let metrics = world.metrics();
    metrics.assert_conserved();
    // Users choose their preview requests, so these are no evidence about the candidate.
    let of = |role| metrics.sum("requests_total", &[("revision", CANDIDATE), ("role", role)]);
    assert_eq!((of("preview"), of("candidate")), (2, 0));
    assert_eq!(
        metrics.sum(
            "request_duration_seconds_count",
            &[("revision", CANDIDATE), ("role", "candidate")]
        ),
        0
    );
}

#[tokio::test]
async fn health_is_the_modeldeployments_own() {
    let (mut world, _stable, _candidate) = two_arms().await;
    world.apply();
    let (client, data) = (http1(), world.data);
    let ask = async |path: &str| {
        let request =
            Request::get(format!("http://{data}/v2/health/{path}")).header("host", "digits");
        send(&client, request.body(Full::default()).unwrap()).await.unwrap().status
    };
    assert_eq!((ask("live").await, ask("ready").await), (StatusCode::OK, StatusCode::OK));
    world.endpoints(STABLE, &[]).apply();
    assert_eq!(
        (ask("live").await, ask("ready").await),
        (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
    );
}

#[tokio::test]
async fn a_refused_connection_is_retried_on_another_pod() {
    let good = Upstream::start("good", Mood::Good).await;
    let mut world = World::new().await;
    world.weigh(1, 0).endpoints(STABLE, &[nobody().await, nobody().await, good.addr]).apply();
    let client = http1();
    for _ in 0..50 {
        let request = Request::post(format!("http://{}/v2/repository/index", world.data))
            .header("host", "digits");
        let answer = send(&client, request.body(Full::from("{}")).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200, "nothing was sent, so even this may be retried");
    }
    assert_eq!(world.metrics().arm(STABLE, "success"), 50);
    assert!(world.metrics().sum("retries_total", &[]) > 0);
}

#[tokio::test]
async fn a_reset_is_retried_once_for_what_is_pure_and_never_for_the_rest() {
    let slow = Mood::Slow(Duration::from_millis(50));
    let (bad, good) =
        (Upstream::start("bad", slow.clone()).await, Upstream::start("good", slow).await);
    let mut world = World::new().await;
    world.weigh(1, 0).endpoints(STABLE, &[bad.addr, good.addr]).apply();
    let client = http1();
    // Fills the pools of both pods with connections; those of the bad one are about to break.
    futures::future::join_all((0..20).map(|_| predict(&client, world.data))).await;
    good.set(Mood::Good);
    bad.set(Mood::Reset);
    for _ in 0..20 {
        assert_eq!(predict(&client, world.data).await.status, 200);
    }
    world.endpoints(STABLE, &[bad.addr]).apply();
    let before = bad.served();
    let request = Request::post(format!("http://{}/v2/repository/index", world.data))
        .header("host", "digits");
    let request = request.body(Full::from("{}")).unwrap();
    assert_eq!(send(&client, request).await.unwrap().status, StatusCode::BAD_GATEWAY);
    assert_eq!(bad.served(), before + 1);
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn without_an_endpoint_of_stable_a_request_waits_a_moment() {
    let late = Upstream::start("late", Mood::Good).await;
    for before in [vec![], vec![nobody().await]] {
        let mut world =
            World::with(|settings| settings.endpoint_wait = Duration::from_secs(8)).await;
        world.weigh(1, 0).endpoints(STABLE, &before).apply();
        let (client, addr) = (http1(), world.data);
        let waiting = tokio::spawn(async move { predict(&client, addr).await });
        let gateway = std::sync::Arc::clone(&world.gateway);
        support::eventually("the request arrives", || {
            let table = gateway.router.table();
            table.models["digits"].stable().is_some_and(|arm| arm.state.in_flight() == 1)
        })
        .await;
        world.endpoints(STABLE, &[late.addr]).apply();
        assert_eq!(within(Duration::from_secs(5), waiting).await.unwrap().status, 200);
    }
}

/// While no pod of stable accepts a request, a candidate with a weight gets it at once, and the
/// next request tries stable again.
#[tokio::test]
async fn stable_without_pods_spills_to_the_candidate_and_back() {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Good).await,
    );
    // So long that a request that waits for a pod of stable fails the test.
    let mut world = World::with(|settings| settings.endpoint_wait = Duration::from_secs(60)).await;
    world.model().timeout = Duration::from_secs(60);
    world.model().sticky_header = Some(HeaderName::from_static("x-user-id"));
    world
        .weigh(1, 200)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    let client = http1();
    let answered = async |world: &World| {
        let mut by = Vec::new();
        for user in 0..20 {
            let answer =
                within(Duration::from_secs(8), as_user(&client, world, &format!("user-{user}")))
                    .await;
            assert_eq!(answer.status, 200);
            by.push(answer.header("x-upstream").unwrap().to_owned());
        }
        by
    };
    let before = answered(&world).await;
    assert!(
        before.iter().any(|by| by == "stable") && before.iter().any(|by| by == "candidate"),
        "{before:?}"
    );
    let mut spilled = 0;
    for gone in [vec![], vec![nobody().await]] {
        world.endpoints(STABLE, &gone).apply();
        assert_eq!(answered(&world).await, vec!["candidate"; 20]);
        let metrics = world.metrics();
        spilled += before.iter().filter(|by| *by == "stable").count() as u64;
        assert_eq!(metrics.sum("spilled_total", &[("revision", CANDIDATE)]), spilled);
        assert_eq!(
            metrics.client("success"),
            metrics.arm(CANDIDATE, "success") + metrics.arm(STABLE, "success")
        );
        metrics.assert_conserved();

        world.endpoints(STABLE, &[stable.addr]).apply();
        assert_eq!(answered(&world).await, before, "everybody is back where they were");
    }
}

/// The candidate's failures of stable's requests are counted, but do not trip the brake of the only
/// arm that answers.
#[tokio::test]
async fn a_candidate_that_has_too_much_to_do_is_not_taken_out_for_it() {
    let (mut world, _stable, candidate) = two_arms().await;
    world.model().brake = BrakeConfig::DEFAULT;
    world.weigh(1, 200).endpoints(STABLE, &[]).apply();
    candidate.set(Mood::Status(429));
    let client = http1();
    for _ in 0..100 {
        assert_eq!(predict(&client, world.data).await.status, 429);
    }
    assert_eq!(world.metrics().arm(CANDIDATE, "unavailable"), 100);
    assert!(!world.gateway.router.table().models["digits"].arms[1].is_braked());
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn stable_spills_to_no_candidate_that_may_have_no_traffic() {
    let (mut world, stable, candidate) = two_arms().await;
    let client = http1();
    // A candidate without weight, and one that is only behind the preview address.
    for preview in [None, Some(CANDIDATE.to_owned())] {
        world.weigh(1, 0).endpoints(STABLE, &[]);
        if let Some(weights) = &mut world.model().weights {
            weights.preview = preview;
        }
        world.apply();
        assert_eq!(predict(&client, world.data).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(candidate.served(), 0);
    // A candidate whose brake has tripped.
    world.model().brake = BrakeConfig::DEFAULT;
    world.weigh(2, 500).endpoints(STABLE, &[stable.addr]).apply();
    candidate.set(Mood::Status(500));
    for _ in 0..30 {
        assert_eq!(predict(&client, world.data).await.status, 200);
    }
    assert_eq!(world.metrics().sum("braked", &[]), 1);
    candidate.set(Mood::Good);
    let before = candidate.served();
    world.endpoints(STABLE, &[]).apply();
    assert_eq!(predict(&client, world.data).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(candidate.served(), before);
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn then_it_is_told_to_come_back() {
    let mut world =
        World::with(|settings| settings.endpoint_wait = Duration::from_millis(50)).await;
    world.weigh(1, 0).apply();
    let answer = predict(&http1(), world.data).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    assert!(answer.body.starts_with("{\"error\":"), "{}", answer.body);
    assert_eq!(
        (world.metrics().arm(STABLE, "unavailable"), world.metrics().client("unavailable")),
        (1, 1)
    );
    world.metrics().assert_conserved();
}

#[tokio::test]
async fn the_pod_sees_the_clients_host_and_address() {
    let good = Upstream::start("good", Mood::Good).await;
    let mut world = World::new().await;
    world.weigh(1, 0).endpoints(STABLE, &[good.addr]).apply();
    let request = infer(world.data)
        .header("host", "digits.default")
        .header("connection", "x-a")
        .header("x-a", "1");
    send(&http1(), request.body(Full::from("{}")).unwrap()).await.unwrap();
    let seen = good.last.lock().unwrap().take().unwrap();
    assert_eq!(seen.headers["host"], "digits.default");
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
    assert_eq!(seen.uri, "/v2/models/digits/infer");
    assert!(!seen.headers.contains_key("x-a"));
}
