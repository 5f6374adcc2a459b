//! A version of the gateway that does not start reaches only the gateway of one namespace, the one
//! with the fewest ModelDeployments, and no request is lost. Its repair does not have to wait for
//! the gateways that work.

use anyhow::ensure;
use serde_json::json;
use slipway_cluster::cluster::ClusterHandle;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::product::{self, NAMESPACE, RELEASE};
use slipway_e2e::world::{self, PODS_TIMEOUT, TestWorld};

/// Upgrades Slipway to another version of the gateway.
async fn upgrade(cluster: &ClusterHandle, tag: &str) -> anyhow::Result<()> {
    let chart = cluster.layout().root().join("charts").join(RELEASE).display().to_string();
    let value = format!("gateway.image.tag={tag}");
    let upgrade =
        ["upgrade", RELEASE, &chart, "--namespace", NAMESPACE, "--reuse-values", "--set", &value];
    cluster.helm([&upgrade[..], &["--wait", "--timeout", "120s"]].concat()).await?;
    product::scale_operator(cluster, 1).await?;
    Ok(())
}

/// The image in the template of a namespace's gateway.
async fn image(world: &TestWorld) -> Result<String, String> {
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    let get = ["get", "deployment", "slipway-gateway", "-n", &world.namespace, "-o", path];
    world.cluster.kubectl(get).await.map_err(|error| error.to_string())
}

async fn runs(world: &TestWorld, tag: &str) -> anyhow::Result<()> {
    let has = || async {
        let image = image(world).await?;
        if image.ends_with(tag) { Ok(()) } else { Err(image) }
    };
    world
        .cluster
        .wait_for(&world.namespace, "the gateway to have its version", PODS_TIMEOUT, has)
        .await?;
    Ok(())
}

/// The operator still handles other changes meanwhile.
async fn grows(world: &TestWorld) -> anyhow::Result<()> {
    world.patch_spec("digits", json!({"replicas": 2})).await?;
    let ready = |status: &ModelDeploymentStatus| match &status.stable {
        Some(stable) if stable.ready_replicas == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    world.wait_for_status("digits", "two pods", PODS_TIMEOUT, ready).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn gateways_are_updated_in_turn() -> anyhow::Result<()> {
    world::run_promise_alone("first", async |first| {
        let namespace = first.cluster.temp_namespace("second").await?;
        let second = TestWorld::new(first.cluster.clone(), namespace.name());
        second.prepare().await?;
        for world in [&first, &second] {
            let mut object = world.quick_example("digits/v1.yaml")?;
            object.spec.replicas = Some(1);
            world.start_model(&object).await?;
        }
        let mut more = second.quick_example("digits/v1.yaml")?;
        more.metadata.name = Some("more".into());
        more.spec.model.name = Some("more".into());
        more.spec.replicas = Some(1);
        second.start_model(&more).await?;
        first.start_load("digits", 60).await?;
        second.start_load("digits", 60).await?;

        upgrade(&first.cluster, "broken").await?;
        let outcome = async {
            runs(&first, ":broken").await?;
            grows(&second).await?;
            ensure!(
                image(&second).await.map_err(anyhow::Error::msg)?.ends_with(":dev"),
                "both have got it"
            );
            anyhow::Ok(())
        };
        let outcome = outcome.await;
        upgrade(&first.cluster, "dev").await?;
        outcome?;
        runs(&first, ":dev").await?;
        first.wait_deployment_ready("slipway-gateway").await?;
        first.finish_load().await?;
        second.finish_load().await?;
        namespace.delete().await?;
        Ok(())
    })
    .await
}
