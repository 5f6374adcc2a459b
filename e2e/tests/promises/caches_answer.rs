//! Answers are kept in the pods and in the Redis beside them: the same question is answered from there, and never with another version's answer.

use anyhow::ensure;
use serde_json::{Value, json};
use slipway_e2e::world::{self, World};

fn cached(world: &World, file: &str) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick(file)?)?;
    object["spec"]["cache"] = json!({"results": {"bypass": "Never"}, "redis": {"maxMemoryMebibytes": 16}});
    Ok(object.to_string())
}

/// One question; how the cache was involved, and the answer.
async fn ask(world: &World) -> anyhow::Result<(String, String, Value)> {
    let base = world.service("digits", 80).await?;
    let row: Vec<f64> = (0..64).map(|n| f64::from(n % 17)).collect();
    let url = format!("{base}/v2/models/digits/infer");
    let answer = world.http.post(&url, Some("digits"), &world::question(&row)).await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    let value: Value = answer.json()?;
    let (cache, revision) = (answer.header("x-slipway-cache"), answer.header("x-slipway-revision"));
    Ok((cache.to_owned(), revision.to_owned(), value["outputs"].clone()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn caches_answer() -> anyhow::Result<()> {
    world::run("caches", async |world| {
        world.cluster.apply(&world.namespace, &cached(&world, "digits/v1.yaml")?).await?;
        let status = world.wait_status("digits", "the first version to be ready", world::PODS, world::ready).await?;
        let stable = world::stable_revision(&status);
        let sidecars = ["get", "pods", "-n", &world.namespace, "-l", &format!("ml.slipway.dev/revision={stable}")];
        let ready = "-o=jsonpath={.items[*].status.initContainerStatuses[?(@.name==\"redis\")].started}";
        let started = world.cluster.kubectl(sidecars.into_iter().chain([ready])).await?;
        ensure!(started.contains("true") && !started.contains("false"), "Redis beside every pod: {started:?}");

        let (_, _, first) = ask(&world).await?;
        let kept = || async {
            // Equal requests go to the same pod, so the second is a hit.
            let (cache, _, answer) = ask(&world).await.map_err(|error| error.to_string())?;
            if cache == "hit" && answer == first { Ok(()) } else { Err(format!("{cache}: {answer} after {first}")) }
        };
        world.cluster.wait_for(&world.namespace, "a kept answer", world::PODS, kept).await?;

        world.load("digits", 200).await?;
        world.cluster.apply(&world.namespace, &cached(&world, "digits/v2.yaml")?).await?;
        world.promoted("digits", "v2").await?;
        let (_, revision, _) = ask(&world).await?;
        ensure!(revision != stable, "the new version answers");
        let account = world.settle().await?;
        // A forest is right far more often than a tree: kept answers of the tree would show.
        let of_new = account.revision(&revision);
        ensure!(of_new.correct as f64 > 0.93 * of_new.answered as f64, "{of_new:?}");
        Ok(())
    })
    .await
}
