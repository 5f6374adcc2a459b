//! The result cache, with a real Redis behind it.

mod shared;

use futures::future::join_all;
use serde_json::{Value, json};
use slipway_prediction_id::PredictionReport;
use tokio::io::AsyncWriteExt as _;

use super::redis::RedisServer;
use super::support::{Server, affine, answer, eventually, slow};

const ON: &str = "--result-cache";
const ALWAYS: &str = "--no-cache-bypass";

/// The response to one request.
#[derive(Debug)]
struct Got {
    status: u16,
    cache: Option<String>,
    report: String,
    body: Value,
}

async fn ask(server: &Server, body: &Value) -> Got {
    let response = server.post("/v2/models/m/infer").body(body.to_string()).send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let (cache, report) =
        (header("x-slipway-cache"), header("x-slipway-prediction").unwrap_or_default());
    let (status, body) = answer(response).await;
    Got { status, cache, report, body }
}

async fn outcome(server: &Server, outcome: &str) -> f64 {
    let labels = format!(
        "{{modeldeployment=\"test\",revision=\"rev1\",cache=\"result\",outcome=\"{outcome}\"}}"
    );
    server.metric(&format!("slipway_runtime_cache_requests_total{labels}")).await
}

async fn inferences(server: &Server) -> f64 {
    server.metric("slipway_runtime_inference_duration_seconds_count").await
}

async fn errors(server: &Server, reason: &str) -> f64 {
    let labels = format!("{{modeldeployment=\"test\",revision=\"rev1\",reason=\"{reason}\"}}");
    server.metric(&format!("slipway_runtime_cache_redis_errors_total{labels}")).await
}

async fn breaker(server: &Server) -> f64 {
    server.metric("slipway_runtime_cache_breaker_state").await
}

fn classify(row: [f32; 4]) -> Value {
    json!({"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": row}]})
}

#[tokio::test]
async fn without_the_option_nothing_is_kept() {
    let server = Server::start("affine", &[]);
    for _ in 0..2 {
        assert_eq!(ask(&server, &affine(&[[1.0, 2.0]])).await.cache, None);
    }
    assert_eq!(inferences(&server).await, 2.0);
}

#[tokio::test]
async fn a_kept_answer_is_a_prediction_of_its_own() {
    let server = Server::start("classifier", &[ON]);
    let first = ask(&server, &classify([1.5, 2.0, 2.25, 4.0])).await;
    let again = ask(&server, &classify([1.5, 2.0, 2.25, 4.0])).await;
    assert_eq!((first.cache.as_deref(), again.cache.as_deref()), (Some("miss"), Some("hit")));
    assert_eq!(first.body["outputs"], again.body["outputs"]);
    // A request for other outputs gets them from the same entry.
    let mut one = classify([1.5, 2.0, 2.25, 4.0]);
    one["outputs"] = json!([{"name": "probabilities"}]);
    let part = ask(&server, &one).await;
    assert_eq!(
        (part.cache.as_deref(), &part.body["outputs"][0]),
        (Some("hit"), &first.body["outputs"][1])
    );
    assert_eq!(ask(&server, &classify([1.5, 2.0, 2.25, 5.0])).await.cache.as_deref(), Some("miss"));

    assert_eq!(inferences(&server).await, 2.0, "only what ran is timed");
    assert_eq!(server.metric("slipway_runtime_predictions_total").await, 4.0, "all are counted");
    assert_eq!((outcome(&server, "hit_local").await, outcome(&server, "miss").await), (2.0, 2.0));
    let (_, statistics) = server.get("/v2/models/m/stats").await;
    let statistics = &statistics["model_stats"][0]["inference_stats"];
    for lookups in ["cache_hit", "cache_miss"] {
        assert_eq!(statistics[lookups]["count"], 2, "{statistics}");
        assert!(statistics[lookups]["ns"].as_u64().unwrap() > 0, "{statistics}");
    }
    // Feedback finds each by itself.
    let [first, again] =
        [&first.report, &again.report].map(|text| PredictionReport::decode(text).unwrap());
    assert_eq!((&first.labels, first.labels.len()), (&again.labels, 1));
    assert_ne!(first.sample, again.sample);
}

#[tokio::test]
async fn what_is_wrong_does_not_last() {
    let redis = RedisServer::start();
    let server = Server::start("picky", &[ON, ALWAYS, "--redis-url", &redis.url()]);
    let index = |n: u64| json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [n]}]});
    for _ in 0..2 {
        assert_eq!(ask(&server, &index(99)).await.status, 500);
    }
    assert_eq!(outcome(&server, "error").await, 2.0);
    let server = Server::start("affine", &[ON, ALWAYS, "--redis-url", &redis.url()]);
    for n in 1..=2 {
        let got = ask(&server, &affine(&[[3e38, 2.0]])).await;
        assert_eq!(
            (got.status, inferences(&server).await),
            (200, f64::from(n)),
            "2x+1 is beyond FP32"
        );
    }
    // Too large to be cached.
    let server = Server::start(
        "affine",
        &[ON, ALWAYS, "--redis-url", &redis.url(), "--result-cache-max-entry-bytes", "20"],
    );
    for _ in 0..2 {
        assert_eq!(
            ask(&server, &affine(&[[1.0, 2.0], [3.0, 4.0]])).await.cache.as_deref(),
            Some("miss")
        );
    }
    assert_eq!(ask(&server, &affine(&[[1.0, 2.0]])).await.cache.as_deref(), Some("miss"));
    assert_eq!(ask(&server, &affine(&[[1.0, 2.0]])).await.cache.as_deref(), Some("hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_alike_one_runs() {
    let server = Server::start("slow", &[ON, "--workers", "1"]);
    let body = slow(30_000);
    let all = join_all((0..20).map(|_| ask(&server, &body))).await;
    assert!(
        all.iter().all(|got| got.status == 200 && got.body["outputs"] == all[0].body["outputs"])
    );
    assert_eq!(inferences(&server).await, 1.0);
    assert_eq!(outcome(&server, "miss").await, 1.0);
    assert_eq!(outcome(&server, "coalesced").await + outcome(&server, "hit_local").await, 19.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_takes_over_from_one_that_leaves() {
    let server = Server::start("slow", &[ON, "--workers", "1"]);
    let body = slow(200_000);
    let text = body.to_string();
    let address = server.api.trim_start_matches("http://").to_owned();
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let mut leaving = tokio::net::TcpStream::connect(&address).await.unwrap();
    leaving.write_all(head.as_bytes()).await.unwrap();
    let in_flight = async |n: f64| server.metric("slipway_runtime_requests_in_flight").await == n;
    eventually("the leader runs", || in_flight(1.0)).await;
    let (waiting, ()) = tokio::join!(ask(&server, &body), async {
        eventually("the other waits", || in_flight(2.0)).await;
        drop(leaving);
    });
    assert_eq!((waiting.status, waiting.cache.as_deref()), (200, Some("miss")));
    assert_eq!((server.code(499).await, server.code(200).await), (1.0, 1.0));
}

#[tokio::test]
async fn a_cache_that_never_hits_is_bypassed() {
    let server = Server::start("affine", &[ON]);
    let mut last = None;
    for n in 0..600_u16 {
        last = ask(&server, &affine(&[[f32::from(n), 0.5]])).await.cache;
    }
    assert!(outcome(&server, "bypass").await > 200.0, "{last:?}");
    let bypassed = server.metric("slipway_runtime_cache_bypassed{").await;
    assert_eq!(bypassed, 1.0);
    let sum = outcome(&server, "bypass").await + outcome(&server, "miss").await;
    assert_eq!(sum, 600.0, "every request ends in exactly one way");
}

#[tokio::test]
async fn what_is_bypassed_goes_on_to_be_measured() {
    let redis = RedisServer::start();
    let server =
        Server::start("affine", &[ON, "--result-cache-bytes", "0", "--redis-url", &redis.url()]);
    let ask_some = async |from: u16, to: u16| {
        for n in from..to {
            assert_eq!(ask(&server, &affine(&[[f32::from(n), 0.5]])).await.status, 200);
        }
    };
    ask_some(0, 600).await;
    let bypassed = async || server.metric("slipway_runtime_cache_bypassed{").await == 2.0;
    eventually("both tiers are bypassed", bypassed).await;
    let kept = || redis::cmd("DBSIZE").query::<i64>(&mut redis.connection().unwrap()).unwrap();
    let before = kept();
    ask_some(600, 2600).await;
    // A sixty-fourth of 2000 is 31: these entries must be found when they are requested again, or
    // Redis could never show that it pays.
    eventually("what probes is kept", async || kept() > before + 10).await;
    assert!(kept() < before + 100, "{before} {}", kept());
    let hits = outcome(&server, "hit_redis").await;
    ask_some(600, 2600).await;
    assert!(outcome(&server, "hit_redis").await > hits + 5.0);
}

#[tokio::test]
async fn a_new_pod_answers_what_is_hot_before_it_is_ready() {
    let old = Server::start("affine", &[ON, ALWAYS, "--cache-hot-keys", "4"]);
    for (n, times) in [(1.0, 5), (2.0, 9), (3.0, 1), (4.0, 7)] {
        for _ in 0..times {
            assert_eq!(ask(&old, &affine(&[[n, 0.5]])).await.status, 200);
        }
    }
    let from = old.admin.clone();
    let new =
        Server::start("affine", &[ON, ALWAYS, "--cache-hot-keys", "2", "--cache-hot-from", &from]);
    let warm = new.line("the caches are warm");
    assert_eq!((&warm["answered"], &warm["from"]), (&json!(2), &json!(from)));
    assert_eq!(
        (inferences(&new).await, outcome(&new, "miss").await),
        (0.0, 0.0),
        "no traffic, no evidence"
    );
    for (n, cache) in [(2.0, "hit"), (4.0, "hit"), (1.0, "miss")] {
        let got = ask(&new, &affine(&[[n, 0.5]])).await;
        assert_eq!(
            (got.cache.as_deref(), &got.body["outputs"][0]["data"]),
            (Some(cache), &json!([2.0 * n + 1.0, 2.0]))
        );
    }
    // A model with other inputs uses none of them, and one whose peer does not exist still becomes
    // ready.
    let other = Server::start("slow", &[ON, "--cache-hot-keys", "2", "--cache-hot-from", &from]);
    assert_eq!(other.line("the caches are warm")["answered"], 0);
    let alone = Server::start(
        "affine",
        &[ON, "--cache-hot-keys", "2", "--cache-hot-from", "http://127.0.0.1:1"],
    );
    alone.line("nobody tells what is hot");
    // Without the option, nothing is listed.
    let silent = Server::start("affine", &[ON]);
    assert_eq!(silent.probe("/v1/cache/hot").await, 404);
}
