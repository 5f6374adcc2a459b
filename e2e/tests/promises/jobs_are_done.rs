//! Jobs: queued at the stable address, run by workers, readable at a URL and sent in a signed
//! callback; none is lost when workers crash, the broker restarts and a new version is rolled out
//! meanwhile. On Redis and on NATS.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use serde_json::json;
use slipway_e2e::world::{self, QueueBroker, ReceivedCallback, TestWorld};

const JOBS: usize = 60;
const ROW: [f64; 64] = [0.0; 64];

fn with_queue(
    world: &TestWorld,
    broker: QueueBroker,
    file: &str,
    receiver: &str,
) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick_example(file)?)?;
    object["spec"]["queue"] = json!({
        "callbacks": {
            "allow": [receiver],
            "signingKeySecretKeyRef": {"name": "callbacks", "key": "hmac"},
        },
        "worker": {"replicas": 2, "drainSeconds": 2},
    });
    let (field, place) = broker.queue_field();
    object["spec"]["server"]["queue"][field] = place;
    Ok(object.to_string())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn jobs_are_done() -> anyhow::Result<()> {
    done("jobs", QueueBroker::Redis).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn jobs_are_done_on_nats() -> anyhow::Result<()> {
    done("jobs-nats", QueueBroker::Nats).await
}

async fn done(prefix: &str, broker: QueueBroker) -> anyhow::Result<()> {
    world::run_promise(prefix, async |world| {
        world.create_queue(broker).await?;
        let (callback, receiver) = world.callbacks_url().await?;
        world
            .cluster
            .apply(&world.namespace, &with_queue(&world, broker, "digits/v1.yaml", &receiver)?)
            .await?;
        world
            .wait_for_status(
                "digits",
                "the first version to be ready",
                world::PODS_TIMEOUT,
                world::check_ready,
            )
            .await?;
        world.wait_deployment_ready("digits-worker").await?;
        world.start_load("digits", 50).await?;

        let mut ids = BTreeSet::new();
        for number in 0..JOBS {
            match number {
                20 => {
                    let workers =
                        world.object_names("pods", "app.kubernetes.io/component=worker").await?;
                    let victim = workers.first().context("no worker")?;
                    let kill =
                        ["delete", "-n", &world.namespace, victim, "--grace-period=0", "--force"];
                    world.cluster.kubectl(kill).await?;
                }
                // The container restarts with its files.
                30 => world.restart_broker(broker).await,
                40 => {
                    world
                        .cluster
                        .apply(
                            &world.namespace,
                            &with_queue(&world, broker, "digits/v2.yaml", &receiver)?,
                        )
                        .await?;
                }
                _ => {}
            }
            ids.insert(world.submit_job("digits", number, &ROW, Some(&callback)).await?);
        }
        ensure!(ids.len() == JOBS, "{} ids for {JOBS} jobs", ids.len());
        // The same key is the same job.
        ensure!(
            ids.contains(&world.submit_job("digits", 0, &ROW, Some(&callback)).await?),
            "a job was queued twice"
        );
        for id in &ids {
            world.wait_job_succeeded("digits", id).await?;
        }
        let all = || async {
            let callbacks = world.callbacks().await.map_err(|error| error.to_string())?;
            let told =
                callbacks.iter().map(ReceivedCallback::verify).collect::<Result<Vec<_>, _>>();
            let told = told.map_err(|error| format!("{error:#}"))?;
            let told: BTreeSet<_> = told.iter().filter_map(|job| job["id"].as_str()).collect();
            let missing = ids.iter().filter(|id| !told.contains(id.as_str())).count();
            if missing == 0 {
                Ok(())
            } else {
                Err(format!("{missing} of {JOBS} were not called back"))
            }
        };
        world.cluster.wait_for(&world.namespace, "all callbacks", world::PODS_TIMEOUT, all).await?;
        world.wait_promoted("digits", "v2").await?;
        world.finish_load().await?;
        Ok(())
    })
    .await
}
