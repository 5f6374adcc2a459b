//! A pod that is configured for more workers than its memory limit allows runs as many as fit,
//! reports it, and is not killed by the kernel.

use anyhow::Context;
use serde_json::{Value, json};
use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn memory_bounds_the_workers_of_a_pod() -> anyhow::Result<()> {
    world::run_promise("memory", async |world| {
        let mut object = world.quick_example("digits/v2.yaml")?;
        object.spec.replicas = Some(1);
        let server = object.spec.template.server_container_mut();
        server.args = Some(vec!["--workers=400".into()]);
        server.resources = serde_json::from_value(
            json!({"requests": {"memory": "256Mi"}, "limits": {"memory": "256Mi"}}),
        )?;
        let revision = world.start_model(&object).await?;
        world.start_load("digits", 40).await?;
        let pods =
            world.object_names("pods", &format!("ml.slipway.dev/revision={revision}")).await?;
        let pod = pods.first().context("no pod")?;
        let log =
            world.cluster.kubectl(["logs", "-n", &world.namespace, pod, "-c", "server"]).await?;
        let lines: Vec<Value> =
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let line = |message: &str| {
            let said = lines.iter().rfind(|line| line["message"] == message);
            said.with_context(|| format!("no {message:?} in {log}"))
        };
        let bounded = line("memory holds no more sessions of this model")?;
        assert_eq!(
            (&bounded["wanted"], &bounded["memory_bytes"]),
            (&json!(400), &json!(256 << 20)),
            "{bounded}"
        );
        let workers = line("the model is loaded and warm")?["workers"]
            .as_u64()
            .context("no number of workers")?;
        assert!((2..400).contains(&workers), "{workers} workers");
        world.finish_load().await?;
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        let restarts =
            world.cluster.kubectl(["get", "-n", &world.namespace, pod, "-o", path]).await?;
        assert_eq!(restarts, "0");
        Ok(())
    })
    .await
}
