//! Commands to a rollout: annotations that name their target and their author, so that a late
//! command has no effect and the history shows who did what.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Client, Config};
use serde_json::json;
use slipway_crds::commands::{CommandTarget, CommandValue};
use slipway_crds::labels;
use slipway_crds::v1alpha1::{
    CommandRecord, ModelDeployment, ModelDeploymentStatus, RolloutStage, RolloutStatus,
};

/// How long the operator may take to handle a command before a message reports the delay.
const HANDLING_TIMEOUT: Duration = Duration::from_secs(10);

/// The ModelDeployment to act on.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Name of the ModelDeployment.
    pub(crate) name: String,
    /// Namespace of the ModelDeployment. Default: that of the context.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Context of the kubeconfig. Default: the current one.
    #[arg(long)]
    context: Option<String>,
    /// User to impersonate instead of the kubeconfig's, where impersonation is allowed.
    #[arg(long = "as", value_name = "USER")]
    as_user: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutCommand {
    /// Ends the current step.
    Promote,
    /// Ends all steps.
    PromoteFull,
    /// Sends all traffic back to the stable version.
    Abort,
    /// Starts a withdrawn version again from its first step.
    Retry,
    /// Pauses the rollout.
    Pause,
    /// Resumes the rollout.
    Resume,
}

impl RolloutCommand {
    fn annotation(self) -> &'static str {
        match self {
            Self::Promote => labels::PROMOTE,
            Self::PromoteFull => labels::PROMOTE_FULL,
            Self::Abort => labels::ABORT,
            Self::Retry => labels::RETRY,
            Self::Pause => labels::PAUSE,
            Self::Resume => labels::RESUME,
        }
    }

    fn name(self) -> &'static str {
        self.annotation().rsplit('/').next().unwrap_or_default()
    }

    /// The target of the command, determined from the current status.
    ///
    /// # Errors
    /// When the command has no possible target.
    fn target(self, status: &ModelDeploymentStatus) -> anyhow::Result<CommandTarget> {
        let Some(rollout) = &status.rollout else {
            bail!("nothing is rolled out: {}", status.message)
        };
        let is_aborted = rollout.stage == RolloutStage::Aborted;
        match self {
            Self::Retry if !is_aborted => bail!("nothing was taken back: {}", status.message),
            Self::Retry => {}
            _ if is_aborted => bail!("nothing is rolled out: {}", status.message),
            Self::Resume if rollout.paused_by.is_none() => {
                bail!(
                    "it is not held by `pause`; where spec.paused holds it, set that to false: {}",
                    status.message
                )
            }
            _ => {}
        }
        let step = (self == Self::Promote).then_some(rollout.step_index);
        Ok(CommandTarget { revision: rollout.revision.clone(), step })
    }
}

/// Sends a command and waits until the operator has handled it.
///
/// # Errors
/// When the command has no possible target, when the API server rejects it, or when it came too
/// late.
pub(crate) fn run_command(command: RolloutCommand, args: &TargetArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(send_command(command, args))
}

/// The client of the API server, and the namespace of the ModelDeployment.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub(crate) async fn connect_cluster(args: &TargetArgs) -> anyhow::Result<(Client, String)> {
    let options =
        KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let kubeconfig =
        Kubeconfig::read().context("no kubeconfig: set KUBECONFIG, or write ~/.kube/config")?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    if args.as_user.is_some() {
        config.auth_info.impersonate.clone_from(&args.as_user);
    }
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok((Client::try_from(config)?, namespace))
}

async fn send_command(command: RolloutCommand, args: &TargetArgs) -> anyhow::Result<()> {
    let (client, namespace) = connect_cluster(args).await?;
    let api: Api<ModelDeployment> = Api::namespaced(client.clone(), &namespace);
    let status = api.get(&args.name).await?.status.context("the operator has not seen it yet")?;
    let target = command.target(&status)?;
    let user = current_user(client).await?;
    let nonce = format!(
        "{:x}",
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros()
    );
    let value = CommandValue::format(&target, &nonce, &user);
    let body = json!({"metadata": {"annotations": {command.annotation(): value}}});
    api.patch(&args.name, &PatchParams::default(), &Patch::Merge(body)).await?;
    let is_handled = |object: Option<&ModelDeployment>| {
        let handled =
            object.and_then(|it| it.status.as_ref()?.handled_commands.get(command.annotation()));
        handled == Some(&value)
    };
    let handled = tokio::time::timeout(
        HANDLING_TIMEOUT,
        await_condition(api.clone(), &args.name, is_handled),
    )
    .await;
    let object = match handled {
        Ok(object) => object?.context("it is gone")?,
        Err(_) => api.get(&args.name).await?,
    };
    let status = object.status.clone().unwrap_or_default();
    let outcome = describe_outcome(command, &target, &user, is_handled(Some(&object)), &status)?;
    println!("modeldeployment/{} {outcome}", args.name);
    Ok(())
}

/// The name of the user that the API server authenticated.
async fn current_user(client: Client) -> anyhow::Result<String> {
    let api: Api<SelfSubjectReview> = Api::all(client);
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let info = review
        .context("the API server does not say who you are")?
        .status
        .and_then(|status| status.user_info);
    info.and_then(|info| info.username).context("the API server does not say who you are")
}

/// Describes the effect of a command.
fn describe_outcome(
    command: RolloutCommand,
    target: &CommandTarget,
    user: &str,
    is_handled: bool,
    status: &ModelDeploymentStatus,
) -> anyhow::Result<String> {
    let word = command.name();
    if !is_handled {
        return Ok(format!("{word}: noted, and not done yet: {}", status.message));
    }
    let of = |rollout: &RolloutStatus| rollout.revision == target.revision;
    let current =
        status.rollout.iter().filter(|rollout| of(rollout)).flat_map(|rollout| &rollout.commands);
    let past = status.history.iter().take(1).filter(|record| record.revision == target.revision);
    let is_ours = |record: &&CommandRecord| record.command == word && record.user == user;
    let done = current.chain(past.flat_map(|record| &record.commands)).rfind(is_ours);
    match done {
        Some(record) => Ok(format!("{word}: done at step {}: {}", record.step, status.message)),
        None => bail!("{word}: came too late, nothing was done: {}", status.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rollout: serde_json::Value) -> ModelDeploymentStatus {
        let mut all = json!({"message": "as it is"});
        if rollout.is_object() {
            let mut whole = json!({
                "revision": "0123456789", "stage": "Paused", "stepIndex": 2, "step": "3/4",
                "startTime": "2026-01-01T00:00:00Z", "stageStartTime": "2026-01-01T00:00:00Z",
            });
            whole.as_object_mut().unwrap().extend(rollout.as_object().unwrap().clone());
            all["rollout"] = whole;
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn commands_are_for_what_is_there() {
        let target = |step| CommandTarget { revision: "0123456789".to_owned(), step };
        let (running, aborted) = (status(json!({})), status(json!({"stage": "Aborted"})));
        assert_eq!(RolloutCommand::Promote.target(&running).unwrap(), target(Some(2)));
        for command in [RolloutCommand::PromoteFull, RolloutCommand::Abort, RolloutCommand::Pause] {
            assert_eq!(command.target(&running).unwrap(), target(None));
            assert!(command.target(&aborted).unwrap_err().to_string().contains("as it is"));
        }
        assert_eq!(RolloutCommand::Retry.target(&aborted).unwrap(), target(None));
        assert!(RolloutCommand::Retry.target(&running).is_err());
        assert!(
            RolloutCommand::Resume
                .target(&running)
                .unwrap_err()
                .to_string()
                .contains("spec.paused")
        );
        assert!(RolloutCommand::Resume.target(&status(json!({"pausedBy": "ann"}))).is_ok());
        assert!(RolloutCommand::Promote.target(&status(json!(null))).is_err());
    }

    #[test]
    fn a_command_that_came_too_late_is_an_error() {
        let target = CommandTarget { revision: "0123456789".to_owned(), step: Some(2) };
        let outcome_text = |handled, status: &ModelDeploymentStatus| {
            describe_outcome(RolloutCommand::Promote, &target, "ann", handled, status)
        };
        let record = json!({"command": "promote", "user": "ann", "step": "3/4", "time": "2026-01-01T00:00:00Z"});
        let done = status(json!({"commands": [record]}));
        assert!(outcome_text(true, &done).unwrap().contains("done at step 3/4"));
        assert!(
            outcome_text(true, &status(json!({}))).unwrap_err().to_string().contains("too late")
        );
        assert!(outcome_text(false, &status(json!({}))).unwrap().contains("not done yet"));
    }
}
