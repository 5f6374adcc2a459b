//! Workers and brokers that crash: no job is lost, and none has two results.

use serde_json::json;

use super::super::broker::{Broker, Kind};
use super::super::support::eventually;
use super::{affine, post, server, settled, slow, until, worker};

/// Rounds that take longer than any test; the job ends when its worker is killed.
const FOREVER: u64 = 2_000_000_000;
/// Rounds that take some seconds at most, so that a worker can be killed meanwhile.
const LONG: u64 = 200_000;

async fn a_killed_worker_costs_no_job(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let mut ids = vec![post(&server, &slow(LONG)).await];
    for _ in 0..5 {
        ids.push(post(&server, &slow(1)).await);
    }
    let victim = worker(&broker, "slow", &["--workers", "1", "--batching=disabled"]);
    until(&server, &ids[0], "running").await;
    victim.signal("KILL");
    broker.conserved();
    let _worker = worker(&broker, "slow", &["--workers", "1"]);
    for id in &ids {
        until(&server, id, "succeeded").await;
    }
    settled(&broker).await;
    assert_eq!(broker.total("succeeded"), 6);
}

async fn a_slow_job_holds_up_no_other(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let _worker =
        worker(&broker, "slow", &["--workers", "2", "--batching=disabled", "--max-jobs", "2"]);
    let endless = post(&server, &slow(FOREVER)).await;
    until(&server, &endless, "running").await;
    for _ in 0..10 {
        let quick = post(&server, &slow(1)).await;
        until(&server, &quick, "succeeded").await;
    }
    assert_eq!(
        until(&server, &endless, "running").await["attempts"],
        1,
        "and its lease is kept meanwhile"
    );
    broker.conserved();
}

async fn a_poisonous_job_is_isolated(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let mut good = Vec::new();
    for _ in 0..4 {
        good.push(post(&server, &slow(1000)).await);
    }
    // The job crashes its worker: the test kills each worker that runs it.
    let mut poison = slow(FOREVER);
    // First of its round, so that the others are running when its worker is killed.
    poison["priority"] = json!("high");
    let poison = post(&server, &poison).await;
    for delivery in 1..=3 {
        let victim = worker(
            &broker,
            "slow",
            &["--workers", "1", "--batching=disabled", "--request-timeout-seconds", "600"],
        );
        eventually("it runs", async || {
            let (_, body) = server.get(&format!("/v2/jobs/{poison}")).await;
            body["attempts"] == delivery && body["status"] == "running"
        })
        .await;
        victim.signal("KILL");
    }
    let survivor = worker(&broker, "slow", &["--workers", "1"]);
    let dead = until(&server, &poison, "dead").await;
    assert!(dead["error"].as_str().unwrap().contains("handed out 3 times"), "{dead}");
    assert_eq!(dead["attempts"], 3);
    for id in &good {
        until(&server, id, "succeeded").await;
    }
    settled(&broker).await;
    let letters = broker.dead_letters();
    assert!(
        letters.len() == 1 && letters[0].contains(&poison) && letters[0].contains("\"rounds\""),
        "{letters:?}"
    );
    assert_eq!(
        survivor
            .metric("slipway_runtime_jobs_total{modeldeployment=\"test\",revision=\"rev1\",outcome=\"dead\"}")
            .await,
        1.0
    );
}

async fn a_job_that_fails_in_the_model_is_tried_again_and_then_dead(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "picky", &[]);
    let (_, signature) = server.get("/v2/models/m").await;
    let input = &signature["inputs"][0];
    // Valid for the signature, but wrong inside the graph.
    let data = json!({"inputs": [{"name": input["name"], "shape": [1], "datatype": input["datatype"], "data": [99]}]});
    assert_eq!(server.infer(&data).await.0, 500, "{signature}");
    let id = post(&server, &json!({"data": data})).await;
    let _worker = worker(&broker, "picky", &[]);
    let dead = until(&server, &id, "dead").await;
    assert!(
        dead["attempts"] == 3 && dead["error"].as_str().unwrap().contains("the model failed"),
        "{dead}"
    );
    settled(&broker).await;
}

async fn a_killed_broker_loses_nothing(kind: Kind) {
    let mut broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let worker = worker(&broker, "slow", &["--workers", "1", "--batching=disabled"]);
    let running = post(&server, &slow(LONG)).await;
    until(&server, &running, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(post(&server, &slow(1)).await);
    }
    broker.kill();
    eventually("the server notices", async || {
        server.get(&format!("/v2/jobs/{running}")).await.0 == 503
    })
    .await;
    assert!(broker.run());
    for id in waiting.iter().chain([&running]) {
        until(&server, id, "succeeded").await;
    }
    settled(&broker).await;
    assert_eq!((broker.total("enqueued"), broker.total("succeeded")), (11, 11));
    drop(worker);
}

async fn sigterm_gives_back_what_cannot_be_finished(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let long = post(&server, &slow(FOREVER)).await;
    // The lease outlives the test: only jobs that are returned can be taken by another worker in
    // time.
    let args = [
        "--workers",
        "1",
        "--batching=disabled",
        "--job-lease-seconds",
        "600",
        "--worker-drain-seconds",
        "0",
    ];
    let mut first = super::super::support::Server::worker(
        "slow",
        &[&["--queue-url", &broker.url()], &args[..]].concat(),
        &[],
    );
    until(&server, &long, "running").await;
    first.signal("TERM");
    assert!(first.wait().success());
    assert_eq!(until(&server, &long, "queued").await["attempts"], 1);
    broker.conserved();
    if let Broker::Redis(redis) = &broker {
        let consumers: Vec<std::collections::HashMap<String, ::redis::Value>> =
            redis.command(&["XINFO", "CONSUMERS", "slipway:{test}:jobs:normal", "workers"]);
        assert_eq!(consumers.len(), 1, "the worker is gone from the group: {consumers:?}");
    }
    let mut second = super::super::support::Server::worker(
        "slow",
        &[&["--queue-url", &broker.url()], &args[..]].concat(),
        &[],
    );
    eventually("another has it", async || {
        server.get(&format!("/v2/jobs/{long}")).await.1["attempts"] == 2
    })
    .await;
    second.signal("TERM");
    assert!(second.wait().success());
    // Returned jobs do not count towards the largest number of deliveries.
    if let Broker::Redis(redis) = &broker {
        let pending: Vec<(String, String, i64, i64)> =
            redis.command(&["XPENDING", "slipway:{test}:jobs:normal", "workers", "-", "+", "10"]);
        assert_eq!(pending.iter().map(|p| p.3).collect::<Vec<_>>(), [0]);
    }
}

async fn sigterm_finishes_what_can_be_finished(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let running = post(&server, &slow(100_000)).await;
    let mut worker = worker(&broker, "slow", &["--workers", "1", "--worker-drain-seconds", "60"]);
    eventually("begun", async || {
        server.get(&format!("/v2/jobs/{running}")).await.1["status"] != "queued"
    })
    .await;
    worker.signal("TERM");
    assert!(worker.wait().success());
    assert_eq!(until(&server, &running, "succeeded").await["attempts"], 1);
    let later = post(&server, &slow(1)).await;
    until(&server, &later, "queued").await;
}

async fn many_workers_share_and_each_job_ends_once(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "affine", &[]);
    let mut workers: Vec<_> =
        (0..3).map(|_| worker(&broker, "affine", &["--max-jobs", "4", "--workers", "1"])).collect();
    let mut ids = Vec::new();
    for n in 0..300_u32 {
        ids.push(post(&server, &affine(n as f32)).await);
        if n == 100 {
            workers.remove(0).signal("KILL");
        }
        if n == 200 {
            let mut leaving = workers.remove(0);
            leaving.signal("TERM");
            assert!(leaving.wait().success());
        }
    }
    settled(&broker).await;
    for (n, id) in ids.iter().enumerate() {
        let (_, direct) = server.infer(&affine(n as f32)["data"]).await;
        assert_eq!(
            until(&server, id, "succeeded").await["result"]["outputs"],
            direct["outputs"],
            "each its own"
        );
    }
    assert_eq!((broker.total("enqueued"), broker.total("succeeded")), (300, 300));
}

on_each_broker! {
    a_killed_worker_costs_no_job,
    a_slow_job_holds_up_no_other,
    a_poisonous_job_is_isolated,
    a_job_that_fails_in_the_model_is_tried_again_and_then_dead,
    a_killed_broker_loses_nothing,
    sigterm_gives_back_what_cannot_be_finished,
    sigterm_finishes_what_can_be_finished,
    many_workers_share_and_each_job_ends_once,
}
