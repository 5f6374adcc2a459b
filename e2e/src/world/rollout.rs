//! Waits for states of a rollout.

use std::time::Duration;

use slipway_cluster::error::in_words;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus, RolloutStage};

use super::status::{check_ready, deployment_name, describe_status, stable_revision};
use super::test_world::{PODS_TIMEOUT, TestWorld};

/// How long a whole rollout may take on a machine under load.
pub const ROLLOUT_TIMEOUT: Duration = Duration::from_secs(240);

impl TestWorld {
    /// The status of a ModelDeployment, or what is missing.
    pub async fn status(&self, name: &str) -> Result<ModelDeploymentStatus, String> {
        let object = self.model_deployments().get(name).await.map_err(|error| in_words(&error))?;
        let generation = object.metadata.generation;
        let status = object.status.ok_or("no status yet")?;
        match status.observed_generation == generation {
            true => Ok(status),
            false => Err(format!(
                "status is of generation {:?}, the spec of {generation:?}",
                status.observed_generation
            )),
        }
    }

    /// Waits until the status of `name` satisfies `condition`, and returns it.
    pub async fn wait_for_status(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&ModelDeploymentStatus) -> Result<(), String>,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let look = || async {
            let status = self.status(name).await?;
            condition(&status).map(|()| status)
        };
        Ok(self.cluster.wait_for(&self.namespace, what, deadline, look).await?)
    }

    /// Applies the first version and waits until it serves with all its replicas.
    pub async fn start_model(&self, object: &ModelDeployment) -> anyhow::Result<String> {
        self.apply(object).await?;
        let name = deployment_name(object);
        let status = self
            .wait_for_status(name, "the first version to be ready", PODS_TIMEOUT, check_ready)
            .await?;
        Ok(stable_revision(&status))
    }

    /// Waits until `version` is promoted.
    pub async fn wait_promoted(
        &self,
        name: &str,
        version: &str,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let what = format!("{version} to be promoted");
        self.wait_for_status(name, &what, ROLLOUT_TIMEOUT, |status| match &status.stable {
            Some(stable) if stable.version == version && status.rollout.is_none() => Ok(()),
            _ => Err(describe_status(status)),
        })
        .await
    }

    /// Waits until the candidate `version` is aborted.
    pub async fn wait_aborted(
        &self,
        name: &str,
        version: &str,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let what = format!("{version} to be taken back");
        self.wait_for_status(name, &what, ROLLOUT_TIMEOUT, |status| {
            let is_candidate =
                status.rollout.as_ref().is_some_and(|rollout| rollout.version == version);
            let left = status
                .rollout
                .as_ref()
                .and_then(|rollout| rollout.abort.as_ref()?.traffic_left_time.as_ref());
            if is_candidate && left.is_some() { Ok(()) } else { Err(describe_status(status)) }
        })
        .await
    }

    /// Waits until the candidate has the confirmed weight (in thousandths) and the rollout is held
    /// by the judge or a pause.
    pub async fn wait_for_weight(
        &self,
        name: &str,
        permille: i32,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let what = format!("the candidate to have {permille} thousandths");
        self.wait_for_status(name, &what, ROLLOUT_TIMEOUT, |status| {
            let settled = status.rollout.as_ref().is_some_and(|rollout| {
                matches!(
                    rollout.stage,
                    RolloutStage::Analyzing | RolloutStage::Paused | RolloutStage::Probation
                ) && rollout.steps.last().is_some_and(|step| {
                    step.weight_permille == permille && step.confirmed_time.is_some()
                })
            });
            if settled { Ok(()) } else { Err(describe_status(status)) }
        })
        .await
    }
}
