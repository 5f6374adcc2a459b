//! A node is drained: the only pod of a model and the gateways are evicted under load, and no
//! request is lost, even when the replacement takes a long time.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{EvictParams, ListParams};
use slipway_e2e::world::{self, TestWorld};

/// Far longer than a model server waits for another request before it ends.
const LONG: Duration = Duration::from_secs(20);

/// Evicts the pods of a selector, each as soon as its disruption budget allows, as `kubectl drain`
/// does. Returns their names.
async fn evict(world: &TestWorld, selector: &str) -> anyhow::Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), &world.namespace);
    let found = pods.list(&ListParams::default().labels(selector)).await?;
    let names: Vec<String> = found.items.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for name in &names {
        let (pods, params) = (&pods, EvictParams::default());
        let allowed = || async {
            pods.evict(name, &params).await.map(drop).map_err(|error| error.to_string())
        };
        world
            .cluster
            .wait_for(
                &world.namespace,
                &format!("{name} to be evicted"),
                world::PODS_TIMEOUT,
                allowed,
            )
            .await?;
    }
    Ok(names)
}

async fn gone(world: &TestWorld, names: &[String]) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), &world.namespace);
    for name in names {
        let look = || async {
            let pod = pods.get_opt(name).await.map_err(|error| error.to_string())?;
            pod.map_or(Ok(()), |_| Err(format!("{name} is still there")))
        };
        world
            .cluster
            .wait_for(&world.namespace, &format!("{name} to end"), world::PODS_TIMEOUT, look)
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn node_drain_loses_nothing() -> anyhow::Result<()> {
    world::run_promise("node-drain", async |world| {
        let mut object = world.quick_example("digits/v1.yaml")?;
        object.spec.replicas = Some(1);
        let revision = world.start_model(&object).await?;
        let selector = format!("ml.slipway.dev/revision={revision}");
        world.start_load("digits", 40).await?;
        let evicted = evict(&world, &selector).await?;
        anyhow::ensure!(evicted.len() == 1, "{evicted:?}");
        gone(&world, &evicted).await?;
        let gateways = evict(&world, "app.kubernetes.io/component=gateway").await?;
        world.wait_deployment_ready("slipway-gateway").await?;
        gone(&world, &gateways).await?;

        // There is no room for the replacement, and almost no load: the pod stays although no
        // request arrives for a long time.
        world.set_rate(0).await?;
        world
            .cluster
            .kubectl(["create", "quota", "full", "-n", &world.namespace, "--hard=pods=0"])
            .await?;
        let evicted = evict(&world, &selector).await?;
        let (begun, base) = (Instant::now(), world.service_url("digits", 80).await?);
        let quiet =
            || async { if begun.elapsed() > LONG { Ok(()) } else { Err("too early".to_owned()) } };
        world.cluster.wait_for(&world.namespace, "a long time", 2 * LONG, quiet).await?;
        let answer = world
            .http
            .post(
                &format!("{base}/v2/models/digits/infer"),
                Some("digits"),
                &world::infer_request(&[0.0; 64]),
            )
            .await?;
        anyhow::ensure!(answer.status.is_success(), "{answer:?}");
        world.cluster.kubectl(["delete", "quota", "full", "-n", &world.namespace]).await?;
        world
            .wait_for_status("digits", "the replacement", world::PODS_TIMEOUT, world::check_ready)
            .await?;
        gone(&world, &evicted).await?;
        world.set_rate(40).await?;
        world.finish_load().await.map(drop)
    })
    .await
}
