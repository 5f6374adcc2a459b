//! Answers are cached in the pods and in the Redis next to them: a repeated question is answered
//! from a cache, and never with another version's answer. A candidate answers the most requested
//! inputs of stable before it receives traffic.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use slipway_contracts::{headers, ports};
use slipway_e2e::world::{self, TestWorld};

fn cached(world: &TestWorld, file: &str) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(world.quick_example(file)?)?;
    object["spec"]["server"]["cache"] =
        json!({"results": {"bypass": "Never", "hotKeys": 100}, "sidecar": {"maxMemory": "16Mi"}});
    // All of stable's answers are cached, so it has no inference times to compare with.
    if let Some(gates) = object["spec"]["analysis"]["gates"].as_array_mut() {
        gates.retain(|gate| gate["type"] != "Latency");
    }
    Ok(object.to_string())
}

/// Asks one question; returns how the cache was involved, and the answer.
async fn ask(world: &TestWorld) -> anyhow::Result<(String, String, Value)> {
    let base = world.service_url("digits", 80).await?;
    let row: Vec<f64> = (0..64).map(|n| f64::from(n % 17)).collect();
    let url = format!("{base}/v2/models/digits/infer");
    let answer = world.http.post(&url, Some("digits"), &world::infer_request(&row)).await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    let value: Value = answer.json()?;
    let (cache, revision) = (answer.header(headers::CACHE), answer.header(headers::REVISION));
    Ok((cache.to_owned(), revision.to_owned(), value["outputs"].clone()))
}

/// Waits until a pod of `candidate` has fetched the most requested inputs from pods of `stable`,
/// and has answered them before it was ready.
async fn warmed(world: &TestWorld, candidate: &str, stable: &str) -> anyhow::Result<()> {
    let selector =
        format!("ml.slipway.dev/revision={candidate},app.kubernetes.io/component=runtime");
    let logs = ["logs", "-n", &world.namespace, "-l", &selector, "-c=server", "--tail=-1"];
    let logs = world.cluster.kubectl(logs).await?;
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told: Vec<Value> =
        lines.filter(|line| line.to_string().contains("the caches are warm")).collect();
    let from = format!("http://digits-{stable}:{}", ports::METRICS.number);
    // Pods that come later may be told by the candidate's own.
    let found =
        told.iter().find(|line| line["from"] == from && line["answered"].as_u64() > Some(0));
    let found = found.with_context(|| format!("no pod was told by {from}: {told:?}\n{logs}"))?;
    eprintln!(
        "caches: {} hot questions of {from} answered in {} s",
        found["answered"], found["seconds"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn caches_answer() -> anyhow::Result<()> {
    world::run_promise("caches", async |world| {
        world.cluster.apply(&world.namespace, &cached(&world, "digits/v1.yaml")?).await?;
        let status = world
            .wait_for_status(
                "digits",
                "the first version to be ready",
                world::PODS_TIMEOUT,
                world::check_ready,
            )
            .await?;
        let stable = world::stable_revision(&status);
        let selector = format!("-l=ml.slipway.dev/revision={stable}");
        let path =
            "-o=jsonpath={.items[*].status.initContainerStatuses[?(@.name==\"redis\")].started}";
        // Ready needs one pod; the others may still start.
        let all_started = || async {
            let command = ["get", "pods", "-n", &world.namespace, &selector, path];
            let started = world.cluster.kubectl(command).await.map_err(|e| e.to_string())?;
            if started.contains("true") && !started.contains("false") {
                Ok(())
            } else {
                Err(format!("{started:?}"))
            }
        };
        world
            .cluster
            .wait_for(&world.namespace, "Redis beside every pod", world::PODS_TIMEOUT, all_started)
            .await?;

        let (_, _, first) = ask(&world).await?;
        let kept = || async {
            // Equal requests go to the same pod, so the second is a hit.
            let (cache, _, answer) = ask(&world).await.map_err(|error| error.to_string())?;
            if cache == "hit" && answer == first {
                Ok(())
            } else {
                Err(format!("{cache}: {answer} after {first}"))
            }
        };
        world
            .cluster
            .wait_for(&world.namespace, "a kept answer", world::PODS_TIMEOUT, kept)
            .await?;

        world.start_load("digits", 200).await?;
        // The generator repeats 900 questions: all of them are asked twice, so every pod has inputs
        // to list.
        let asked = || async {
            let answered = world.account().await.map_err(|error| error.to_string())?.answered;
            if answered >= 2000 { Ok(()) } else { Err(format!("{answered} answers")) }
        };
        world
            .cluster
            .wait_for(&world.namespace, "2000 answers", world::PODS_TIMEOUT, asked)
            .await?;
        world.cluster.apply(&world.namespace, &cached(&world, "digits/v2.yaml")?).await?;
        world.wait_promoted("digits", "v2").await?;
        let (_, revision, _) = ask(&world).await?;
        ensure!(revision != stable, "the new version answers");
        warmed(&world, &revision, &stable).await?;
        let account = world.finish_load().await?;
        // A forest is right far more often than a tree, so cached answers of the tree would be
        // noticed.
        let of_new = account.revision(&revision);
        ensure!(of_new.correct as f64 > 0.93 * of_new.answered as f64, "{of_new:?}");
        Ok(())
    })
    .await
}
