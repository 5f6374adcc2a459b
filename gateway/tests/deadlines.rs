//! Clients with short deadlines: an equally good candidate loses no request because of them, a
//! hanging one is detected, and no client can trip the brake of a good one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http_body_util::Full;
use slipway_gateway_policy::config::BrakeConfig;
use support::client::{Http, http1, infer, send};
use support::upstream::{Mood, Upstream};
use support::{CANDIDATE, STABLE, Scrape, World};
use tokio::time::{Instant, interval, timeout};

const BRAKE: BrakeConfig = BrakeConfig::DEFAULT;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two arms with these behaviours, with this weight of the candidate and with a brake.
async fn arms(stable: Mood, candidate: Mood, permille: u32) -> (World, Upstream, Upstream) {
    let (stable, candidate) =
        (Upstream::start("stable", stable).await, Upstream::start("candidate", candidate).await);
    let mut world = World::new().await;
    world.model().timeout = Duration::from_secs(30);
    world.model().brake = BRAKE;
    world
        .weigh(1, permille)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    (world, stable, candidate)
}

/// Status of one prediction with a header.
async fn ask(client: &Http, world: &World, header: (&'static str, &str)) -> u16 {
    let request = infer(world.data).header(header.0, header.1).body(Full::from("{}")).unwrap();
    send(client, request).await.unwrap().status.as_u16()
}

/// Sends concurrent predictions whose clients disconnect after `patience`; returns the number of
/// answers.
async fn impatient(client: &Http, world: &World, requests: usize, patience: Duration) -> usize {
    let answers =
        join_all((0..requests).map(|_| timeout(patience, ask(client, world, ("x-user-id", "1")))))
            .await;
    answers.into_iter().filter(|answer| *answer == Ok(200)).count()
}

/// Number of requests that were sent to the candidate, and to stable.
fn requests(metrics: &Scrape) -> (u64, u64) {
    let of = |revision| metrics.sum("requests_total", &[("revision", revision)]);
    (of(CANDIDATE), of(STABLE))
}

fn is_braked(world: &World) -> bool {
    world.gateway.router.table().models["digits"].arms[1].is_braked()
}

/// Waits until every request has been counted.
async fn at_rest(world: &World) {
    let gateway = Arc::clone(&world.gateway);
    let table = move || Arc::clone(&gateway.router.table().models["digits"]);
    support::eventually("all requests have ended", || {
        table().arms.iter().all(|arm| arm.state.in_flight() == 0)
    })
    .await;
}

/// The deadline is longer than one answer takes and shorter than two: half of it would be too
/// little for either arm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_candidate_loses_no_request_of_clients_with_tight_deadlines() {
    let slow = Mood::Slow(millis(400));
    for header in [("x-request-timeout-ms", "750"), ("grpc-timeout", "750m")] {
        let (world, _stable, _candidate) = arms(slow.clone(), slow.clone(), 500).await;
        let client = http1();
        for _ in 0..2 {
            let answers = join_all((0..40).map(|_| ask(&client, &world, header))).await;
            assert_eq!(answers, vec![200; 40]);
        }
        let metrics = world.metrics();
        assert_eq!(
            (metrics.arm(CANDIDATE, "success"), metrics.arm(STABLE, "success")),
            requests(&metrics)
        );
        assert!(!is_braked(&world));
        metrics.assert_conserved();
    }
}

/// Stable also gets the request of a slow candidate, which is not abandoned: its answer comes
/// first. Both arms took longer than the try time-out, and both are counted so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_takes_too_long_is_not_cut_off_and_counts_alike_in_both_arms() {
    let slow = Mood::Slow(millis(700));
    let (mut world, _stable, _candidate) = arms(slow.clone(), slow, 500).await;
    world.model().shield.candidate_timeout = Some(millis(300));
    world.apply();
    let client = http1();
    let answers =
        join_all((0..40).map(|_| ask(&client, &world, ("x-request-timeout-ms", "1200")))).await;
    assert_eq!(answers, vec![200; 40]);
    at_rest(&world).await;
    let metrics = world.metrics();
    // The replays to stable were abandoned, because the candidate was the first to answer.
    let (candidate, stable) = requests(&metrics);
    assert_eq!(
        (metrics.arm(CANDIDATE, "try_timeout"), metrics.arm(STABLE, "cancelled")),
        (candidate, candidate)
    );
    assert_eq!(metrics.arm(STABLE, "try_timeout"), stable - candidate);
    assert_eq!((metrics.client("success"), metrics.sum("shielded_total", &[])), (40, candidate));
    assert!(!is_braked(&world), "stable would not have answered in that time either");
    metrics.assert_conserved();
}

/// A deadline that stable would not meet either is no evidence about the candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_tight_deadlines_takes_no_candidate_out() {
    let slow = Mood::Slow(millis(2500));
    for permille in [500, 900] {
        let (world, _stable, _candidate) = arms(slow.clone(), slow.clone(), permille).await;
        let client = http1();
        // Stable's time is unknown yet, so one deadline is below the assumed time, and one above.
        for (deadline, outcome) in [("50", "cancelled"), ("1500", "timeout")] {
            let answers =
                join_all((0..50).map(|_| ask(&client, &world, ("x-request-timeout-ms", deadline))))
                    .await;
            assert_eq!(answers, vec![504; 50]);
            at_rest(&world).await;
            let metrics = world.metrics();
            let of = |revision| metrics.arm(revision, outcome);
            assert!(
                of(CANDIDATE) >= 20 && of(STABLE) > 0,
                "{deadline} at {permille}: {}",
                metrics.0
            );
            let sides = |outcome| (metrics.arm(CANDIDATE, outcome), metrics.arm(STABLE, outcome));
            let (left, late) = (sides("cancelled"), sides("timeout"));
            assert_eq!(
                (left.0 + late.0, left.1 + late.1),
                requests(&metrics),
                "nothing else is counted"
            );
            assert!(!is_braked(&world), "{deadline} at {permille}");
            metrics.assert_conserved();
        }
    }
}

/// Fifty requests per second to a candidate that never answers, from clients that disconnect after
/// two seconds, with and without a deadline header, for any knowledge of stable's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_hangs_is_out_in_five_seconds_although_its_clients_leave() {
    for (stable, header) in [
        (Mood::Good, ("x-user-id", "1")),
        (Mood::Good, ("x-request-timeout-ms", "2000")),
        // Stable's own time leaves none for a second attempt within the clients' two seconds: the
        // witness gets the request after they have disconnected.
        (Mood::Slow(millis(1000)), ("x-user-id", "1")),
        (Mood::Slow(millis(1000)), ("x-request-timeout-ms", "2000")),
    ] {
        let (mut world, _stable, candidate) = arms(stable.clone(), Mood::Hang, 0).await;
        let (client, slow) = (http1(), stable != Mood::Good);
        if slow {
            assert_eq!(impatient(&client, &world, 40, Duration::from_secs(20)).await, 40);
        }
        world.weigh(2, 500).apply();
        let (world, started) = (Arc::new(world), Instant::now());
        let (mut clients, mut every) = (Vec::new(), interval(millis(10)));
        while !is_braked(&world) {
            assert!(started.elapsed() < Duration::from_secs(5), "{stable:?} {header:?}");
            every.tick().await;
            let (client, world) = (client.clone(), Arc::clone(&world));
            clients.push(tokio::spawn(async move {
                timeout(millis(2000), ask(&client, &world, header)).await
            }));
        }
        let after = candidate.served();
        let left =
            join_all(clients).await.into_iter().filter(|it| !matches!(it, Ok(Ok(200)))).count();
        assert!(candidate.served() <= after + 1 && after >= 10);
        at_rest(&world).await;
        let metrics = world.metrics();
        let (outcome, lost) = if slow { ("timeout", left > 0) } else { ("try_timeout", left == 0) };
        assert!(metrics.arm(CANDIDATE, outcome) >= 10 && lost, "{left} left; {}", metrics.0);
        assert_eq!(metrics.client("timeout") > 0, slow);
        metrics.assert_conserved();
    }
}

#[tokio::test]
async fn pods_are_told_the_largest_body_of_the_spec() {
    let good = Upstream::start("good", Mood::Good).await;
    let mut world = World::new().await;
    world.weigh(1, 0).endpoints(STABLE, &[good.addr]).apply();
    let told = async |world: &World, header: Option<&'static str>| {
        let mut request = infer(world.data).body(Full::from("{}")).unwrap();
        if let Some(value) = header {
            request
                .headers_mut()
                .insert("x-slipway-max-request-bytes", http::HeaderValue::from_static(value));
        }
        assert_eq!(send(&http1(), request).await.unwrap().status, 200);
        let seen = good.last.lock().unwrap().take().unwrap();
        seen.headers
            .get("x-slipway-max-request-bytes")
            .map(|value| value.to_str().unwrap().to_owned())
    };
    // The pods' default limit is not sent, and a client cannot raise it.
    assert_eq!(told(&world, None).await, None);
    assert_eq!(told(&world, Some("999999999")).await, None);
    world.model().max_request = 70_000;
    world.apply();
    assert_eq!(told(&world, None).await.as_deref(), Some("70000"));
    assert_eq!(told(&world, Some("999999999")).await.as_deref(), Some("70000"));
}

/// Requests that are too large to be buffered go to stable only, and are counted.
#[tokio::test]
async fn what_is_too_large_to_be_kept_is_counted() {
    let (mut world, _stable, candidate) = arms(Mood::Good, Mood::Good, 0).await;
    world.model().max_request = 70_000;
    world.weigh(2, 1000).apply();
    for size in [70_000, 70_001] {
        let request = infer(world.data).body(Full::from(vec![b' '; size])).unwrap();
        assert_eq!(send(&http1(), request).await.unwrap().status, 200);
    }
    assert_eq!(candidate.served(), 1);
    let state =
        serde_json::to_value(slipway_gateway_control::state::full_state(&world.gateway)).unwrap();
    assert_eq!(state["models"][0]["unshielded"], 1, "{state}");
    assert_eq!(
        (state["clients"]["ended"].as_u64(), state["clients"]["failed"].as_u64()),
        (Some(2), Some(0))
    );
}

/// Requests that neither arm can answer in time, cancelled on purpose after stable's usual time,
/// nearly all of them at the candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_who_leave_on_purpose_take_no_candidate_out() {
    let (mut world, stable, candidate) = arms(Mood::Good, Mood::Good, 0).await;
    let client = http1();
    // Not all at once: slow connection set-up must not affect the times.
    for _ in 0..10 {
        assert_eq!(impatient(&client, &world, 20, Duration::from_secs(20)).await, 20);
    }
    world.weigh(2, 900).apply();
    for mood in [&stable, &candidate] {
        mood.set(Mood::Slow(Duration::from_secs(20)));
    }
    for _ in 0..3 {
        assert_eq!(impatient(&client, &world, 50, millis(400)).await, 0);
        at_rest(&world).await;
    }
    let metrics = world.metrics();
    // Waits beyond stable's time are counted as time-outs in both arms alike, as long as stable's
    // time is not longer itself.
    assert!(
        metrics.arm(CANDIDATE, "timeout") >= 45 && metrics.arm(STABLE, "timeout") >= 5,
        "{}",
        metrics.0
    );
    assert!(!is_braked(&world));
    metrics.assert_conserved();

    // When stable is fast again, the same behaviour counts against the candidate.
    stable.set(Mood::Good);
    let gateway = Arc::clone(&world.gateway);
    impatient(&client, &world, 50, millis(400)).await;
    support::eventually("the brake acts", || {
        gateway.router.table().models["digits"].arms[1].is_braked()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_who_leave_at_once_count_against_nobody() {
    let (world, stable, candidate) = arms(Mood::Hang, Mood::Hang, 500).await;
    let client = http1();
    assert_eq!(impatient(&client, &world, 60, millis(200)).await, 0);
    at_rest(&world).await;
    let metrics = world.metrics();
    assert_eq!(metrics.client("cancelled"), metrics.sum("client_requests_total", &[]));
    assert_eq!(metrics.arm(STABLE, "cancelled") as usize, stable.served());
    assert_eq!(metrics.arm(CANDIDATE, "cancelled") as usize, candidate.served());
    assert!(!is_braked(&world));
    metrics.assert_conserved();
}
