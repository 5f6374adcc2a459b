//! `spec.traffic.timeoutSeconds` holds from end to end: a request that takes longer than every
//! default is answered, although its pod and all gateways are replaced meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slipway_contracts::{paths, ports};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_e2e::world::{self, HttpClient, TestWorld};

/// Longer than the model server's default limit, which is 30 s.
const LONG: Duration = Duration::from_secs(40);
/// Time limit of a request in seconds: on a shared machine, a request that takes 40 s alone may
/// take several times as long.
const TIMEOUT: u32 = 600;

/// A model whose run time is given by the request.
fn slow() -> anyhow::Result<ModelDeployment> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "ml.slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "slow"},
        "spec": {
            "model": {
                "uri": "http://model-store/slow.onnx",
                "digest": "sha256:141265052be2dccd11d6393d36f546f5c72ddec92034756dea2e4b715222c3e5",
                "version": "v1",
            },
            "template": {"spec": {"containers": [{
                "name": "server",
                "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
            }]}},
            "replicas": 1,
            "traffic": {"timeoutSeconds": TIMEOUT},
        }
    }))?)
}

fn question(rounds: u64) -> Value {
    json!({"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}]})
}

async fn ask(http: &HttpClient, base: &str, rounds: u64) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let answer =
        http.post(&format!("{base}/v2/models/slow/infer"), Some("slow"), &question(rounds)).await?;
    anyhow::ensure!(answer.status.is_success(), "after {:?}: {answer:?}", begun.elapsed());
    Ok(begun.elapsed())
}

/// Rounds that take about [`LONG`] on this machine at this moment.
async fn rounds(http: &HttpClient, base: &str) -> anyhow::Result<u64> {
    let mut rounds = 2000;
    loop {
        let took = ask(http, base, rounds).await?;
        if took > Duration::from_millis(500) {
            return Ok(longer(rounds, took));
        }
        rounds *= 2;
    }
}

/// Rounds that take about [`LONG`], computed from a measurement: `rounds` took `took`.
fn longer(rounds: u64, took: Duration) -> u64 {
    (rounds as f64 * LONG.as_secs_f64() / took.as_secs_f64()) as u64
}

/// The duration of a request that is answered by a pod that receives SIGTERM meanwhile, through
/// gateways that are all replaced.
async fn while_all_leave(
    world: &TestWorld,
    http: &HttpClient,
    base: &str,
    revision: &str,
    rounds: u64,
) -> anyhow::Result<Duration> {
    let request = tokio::spawn({
        let (http, base) = (http.clone(), base.to_owned());
        async move { ask(&http, &base, rounds).await }
    });
    in_flight(world, revision).await?;
    let selector = format!("ml.slipway.dev/revision={revision}");
    world
        .cluster
        .kubectl(["delete", "pods", "-n", &world.namespace, "-l", &selector, "--wait=false"])
        .await?;
    let restart = ["rollout", "restart", "-n", &world.namespace, "deployment/slipway-gateway"];
    world.cluster.kubectl(restart).await?;
    request.await?
}

/// Waits until the pod runs the request.
async fn in_flight(world: &TestWorld, revision: &str) -> anyhow::Result<()> {
    let selector = format!("ml.slipway.dev/revision={revision}");
    let arguments = [
        "get",
        "pods",
        "-n",
        &world.namespace,
        "-l",
        &selector,
        "-o=jsonpath={.items[0].metadata.name}",
    ];
    let pod = world.cluster.kubectl(arguments).await?;
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}:{}/proxy{}",
        world.namespace,
        pod.trim(),
        ports::METRICS.number,
        paths::METRICS
    );
    let look = || async {
        let metrics = world
            .cluster
            .kubectl(["get", "--raw", &path])
            .await
            .map_err(|error| error.to_string())?;
        let line =
            metrics.lines().find(|line| line.starts_with("slipway_runtime_requests_in_flight"));
        match line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()) {
            Some(count) if count >= 1.0 => Ok(()),
            other => Err(format!("{other:?} requests in flight")),
        }
    };
    Ok(world
        .cluster
        .wait_for(&world.namespace, "the pod to run the request", world::PODS_TIMEOUT, look)
        .await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn deadlines_hold() -> anyhow::Result<()> {
    world::run_promise("deadlines-hold", async |world| {
        let revision = world.start_model(&slow()?).await?;
        let base = world.service_url("slow", 80).await?;
        let http = HttpClient::with_timeout(Duration::from_secs(u64::from(TIMEOUT)));
        let mut rounds = rounds(&http, &base).await?;
        loop {
            let took = while_all_leave(&world, &http, &base, &revision, rounds).await?;
            if took > LONG / 2 {
                break;
            }
            // The measurement was made under a higher load of the machine than now.
            rounds = longer(rounds, took);
        }
        ask(&http, &base, 1).await?;
        Ok(())
    })
    .await
}
