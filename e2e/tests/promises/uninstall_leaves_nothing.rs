//! Deleting the ModelDeployments deletes everything they own, and uninstalling the charts removes
//! all other objects of Slipway.

use std::time::Duration;

use slipway_e2e::product::{self, PrometheusSource};
use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn uninstall_leaves_nothing() -> anyhow::Result<()> {
    world::run_promise_alone("uninstall", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.cluster.kubectl(["delete", "modeldeployments", "-n", &world.namespace, "digits"]).await?;
        let kinds = "pods,replicasets,services,deployments,serviceaccounts,rolebindings,poddisruptionbudgets,horizontalpodautoscalers,networkpolicies,endpointslices";
        let gone = || async {
            let left = world
                .object_names(kinds, "app.kubernetes.io/managed-by=slipway")
                .await
                .map_err(|error| error.to_string())?;
            if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
        };
        world.cluster.wait_for(&world.namespace, "all children to go", Duration::from_secs(120), gone).await?;

        product::uninstall_charts(&world.cluster).await?;
        let outcome = async {
            let kinds = "clusterroles,clusterrolebindings,deployments,serviceaccounts,services,roles,rolebindings,configmaps,leases,networkpolicies";
            let left = world
                .cluster
                .kubectl(["get", kinds, "-A", "-l", "app.kubernetes.io/instance=slipway", "-o", "name"])
                .await?;
            anyhow::ensure!(left.trim().is_empty(), "left behind: {left}");
            anyhow::Ok(())
        }
        .await;
        product::install_charts(&world.cluster, &PrometheusSource::Url(world.cluster.prometheus_url()?)).await?;
        outcome
    })
    .await
}
