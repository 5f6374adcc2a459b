//! Jobs: queued at the stable address, run by workers, told at a URL and to a signed callback; none is lost when workers die, the Redis restarts and
//! a new version is rolled out meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use slipway_e2e::world::{self, World};

const JOBS: usize = 60;

/// Ids of jobs that were called back, and how many calls bore no signature.
type Called = Arc<Mutex<(BTreeSet<String>, usize)>>;

/// Receives callbacks on the node, whose address pods can reach. Ends with the test.
async fn receiver(world: &World) -> anyhow::Result<(String, Called)> {
    let called = Called::default();
    let take = async |State(called): State<Called>, headers: HeaderMap, body: axum::Json<Value>| {
        let Ok(mut seen) = called.lock() else { return };
        seen.0.insert(body["id"].as_str().unwrap_or_default().to_owned());
        seen.1 += usize::from(!headers.contains_key("webhook-signature"));
    };
    let router = Router::new().route("/done", axum::routing::post(take)).with_state(Arc::clone(&called));
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    let url = format!("http://{}:{}/done", world.cluster.node_ip()?, listener.local_addr()?.port());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((url, called))
}

fn with_queue(world: &World, file: &str) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick(file)?)?;
    object["spec"]["queue"] = json!({
        "redis": {"url": "redis://queue-redis:6379"},
        "callbacks": {
            "allow": [format!("{}/32", world.cluster.node_ip()?)],
            "signingKeyFrom": {"name": "callbacks", "key": "hmac"},
        },
        "worker": {"replicas": 2, "drainSeconds": 2},
    });
    Ok(object.to_string())
}

async fn submit(world: &World, number: usize, callback: &str) -> anyhow::Result<String> {
    let base = world.service("digits", 80).await?;
    let row = vec![0.0; 64];
    let data = json!({"inputs": [{"name": "X", "shape": [1, 64], "datatype": "FP32", "data": row}]});
    let job = json!({"data": data, "callback_url": callback, "idempotency_key": format!("job-{number}")});
    // A client that got no 202 sends the job again, with the same key.
    let post = || async {
        let answer = world.http.post(&format!("{base}/v2/models/digits/jobs"), Some("digits"), &job).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let body: Value = answer.json().map_err(|error| error.to_string())?;
        match (answer.status.as_u16(), body["id"].as_str()) {
            (202, Some(id)) => Ok(id.to_owned()),
            _ => Err(format!("{}: {body}", answer.status)),
        }
    };
    Ok(world.cluster.wait_for(&world.namespace, "a job to be taken", world::PODS, post).await?)
}

async fn succeeded(world: &World, id: &str) -> anyhow::Result<()> {
    let base = world.service("digits", 80).await?;
    let look = || async {
        let answer = world.http.get_as(&format!("{base}/v2/jobs/{id}"), "digits").await;
        let body: Value = answer.and_then(|it| it.json()).map_err(|error| error.to_string())?;
        let label = &body["result"]["outputs"];
        if body["status"] == "succeeded" && label.is_array() { Ok(()) } else { Err(body.to_string()) }
    };
    Ok(world.cluster.wait_for(&world.namespace, "the job to succeed", world::PODS, look).await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn jobs_are_done() -> anyhow::Result<()> {
    world::run("jobs", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("skipped: a cluster of yours (CONTEXT) cannot call back to this machine");
            return Ok(());
        }
        let (callback, called) = receiver(&world).await?;
        world.cluster.apply(&world.namespace, &world.example("queue-redis.yaml")?).await?;
        let secret = ["create", "secret", "generic", "callbacks", "-n", &world.namespace];
        let key = "--from-literal=hmac=whsec_c2xpcHdheS1lMmUtc2xpcHdheS1lMmUtMDEyMw==";
        world.cluster.kubectl(secret.into_iter().chain([key])).await?;
        world.deployment_ready("queue-redis").await?;
        world.cluster.apply(&world.namespace, &with_queue(&world, "digits/v1.yaml")?).await?;
        world.wait_status("digits", "the first version to be ready", world::PODS, world::ready).await?;
        world.deployment_ready("digits-worker").await?;
        world.load("digits", 50).await?;

        let mut ids = BTreeSet::new();
        for number in 0..JOBS {
            match number {
                20 => {
                    let workers = world.names("pods", "app.kubernetes.io/component=worker").await?;
                    let victim = workers.first().context("no worker")?;
                    let kill = ["delete", "-n", &world.namespace, victim, "--grace-period=0", "--force"];
                    world.cluster.kubectl(kill).await?;
                }
                // The container ends and comes back with its append-only file.
                30 => {
                    let stop = [
                        "exec",
                        "-n",
                        &world.namespace,
                        "deployment/queue-redis",
                        "--",
                        "/usr/bin/redis-cli",
                        "shutdown",
                    ];
                    let _ = world.cluster.kubectl(stop).await;
                }
                40 => {
                    world.cluster.apply(&world.namespace, &with_queue(&world, "digits/v2.yaml")?).await?;
                }
                _ => {}
            }
            ids.insert(submit(&world, number, &callback).await?);
        }
        ensure!(ids.len() == JOBS, "{} ids for {JOBS} jobs", ids.len());
        // The same key is the same job.
        ensure!(ids.contains(&submit(&world, 0, &callback).await?), "a job was queued twice");
        for id in &ids {
            succeeded(&world, id).await?;
        }
        let all = || async {
            let (seen, unsigned) = called.lock().map(|it| it.clone()).map_err(|error| error.to_string())?;
            if seen.is_superset(&ids) && unsigned == 0 {
                Ok(())
            } else {
                Err(format!("{} of {JOBS} called back, {unsigned} unsigned", seen.len()))
            }
        };
        world.cluster.wait_for(&world.namespace, "all callbacks", world::PODS, all).await?;
        world.promoted("digits", "v2").await?;
        world.settle().await?;
        Ok(())
    })
    .await
}
