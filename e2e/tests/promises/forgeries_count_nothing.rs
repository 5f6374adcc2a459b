//! Evidence comes only from Slipway's own exporters: a pod of the same namespace that exports the
//! same metrics with growing values, for both arms, changes neither a verdict nor its numbers.

use anyhow::{Context, ensure};
use serde_json::json;
use slipway_contracts::metric_names;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::world::{self, TestWorld};

const FORGER: &str = "forger";
/// Increment of each of the forged counters per second.
const A_SECOND: u64 = 10_000;

/// Creates a pod that is scraped like Slipway's pods, and reports that all requests of the
/// candidate fail and are slow, and none of stable.
async fn forge(world: &TestWorld, candidate: &str, stable: &str) -> anyhow::Result<()> {
    let series = |metric: &str, revision: &str, role: &str, more: &str| {
        format!(
            "echo \"{metric}{{modeldeployment=\\\"digits\\\",revision=\\\"{revision}\\\",role=\\\"{role}\\\",{more}}} $n\"\n"
        )
    };
    let (requests, buckets) =
        (metric_names::GATEWAY_REQUESTS_TOTAL, metric_names::GATEWAY_REQUEST_DURATION_BUCKET);
    let lines: String = [
        series(requests, candidate, "candidate", "outcome=\\\"server_error\\\""),
        series(requests, stable, "stable", "outcome=\\\"success\\\""),
        series(buckets, candidate, "candidate", "le=\\\"+Inf\\\""),
        series(buckets, stable, "stable", "le=\\\"0.005\\\""),
        series(
            metric_names::GATEWAY_FEEDBACK_TOTAL,
            candidate,
            "candidate",
            "result=\\\"incorrect\\\"",
        ),
    ]
    .concat();
    let script = format!(
        "#!/bin/busybox sh\necho 'Content-Type: text/plain'\necho\nn=$(( ($(/bin/busybox date +%s) % 1000000) * {A_SECOND} ))\n{lines}"
    );
    let objects = json!([
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": FORGER}, "data": {"metrics": script}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": FORGER,
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/cgi-bin/metrics"},
         }, "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "name": "forger", "image": "docker.io/slipway/slipway-model-store:dev",
                "command": ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/forged"],
                "volumeMounts": [{"name": "forged", "mountPath": "/forged/cgi-bin"}],
            }],
            "volumes": [{"name": "forged", "configMap": {"name": FORGER, "defaultMode": 0o755}}],
        }},
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    world.cluster.apply(&world.namespace, &list.to_string()).await.map(drop)?;
    let query =
        format!("sum(rate({requests}{{namespace=\"{}\",pod=\"{FORGER}\"}}[10s]))", world.namespace);
    let grows = || async {
        let rate = world
            .query_prometheus(&query)
            .await
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        if rate > 1000.0 { Ok(()) } else { Err(format!("{rate} forged requests a second")) }
    };
    Ok(world
        .cluster
        .wait_for(&world.namespace, "the forgeries to be scraped", world::PODS_TIMEOUT, grows)
        .await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn forgeries_count_nothing() -> anyhow::Result<()> {
    world::run_promise("forgeries", async |world| {
        let stable = world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 100).await?;
        let mut second = world.quick_example("digits/v2.yaml")?;
        // The forging pod must run before the judge has a verdict.
        for gate in second.spec.analysis.gates.iter_mut().flatten() {
            if let Some(errors) = &mut gate.error_rate {
                errors.min_requests = 300;
            }
        }
        second.spec.paused = true;
        world.apply(&second).await?;
        let begun = |status: &ModelDeploymentStatus| match world::candidate_revision(status) {
            revision if revision.is_empty() => Err(world::describe_status(status)),
            _ => Ok(()),
        };
        let status = world
            .wait_for_status("digits", "the rollout to begin", world::PODS_TIMEOUT, begun)
            .await?;
        forge(&world, &world::candidate_revision(&status), &stable).await?;
        world.patch_spec("digits", json!({"paused": false})).await?;

        let status = world.wait_promoted("digits", "v2").await?;
        let record = status.history.first().context("no history")?;
        let (_, judged) = record.steps.split_last().context("no steps")?;
        for step in judged {
            let numbers = step
                .verdict
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|text| text.parse::<u64>().ok());
            let largest = numbers.max().unwrap_or_default();
            ensure!(largest < A_SECOND, "forged requests are in the numbers: {}", step.verdict);
        }
        let account = world.finish_load().await?;
        ensure!(account.failed == 0, "{account:?}");
        Ok(())
    })
    .await
}
