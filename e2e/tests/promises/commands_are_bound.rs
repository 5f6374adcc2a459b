//! A command applies to one revision and one step, each command requires its own right, and the
//! history shows its author.

use anyhow::{Context, ensure};
use slipway_crds::v1alpha1::{
    AnalysisMode, CanaryStep, CanaryStrategy, ModelDeploymentStatus, RolloutPause, RolloutStage,
};
use slipway_e2e::world::{self, TestWorld};

const PROMOTE: &str = "ml.slipway.dev/promote";

fn weight(percent: i32) -> CanaryStep {
    CanaryStep { set_weight: Some(percent.into()), ..CanaryStep::default() }
}

fn paused_at(step: i32) -> impl Fn(&ModelDeploymentStatus) -> Result<(), String> {
    move |status| match &status.rollout {
        Some(rollout) if rollout.stage == RolloutStage::Paused && rollout.step_index == step => {
            Ok(())
        }
        _ => Err(world::describe_status(status)),
    }
}

/// Runs `kubectl annotate` as a user; returns the rejection, if there is one.
async fn annotate(world: &TestWorld, user: &str, value: &str) -> Result<String, String> {
    let (by, annotation) = (format!("--as={user}"), format!("{PROMOTE}={value}"));
    let arguments = [
        by.as_str(),
        "annotate",
        "--overwrite",
        "mdep",
        "digits",
        "-n",
        &world.namespace,
        &annotation,
    ];
    world.cluster.kubectl(arguments).await.map_err(|error| error.to_string())
}

/// Runs `kubectl slipway` as a user.
async fn slipway(world: &TestWorld, user: &str, arguments: &[&str]) -> Result<String, String> {
    let all = arguments.iter().copied().chain(["digits", "-n", &world.namespace]);
    world.cluster.run_plugin_as(user, all).await.map_err(|error| error.to_string())
}

/// Grants rights: both users may edit, one of them may promote.
async fn rights(world: &TestWorld) -> anyhow::Result<()> {
    for (name, role, user) in [
        ("ed", "slipway-edit", "ed"),
        ("ann", "slipway-edit", "ann"),
        ("ann-promotes", "slipway-promote", "ann"),
    ] {
        for role in [role, "slipway-view"] {
            let (binding, role, user) = (
                format!("{name}-{role}"),
                format!("--clusterrole={role}"),
                format!("--user={user}"),
            );
            let arguments =
                ["create", "rolebinding", &binding, &role, &user, "-n", &world.namespace];
            world.cluster.kubectl(arguments).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn commands_are_bound() -> anyhow::Result<()> {
    world::run_promise("commands", async |world| {
        rights(&world).await?;
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 50).await?;
        let mut second = world.quick_example("digits/v2.yaml")?;
        let pause = || CanaryStep { pause: Some(RolloutPause::default()), ..CanaryStep::default() };
        let steps = vec![weight(20), pause(), weight(60), pause(), weight(100)];
        second.spec.strategy.canary = Some(CanaryStrategy { steps });
        (second.spec.analysis.gates, second.spec.analysis.mode) = (None, AnalysisMode::Disabled);
        world.apply(&second).await?;
        let status = world
            .wait_for_status("digits", "the first pause", world::ROLLOUT_TIMEOUT, paused_at(1))
            .await?;
        let revision = world::candidate_revision(&status);

        // Promoting is a separate right, and no user can act in another's name.
        let refused = annotate(&world, "ed", "1").await.err().context("ed may promote")?;
        ensure!(refused.contains("ed lacks a right") && refused.contains("promote"), "{refused}");
        let forged = annotate(&world, "ann", &format!("{revision}/1/x/ed"))
            .await
            .err()
            .context("ann speaks for ed")?;
        ensure!(forged.contains("says that it comes from ed"), "{forged}");
        let done = slipway(&world, "ann", &["promote"]).await.map_err(anyhow::Error::msg)?;
        ensure!(done.contains("promote: done at step 2/5"), "{done}");

        // A command for the first pause has no effect at the second one.
        world
            .wait_for_status("digits", "the second pause", world::ROLLOUT_TIMEOUT, paused_at(3))
            .await?;
        let late = format!("{revision}/1/late/ann");
        annotate(&world, "ann", &late).await.map_err(anyhow::Error::msg)?;
        let seen = |status: &ModelDeploymentStatus| match status.handled_commands.get(PROMOTE)
            == Some(&late)
        {
            true => Ok(()),
            false => Err(world::describe_status(status)),
        };
        let status = world
            .wait_for_status("digits", "the late command to be seen", world::PODS_TIMEOUT, seen)
            .await?;
        paused_at(3)(&status).map_err(anyhow::Error::msg)?;
        let told = || async {
            let field = "--field-selector=reason=CommandIgnored";
            let events =
                world.cluster.kubectl(["get", "events", "-n", &world.namespace, field]).await;
            let events = events.map_err(|error| error.to_string())?;
            if events.contains("promote by ann was for revision") { Ok(()) } else { Err(events) }
        };
        world
            .cluster
            .wait_for(&world.namespace, "an event that says so", world::PODS_TIMEOUT, told)
            .await?;

        // A user who may edit can abort, but cannot promote.
        let refused = slipway(&world, "ed", &["promote"]).await.err().context("ed may promote")?;
        ensure!(refused.contains("ed lacks a right"), "{refused}");
        slipway(&world, "ed", &["abort"]).await.map_err(anyhow::Error::msg)?;
        let status = world.wait_aborted("digits", "v2").await?;
        let record = status.history.first().context("no history")?;
        let done: Vec<_> =
            record.commands.iter().map(|it| (it.command.as_str(), it.user.as_str())).collect();
        ensure!(done == [("promote", "ann"), ("abort", "ed")], "{done:?}");
        ensure!(record.message.contains("aborted by ed"), "{}", record.message);

        // Paused, resumed, and promoted to the end.
        slipway(&world, "ed", &["retry"]).await.map_err(anyhow::Error::msg)?;
        let done = slipway(&world, "ed", &["pause"]).await.map_err(anyhow::Error::msg)?;
        ensure!(done.contains("ed holds the rollout"), "{done}");
        slipway(&world, "ed", &["resume"]).await.map_err(anyhow::Error::msg)?;
        slipway(&world, "ann", &["promote", "--full"]).await.map_err(anyhow::Error::msg)?;
        world.wait_promoted("digits", "v2").await?;
        let account = world.finish_load().await?;
        ensure!(account.failed == 0, "{account:?}");
        Ok(())
    })
    .await
}
