//! User commands: annotations whose value has not been handled yet.

use std::collections::BTreeMap;

use kube::ResourceExt;
use slipway_crds::commands::{CommandValue, UNKNOWN_USER};
use slipway_crds::labels::{self, PAUSE, RESUME};
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus, RolloutStage};

/// Commands that have not been handled yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingCommands(BTreeMap<&'static str, String>);

impl PendingCommands {
    /// The commands in the annotations that are not handled yet. For an object without a status all
    /// of them count as handled: a manifest that was copied or restored from a backup must not
    /// execute the old commands in it.
    pub fn for_object(object: &ModelDeployment) -> Self {
        let Some(status) = &object.status else { return Self::default() };
        let asked = labels::COMMANDS.into_iter().filter_map(|command| {
            let value = object.annotations().get(command)?;
            (status.handled_commands.get(command) != Some(value)).then(|| (command, value.clone()))
        });
        Self(asked.collect())
    }

    /// Whether there is no pending command.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a command is pending.
    pub fn has(&self, command: &str) -> bool {
        self.0.contains_key(command)
    }

    /// The parsed value of a pending command.
    pub(crate) fn value(&self, command: &str) -> Option<CommandValue> {
        self.0.get(command).map(|value| CommandValue::parse(value))
    }

    /// The user who gave a command.
    pub fn user(&self, command: &str) -> String {
        self.0
            .get(command)
            .map_or_else(|| UNKNOWN_USER.to_owned(), |value| CommandValue::parse(value).user)
    }

    /// Removes a command and records it as handled.
    pub fn handle(&mut self, command: &str, handled: &mut BTreeMap<String, String>) {
        if let Some(value) = self.0.remove(command) {
            handled.insert(command.to_owned(), value);
        }
    }

    /// Records all commands as handled.
    pub fn drop_all(&mut self, handled: &mut BTreeMap<String, String>) {
        for command in labels::COMMANDS {
            self.handle(command, handled);
        }
    }

    /// Drops the commands without a target when a rollout begins, because they were given for the
    /// previous state.
    pub fn drop_untargeted(&mut self, handled: &mut BTreeMap<String, String>) {
        for command in labels::COMMANDS {
            if self.0.get(command).is_some_and(|value| CommandValue::parse(value).target.is_none())
            {
                self.handle(command, handled);
            }
        }
    }
}

/// Records all annotated commands of a new object as handled.
pub fn mark_all_handled(object: &ModelDeployment, handled: &mut BTreeMap<String, String>) {
    for command in labels::COMMANDS {
        if let Some(value) = object.annotations().get(command) {
            handled.insert(command.to_owned(), value.clone());
        }
    }
}

/// Whether the command `pause` holds the rollout, including a `pause` that this plan handles. A
/// `resume` that is pending at the same time wins, because it lets traffic follow the spec.
pub(crate) fn is_held_by_command(
    object: &ModelDeployment,
    stored: &ModelDeploymentStatus,
    revision: &str,
) -> bool {
    let Some(rollout) = &stored.rollout else { return false };
    if rollout.revision != revision || rollout.stage == RolloutStage::Aborted {
        return false;
    }
    let pending = PendingCommands::for_object(object);
    let is_for_this = |command: &str| {
        let target = pending.0.get(command).map(|value| CommandValue::parse(value).target);
        target.is_some_and(|target| target.is_none_or(|target| target.revision == revision))
    };
    !is_for_this(RESUME) && (is_for_this(PAUSE) || rollout.paused_by.is_some())
}
