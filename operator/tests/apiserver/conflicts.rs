//! ModelDeployments that claim the same host or the same model name.

use jiff::Timestamp;
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeployment;

use super::support::eventually;
use super::support::fakes::Fakes;
use super::support::world::{World, condition, spec};

fn message(object: Option<&ModelDeployment>) -> &str {
    let conditions =
        object.and_then(|o| o.status.as_ref()).map(|s| s.conditions.as_slice()).unwrap_or_default();
    conditions.iter().find(|c| c.type_ == "Conflicted").map_or("", |c| &c.message)
}

#[tokio::test]
#[ignore = "needs kube-apiserver and etcd"]
async fn the_younger_of_two_is_told_until_the_older_gives_way() {
    let world = World::new("conflicts").await;
    let fakes = Fakes::start(&world, 26).await;
    let operator = world.operator(&fakes.arguments().each_ref().map(String::as_str));
    let reached_by = |hosts: &[&str], model: &str| {
        let mut all = spec("v1");
        all["traffic"] = json!({"hosts": hosts});
        all["model"]["name"] = json!(model);
        all
    };
    // The test cannot control which of two objects created in the same second is older: the UID
    // decides then.
    let old = world.create("z-old", reached_by(&["m.example.org"], "m")).await;
    let serves = |o: Option<&ModelDeployment>| condition(o, "Ready") == "True/Stable";
    world.until("the first one serves", "z-old", serves).await;
    let created = old.metadata.creation_timestamp.unwrap().0.as_second();
    eventually("another second begins", async || Timestamp::now().as_second() > created).await;
    world.create("young", reached_by(&["m.example.org", "young.example.org"], "m")).await;
    let told = |o: Option<&ModelDeployment>| {
        condition(o, "Conflicted") == "True/HostnameConflict"
            && message(o).contains("'m.example.org' is held by the older ModelDeployment z-old")
            && message(o).contains("spec.model.name: 'm'")
            && condition(o, "Ready") == "True/Stable"
    };
    world.until("the younger one is told, and serves", "young", told).await;
    let alone = |o: Option<&ModelDeployment>| condition(o, "Conflicted").is_empty();
    world.until("the older one is not bothered", "z-old", alone).await;

    // The younger one does not change; the change of the other one must trigger its reconcile.
    world.merge("z-old", json!({"spec": {"traffic": {"hosts": []}}})).await;
    let name_only =
        |o: Option<&ModelDeployment>| condition(o, "Conflicted") == "True/ModelNameConflict";
    world.until("the host is its own", "young", name_only).await;
    world.api::<ModelDeployment>().delete("z-old", &Default::default()).await.unwrap();
    world.until("the name is its own as well", "young", alone).await;
    operator.end().await.unwrap();
}
