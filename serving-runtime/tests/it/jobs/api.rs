//! The HTTP interface, and the life of a job without failures.

use serde_json::json;
use slipway_prediction_id::{PREDICTION_ID_PURPOSE, PredictionIdSealer, derive_key};

use super::super::broker::{Broker, Kind};
use super::super::support::{Server, answer, eventually};
use super::{affine, post, server, settled, slow, until, worker};

async fn a_job_is_taken_run_and_read(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "affine", &[]);
    let response =
        server.post("/v2/models/m/jobs").body(affine(3.0).to_string()).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, body) = answer(response).await;
    let id = body["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (status, &body["status_url"], &body["duplicate"]),
        (202, &json!(location), &json!(false))
    );
    // The URL contains the model: a gateway routes by it.
    assert_eq!(location, format!("/v2/models/m/jobs/{id}"));
    let (status, there) = server.get(&location).await;
    assert_eq!((status, &there["id"], &there["status"]), (200, &json!(id), &json!("queued")));
    assert_eq!(server.get(&format!("/v2/models/other/jobs/{id}")).await.0, 404);
    let waiting = until(&server, &id, "queued").await;
    assert_eq!(
        (&waiting["attempts"], &waiting["model"], &waiting["priority"]),
        (&json!(0), &json!("m"), &json!("normal"))
    );

    let keys = tempfile::tempdir().unwrap();
    std::fs::write(keys.path().join("master"), [7; 32]).unwrap();
    let folder = keys.path().display().to_string();
    let worker = worker(&broker, "affine", &["--uid", "uid", "--keys-directory", &folder]);
    let done = until(&server, &id, "succeeded").await;
    let (_, direct) = server.infer(&affine(3.0)["data"]).await;
    assert_eq!(done["result"]["outputs"], direct["outputs"], "as when it is asked for directly");
    assert_eq!(
        (&done["attempts"], &done["version"], &done["error"]),
        (&json!(1), &json!("1"), &json!(null))
    );
    assert!(
        done["created_at"].as_u64() <= done["started_at"].as_u64()
            && done["started_at"].as_u64() <= done["finished_at"].as_u64()
    );
    settled(&broker).await;
    let ttl = broker.kept_for(&id);
    assert!((1..=24 * 3_600_000).contains(&ttl), "results are kept for a time: {ttl}");

    // No gateway handles the answer, so the worker seals the id by which feedback finds the
    // prediction.
    let sealer =
        PredictionIdSealer::new(&derive_key(&[7; 32], PREDICTION_ID_PURPOSE, "uid")).unwrap();
    let prediction = done["result"]["parameters"]["prediction_id"].as_str().unwrap();
    assert_eq!(sealer.open(prediction).unwrap().revision, "rev1");

    let base = "modeldeployment=\"test\",revision=\"rev1\"";
    let ended = format!("slipway_runtime_jobs_total{{{base},outcome=\"succeeded\"}}");
    eventually("counted by the worker", async || {
        worker.metric(&ended).await == 1.0
            && worker.metric("slipway_runtime_jobs_running{").await == 0.0
    })
    .await;
    assert_eq!(
        server
            .metric(&format!("slipway_runtime_jobs_submitted_total{{{base},outcome=\"accepted\"}}"))
            .await,
        1.0
    );
    let state = |s: &str| format!("slipway_runtime_queue_jobs{{{base},state=\"{s}\"}}");
    eventually("the whole queue in the metrics of all", async || {
        server.metric(&state("succeeded")).await == 1.0
            && server.metric(&state("enqueued")).await == 1.0
    })
    .await;
}

async fn what_cannot_succeed_is_refused_at_the_door(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(
        &broker,
        "affine",
        &["--callback-allow", "hooks.example.org", "--max-job-bytes", "36384"],
    );
    let with = |field: &str, value: serde_json::Value| {
        let mut job = affine(1.0);
        job[field] = value;
        job.to_string()
    };
    let binary = json!({"data": {"inputs": affine(1.0)["data"]["inputs"], "parameters": {"binary_data_output": true}}});
    for (body, status, part) in [
        ("{".to_owned(), 400, "\"data\""),
        (json!({"data": {"inputs": []}}).to_string(), 400, "data: inputs: missing \"x\""),
        (binary.to_string(), 400, "binary"),
        (with("version", json!("9")), 404, "no version \"9\""),
        (with("ttl_seconds", json!(0)), 400, "ttl_seconds"),
        (with("priority", json!("urgent")), 400, "urgent"),
        (with("idempotency_key", json!("")), 400, "idempotency_key"),
        (with("callback_url", json!("http://169.254.169.254/")), 400, "not allowed"),
        (with("callback_url", json!("https://hooks.example.org.evil.test/")), 400, "not allowed"),
        (" ".repeat(20_001), 413, "larger"),
    ] {
        let (code, answer) =
            answer(server.post("/v2/models/m/jobs").body(body.clone()).send().await.unwrap()).await;
        assert!(
            code == status && answer["error"].as_str().unwrap().contains(part),
            "{body}: {code} {answer}"
        );
    }
    assert_eq!(
        server
            .post("/v2/models/other/jobs")
            .body(affine(1.0).to_string())
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    for path in ["/v2/jobs/unknown", "/v2/jobs/a%20b", "/v2/jobs/*"] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
    assert_eq!(server.post("/v2/jobs/x").send().await.unwrap().status(), 405);
    assert_eq!((server.get("/v2/models/m/jobs").await.0, broker.total("enqueued")), (405, 0));
    let ok = post(
        &server,
        &serde_json::from_str(&with("callback_url", json!("https://hooks.example.org/x"))).unwrap(),
    )
    .await;
    until(&server, &ok, "queued").await;

    let without = Server::start("affine", &[]);
    let (code, body) =
        answer(without.post("/v2/models/m/jobs").body("{}").send().await.unwrap()).await;
    assert!(code == 404 && body["error"].as_str().unwrap().contains("--queue-url"));
}

async fn a_full_queue_is_429_and_a_missing_one_503(kind: Kind) {
    let mut broker = Broker::start(kind);
    let server = server(&broker, "affine", &["--queue-max-jobs", "2"]);
    for _ in 0..2 {
        post(&server, &affine(1.0)).await;
    }
    let response =
        server.post("/v2/models/m/jobs").body(affine(1.0).to_string()).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
        (429, "5")
    );
    broker.conserved();
    assert_eq!((broker.total("enqueued"), broker.total("refused")), (2, 1));
    broker.kill();
    let (code, body) = answer(
        server.post("/v2/models/m/jobs").body(affine(1.0).to_string()).send().await.unwrap(),
    )
    .await;
    assert!(
        code == 503 && body["error"].as_str().unwrap().contains("queue is not available"),
        "{code} {body}"
    );
    assert_eq!(server.get("/v2/jobs/x").await.0, 503);
    assert_eq!(server.infer(&affine(1.0)["data"]).await.0, 200, "predictions need no queue");
    eventually("the metrics say so", async || {
        server.metric("slipway_runtime_queue_up{").await == 0.0
    })
    .await;
    assert!(broker.run());
    eventually("the queue is back", async || {
        server.metric("slipway_runtime_queue_up{").await == 1.0
    })
    .await;
    assert_eq!(broker.entries(), 2, "and has everything");
}

async fn jobs_of_one_key_are_one_job(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "affine", &[]);
    let send = async |job: serde_json::Value, key: &str| {
        let request =
            server.post("/v2/models/m/jobs").header("idempotency-key", key).body(job.to_string());
        answer(request.send().await.unwrap()).await
    };
    let (_, first) = send(affine(1.0), "order-1").await;
    let all = futures::future::join_all((0..20).map(|_| send(affine(1.0), "order-1"))).await;
    assert!(
        all.iter().all(|(status, body)| *status == 202
            && body["id"] == first["id"]
            && body["duplicate"] == true),
        "{all:?}"
    );
    let (status, body) = send(affine(2.0), "order-1").await;
    assert!(
        status == 409 && body["error"].as_str().unwrap().contains("another content"),
        "{status} {body}"
    );
    let (_, other) = send(affine(2.0), "order-2").await;
    assert_ne!(first["id"], other["id"]);
    assert_eq!((broker.total("enqueued"), broker.entries()), (2, 2));

    // External producers write to the stream without the API, here twice.
    let mut job = affine(1.0);
    job["model"] = json!("m");
    job["idempotency_key"] = json!("order-1");
    for _ in 0..2 {
        broker.write("normal", &job.to_string());
    }
    job["idempotency_key"] = json!("order-3");
    job["id"] = json!("my-own");
    for _ in 0..2 {
        broker.write("normal", &job.to_string());
    }
    let _worker = worker(&broker, "affine", &[]);
    settled(&broker).await;
    assert_eq!(
        (broker.total("succeeded"), broker.total("duplicate"), broker.total("enqueued")),
        (3, 3, 6)
    );
    assert_eq!(until(&server, "my-own", "succeeded").await["attempts"], 1);
    let (_, again) = send(affine(1.0), "order-1").await;
    assert!(again["duplicate"] == true && again["id"] == first["id"], "also when it is done");
}

async fn entries_that_are_no_jobs_go_to_the_dead_letters_at_once(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "affine", &[]);
    let mut ids = Vec::new();
    for payload in ["{", "", "{\"model\": \"m\"}"] {
        ids.push(broker.write("low", payload));
    }
    let mut unknown = affine(1.0);
    unknown["model"] = json!("nobody");
    let unknown = broker.write("low", &unknown.to_string());
    let _worker = worker(&broker, "affine", &[]);
    settled(&broker).await;
    for id in ids {
        assert!(until(&server, &id, "dead").await["error"].as_str().unwrap().contains("job"));
    }
    assert!(until(&server, &unknown, "failed").await["error"].as_str().unwrap().contains("nobody"));
    assert_eq!(broker.dead_letters().len(), 3);
}

async fn what_waits_can_be_cancelled_and_expires(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "slow", &[]);
    let delete_at = async |path: &str| {
        answer(server.http.delete(format!("{}{path}", server.api)).send().await.unwrap()).await
    };
    let delete = async |id: &str| delete_at(&format!("/v2/jobs/{id}")).await;
    let mut late = slow(1);
    late["ttl_seconds"] = json!(1);
    let (cancelled, late) = (post(&server, &slow(1)).await, post(&server, &late).await);
    assert_eq!(delete_at(&format!("/v2/models/other/jobs/{cancelled}")).await.0, 404);
    until(&server, &cancelled, "queued").await;
    assert_eq!(delete_at(&format!("/v2/models/m/jobs/{cancelled}")).await.0, 200);
    assert_eq!(delete(&cancelled).await.0, 200, "twice is as good as once");
    assert_eq!(delete("unknown").await.0, 404);
    let written = until(&server, &late, "queued").await["created_at"].as_u64().unwrap();
    eventually("the deadline has passed", async || {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
            as u64
            > written + 1100
    })
    .await;
    let _worker = worker(&broker, "slow", &[]);
    until(&server, &late, "expired").await;
    let long = post(&server, &slow(3_000_000)).await;
    until(&server, &long, "running").await;
    let (status, body) = delete(&long).await;
    assert!(
        status == 409 && body["error"].as_str().unwrap().contains("running"),
        "{status} {body}"
    );
    until(&server, &cancelled, "cancelled").await;
    broker.conserved();
    assert_eq!((broker.total("cancelled"), broker.total("expired")), (1, 1));
}

async fn many_jobs_run_side_by_side_and_each_is_counted_once(kind: Kind) {
    let broker = Broker::start(kind);
    let server = server(&broker, "affine", &[]);
    let jobs: Vec<_> = (0..200_u8).map(|n| affine(n.into())).collect();
    futures::future::join_all(jobs.iter().map(|job| post(&server, job))).await;
    let worker = worker(&broker, "affine", &["--max-jobs", "50", "--workers", "1"]);
    settled(&broker).await;
    assert_eq!(broker.total("succeeded"), 200);
    eventually("counted", async || worker.metric("slipway_runtime_jobs_total{").await == 200.0)
        .await;
}

on_each_broker! {
    a_job_is_taken_run_and_read,
    what_cannot_succeed_is_refused_at_the_door,
    a_full_queue_is_429_and_a_missing_one_503,
    jobs_of_one_key_are_one_job,
    entries_that_are_no_jobs_go_to_the_dead_letters_at_once,
    what_waits_can_be_cancelled_and_expires,
    many_jobs_run_side_by_side_and_each_is_counted_once,
}
