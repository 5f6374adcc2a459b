//! Workers scale by lag: jobs that arrive faster than one worker can run them cause more workers,
//! none of the jobs is lost meanwhile, and when the queue is empty one worker is left. While the
//! metric is not available, nothing changes.

use std::sync::Mutex;

use anyhow::ensure;
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use serde_json::json;
use slipway_e2e::world::{self, QueueBroker, TestWorld};

/// Jobs that are submitted concurrently.
const BURST: usize = 16;
const WORKERS: &str = "digits-worker";

/// A worker that runs one job at a time with a tenth of a core, and an autoscaler that is fast in
/// both directions.
fn scaled(world: &TestWorld) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick_example("digits/v1.yaml")?)?;
    let quick = json!({
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    });
    object["spec"]["server"]["queue"] =
        json!({"redis": {"urlSecretKeyRef": {"name": "queue-redis", "key": "url"}}});
    object["spec"]["queue"] = json!({
        "worker": {
            "autoscaling": {
                "minReplicas": 1,
                "maxReplicas": 3,
                "targetJobs": 10,
                "behavior": {"scaleUp": quick, "scaleDown": quick},
            },
            "maxBatchJobs": 1,
            "drainSeconds": 2,
            "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"cpu": "100m", "memory": "512Mi"}},
        },
    });
    Ok(object.to_string())
}

/// The requested number of workers, when that many are ready and all of them have the newest
/// template.
async fn workers(world: &TestWorld) -> Result<i32, String> {
    let api: Api<Deployment> = Api::namespaced(world.cluster.client(), &world.namespace);
    let object = api.get(WORKERS).await.map_err(|error| error.to_string())?;
    let asked = object.spec.and_then(|spec| spec.replicas).unwrap_or_default();
    let status = object.status.unwrap_or_default();
    if status.observed_generation != object.metadata.generation {
        return Err("its status is of an earlier spec".into());
    }
    let (all, ready) =
        (status.replicas.unwrap_or_default(), status.ready_replicas.unwrap_or_default());
    let new = status.updated_replicas.unwrap_or_default();
    if [all, ready, new] == [asked; 3] {
        Ok(asked)
    } else {
        Err(format!("{asked} asked for, {all} there, {ready} ready, {new} by the newest template"))
    }
}

/// Waits until the autoscaler reports that it has no metric.
async fn until_blind(world: &TestWorld) -> anyhow::Result<()> {
    let api: Api<HorizontalPodAutoscaler> =
        Api::namespaced(world.cluster.client(), &world.namespace);
    let blind = || async {
        let status =
            api.get(WORKERS).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let found = conditions.iter().any(|it| {
            it.type_ == "ScalingActive"
                && it.status == "False"
                && it.reason.as_deref() == Some("FailedGetExternalMetric")
        });
        if found { Ok(()) } else { Err(format!("{conditions:?}")) }
    };
    Ok(world
        .cluster
        .wait_for(&world.namespace, "an autoscaler without its metric", world::PODS_TIMEOUT, blind)
        .await?)
}

/// Submits jobs until there are at least two workers; returns the jobs' ids.
async fn submit_until_scaled(world: &TestWorld) -> anyhow::Result<Vec<String>> {
    let ids = Mutex::new(Vec::new());
    let row = [0.0; 64];
    let press = || async {
        let begin = ids.lock().map_or(0, |ids| ids.len());
        let burst =
            (begin..begin + BURST).map(|number| world.submit_job("digits", number, &row, None));
        let new = try_join_all(burst).await.map_err(|error| format!("{error:#}"))?;
        ids.lock().map_err(|error| error.to_string())?.extend(new);
        match workers(world).await? {
            count if count >= 2 => Ok(()),
            count => Err(format!("{count} ready after {begin} jobs")),
        }
    };
    world.cluster.wait_for(&world.namespace, "more workers", world::ROLLOUT_TIMEOUT, press).await?;
    Ok(ids.into_inner()?)
}

async fn follow_the_lag(world: &TestWorld) -> anyhow::Result<()> {
    world.create_queue(QueueBroker::Redis).await?;
    world.cluster.apply(&world.namespace, &scaled(world)?).await?;
    world
        .wait_for_status(
            "digits",
            "the first version to be ready",
            world::PODS_TIMEOUT,
            world::check_ready,
        )
        .await?;
    world.wait_deployment_ready(WORKERS).await?;
    until_blind(world).await?;
    ensure!(workers(world).await == Ok(1), "without the metric: {:?}", workers(world).await);

    world.cluster.start_prometheus_adapter().await?;
    let ids = submit_until_scaled(world).await?;

    // The metric disappears while all workers are busy: their number stays, also during a rollout
    // of their pods, and they run the queued jobs.
    world.cluster.stop_prometheus_adapter().await?;
    until_blind(world).await?;
    let settled = || workers(world);
    let kept = world
        .cluster
        .wait_for(&world.namespace, "workers to settle", world::PODS_TIMEOUT, settled)
        .await?;
    world.patch_spec("digits", json!({"queue": {"worker": {"maxBatchJobs": 32}}})).await?;
    let variable = slipway_contracts::environment::WORKER_MAX_JOBS;
    let value = format!("-o=jsonpath={{..env[?(@.name==\"{variable}\")].value}}");
    let rolled = || async {
        let batch = ["get", "deployment", WORKERS, "-n", &world.namespace, &value];
        let batch = world.cluster.kubectl(batch).await.map_err(|error| error.to_string())?;
        let count = workers(world).await?;
        if batch.trim() == "32" {
            Ok(count)
        } else {
            Err(format!("{count} workers with batches of {batch}"))
        }
    };
    let rolled = world
        .cluster
        .wait_for(&world.namespace, "new workers", world::PODS_TIMEOUT, rolled)
        .await?;
    for id in &ids {
        world.wait_job_succeeded("digits", id).await?;
    }
    ensure!(kept >= 2 && rolled == kept, "{kept} workers became {rolled}");
    ensure!(workers(world).await == Ok(kept), "{kept} became {:?}", workers(world).await);
    world::check_ready(&world.status("digits").await.map_err(anyhow::Error::msg)?)
        .map_err(anyhow::Error::msg)?;

    world.cluster.start_prometheus_adapter().await?;
    let look = || async {
        let count = workers(world).await?;
        if count == 1 { Ok(()) } else { Err(format!("{count} workers")) }
    };
    world
        .cluster
        .wait_for(&world.namespace, "one worker for an empty queue", world::PODS_TIMEOUT, look)
        .await?;
    eprintln!("workers-scale: 1 to {kept} workers and back, {} jobs", ids.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn workers_scale() -> anyhow::Result<()> {
    world::run_promise("workers-scale", async |world| {
        if world.cluster.is_foreign() {
            eprintln!(
                "skipped: a cluster of yours (CONTEXT) serves external metrics by its own rules"
            );
            return Ok(());
        }
        world.cluster.stop_prometheus_adapter().await?;
        let outcome = follow_the_lag(&world).await;
        world.cluster.stop_prometheus_adapter().await?;
        outcome
    })
    .await
}
