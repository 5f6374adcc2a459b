//! The status and events under construction.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{
    CommandRecord, GateStatus, RolloutOutcome, RolloutRecord, RolloutStage, RolloutStatus,
    TrafficBackend, TrafficStatus,
};
use slipway_judge::Judgement;

use crate::command::PendingCommands;
use crate::context::PlanContext;
use crate::event::PlannedEvent;
use crate::text::clip_message;
use crate::traffic;
use crate::wake_times::WakeTimes;

/// Maximum number of rollouts in the history.
const HISTORY: usize = 10;
/// Maximum number of recorded steps of one rollout.
const STEPS: usize = 64;
/// Maximum length of a user name in the status, in characters.
const USER_CHARACTERS: usize = 256;
/// Maximum number of recorded commands of one rollout.
const RECORDS: usize = 32;

/// A restart that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActiveRestart {
    /// Value of `spec.restartTime`.
    pub(crate) requested_at: Timestamp,
    pub(crate) state: RestartState,
}

/// State of a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RestartState {
    /// It begins after the rollout, so that the compared revisions do not change during it.
    AfterRollout,
    /// Pods are being replaced.
    Running {
        /// Number of pods that are new and ready.
        done: usize,
    },
    /// A new pod does not become ready. The other pods are not replaced.
    NotReady {
        pod: String,
        /// Creation time of the pod.
        since: Timestamp,
    },
    /// The ModelDeployment's own disruption budget never allows the eviction of a ready pod.
    NoBudget,
}

/// The decisions made so far.
pub(crate) struct PlanDraft {
    /// The revision to which traffic returns; `None` before the first one was ready.
    pub(crate) stable: Option<String>,
    pub(crate) traffic: TrafficStatus,
    /// The rollout of the candidate; kept after the candidate was rolled back.
    pub(crate) rollout: Option<RolloutStatus>,
    /// The last verdict of each gate.
    pub(crate) gates: Vec<GateStatus>,
    /// Finished rollouts, newest first.
    pub(crate) history: Vec<RolloutRecord>,
    /// Commands that were handled.
    pub(crate) handled_commands: BTreeMap<String, String>,
    /// The judgement, and the generation of the weights to which it applies.
    pub(crate) judgement: Option<(i64, Judgement)>,
    /// A user requested the end of the current step.
    pub(crate) skip: bool,
    /// Objects that other clients keep changing or deleting, as messages.
    pub(crate) contested_objects: Vec<String>,
    /// Objects that an admission webhook or policy changes, as messages.
    pub(crate) overridden_objects: Vec<String>,
    /// Images of the stable revision's pods that differ from the operator's current settings, each
    /// with the current one.
    pub(crate) outdated_images: BTreeSet<(String, String)>,
    /// The newest finished restart.
    pub(crate) last_restart: Option<Time>,
    /// The unfinished restart.
    pub(crate) restart: Option<ActiveRestart>,
    pub(crate) events: Vec<PlannedEvent>,
    /// Times at which a decision may change without any event.
    pub(crate) wake_times: WakeTimes,
}

impl PlanDraft {
    /// A draft with the contents of the stored status.
    pub(crate) fn new(cx: &PlanContext<'_>, stable: Option<String>) -> Self {
        Self {
            stable,
            traffic: cx.stored_status.traffic.clone().unwrap_or_default(),
            rollout: cx.stored_status.rollout.clone(),
            gates: cx.stored_status.gates.clone(),
            history: cx.stored_status.history.clone(),
            handled_commands: cx.stored_status.handled_commands.clone(),
            judgement: None,
            skip: false,
            contested_objects: Vec::new(),
            overridden_objects: Vec::new(),
            outdated_images: BTreeSet::new(),
            last_restart: cx.stored_status.restarted_time.clone(),
            restart: None,
            events: Vec::new(),
            wake_times: WakeTimes::default(),
        }
    }

    /// The revision on trial, or the last one that was rolled back.
    pub(crate) fn candidate(&self) -> Option<&str> {
        self.rollout.as_ref().map(|rollout| rollout.revision.as_str())
    }

    /// The rollout, unless it was rolled back.
    pub(crate) fn active_rollout(&self) -> Option<&RolloutStatus> {
        self.rollout.as_ref().filter(|rollout| rollout.stage != RolloutStage::Aborted)
    }

    /// Index of the current step.
    pub(crate) fn step_index(&self) -> usize {
        self.rollout
            .as_ref()
            .map_or(0, |rollout| usize::try_from(rollout.step_index).unwrap_or_default())
    }

    /// The current step and the number of steps, for display: `2/4`.
    pub(crate) fn step_label(&self, cx: &PlanContext<'_>) -> String {
        let steps = cx.spec.steps.len();
        format!("{}/{steps}", self.step_index().saturating_add(1).min(steps))
    }

    /// The requested weight of the candidate, in thousandths.
    pub(crate) fn weight(&self) -> i32 {
        self.candidate().map_or(0, |candidate| traffic::weight_of(&self.traffic, candidate))
    }

    /// Writes weights; see [`traffic::write_weights`].
    pub(crate) fn write_weights(
        &mut self,
        cx: &PlanContext<'_>,
        backends: Vec<TrafficBackend>,
        preview: Option<String>,
    ) -> bool {
        traffic::write_weights(&mut self.traffic, backends, preview, &cx.observed.gateway)
    }

    /// Sends all traffic to the stable revision.
    pub(crate) fn all_to_stable(&mut self, cx: &PlanContext<'_>) {
        if let Some(stable) = self.stable.clone() {
            self.write_weights(cx, traffic::stable_only(&stable), None);
        }
    }

    /// Enters a stage of a step at the current time.
    pub(crate) fn enter_stage(&mut self, cx: &PlanContext<'_>, index: usize, stage: RolloutStage) {
        if let Some(rollout) = &mut self.rollout {
            rollout.step_index = i32::try_from(index).unwrap_or(i32::MAX);
            rollout.stage = stage;
            rollout.stage_start_time = Time(cx.now_seconds());
        }
    }

    /// Closes the record of the step if it is still open.
    pub(crate) fn close_step(&mut self, cx: &PlanContext<'_>, verdict: &str) {
        let share = self
            .candidate()
            .and_then(|it| traffic::observed_share(&cx.observed.gateway, &self.traffic, it));
        let last = self.rollout.as_mut().and_then(|rollout| rollout.steps.last_mut());
        if let Some(record) = last.filter(|record| record.end_time.is_none()) {
            record.end_time = Some(Time(cx.now_seconds()));
            record.observed_permille = share;
            record.verdict = clip_message(verdict);
        }
    }

    /// Adds the rollout to the history.
    pub(crate) fn record_rollout(
        &mut self,
        cx: &PlanContext<'_>,
        outcome: RolloutOutcome,
        reason: &str,
        message: &str,
    ) {
        let Some(rollout) = &self.rollout else { return };
        let record = RolloutRecord {
            revision: rollout.revision.clone(),
            version: cx.version(&rollout.revision),
            outcome,
            reason: reason.to_owned(),
            message: clip_message(message),
            start_time: rollout.start_time.clone(),
            end_time: Time(cx.now_seconds()),
            steps: rollout.steps.iter().take(STEPS).cloned().collect(),
            commands: rollout.commands.clone(),
        };
        self.history.insert(0, record);
        self.history.truncate(HISTORY);
    }

    /// Removes a command that takes effect, and records it with its user in the rollout.
    pub(crate) fn record_command(
        &mut self,
        cx: &PlanContext<'_>,
        pending: &mut PendingCommands,
        command: &str,
    ) {
        let record = CommandRecord {
            command: command.rsplit('/').next().unwrap_or_default().to_owned(),
            user: pending.user(command).chars().take(USER_CHARACTERS).collect(),
            step: self.step_label(cx),
            time: Time(cx.now_seconds()),
        };
        pending.handle(command, &mut self.handled_commands);
        if let Some(rollout) = &mut self.rollout {
            rollout.commands.push(record);
            let surplus = rollout.commands.len().saturating_sub(RECORDS);
            rollout.commands.drain(..surplus);
        }
    }

    /// Drops commands for another revision or step than the current one, and publishes an event for
    /// each.
    pub(crate) fn drop_stale_commands(&mut self, pending: &mut PendingCommands) {
        let current =
            self.rollout.as_ref().map(|rollout| (rollout.revision.clone(), rollout.step_index));
        for command in labels::COMMANDS {
            let Some(value) = pending.value(command) else { continue };
            let Some(target) = value.target else { continue };
            let is_current = current.as_ref().is_some_and(|(revision, step)| {
                *revision == target.revision && target.step.is_none_or(|asked| asked == *step)
            });
            if !is_current {
                pending.handle(command, &mut self.handled_commands);
                let step = target
                    .step
                    .map_or_else(String::new, |step| format!(", step {}", i64::from(step) + 1));
                let note = format!(
                    "{command} by {} was for revision {}{step}, which is not the current one; nothing was done",
                    value.user, target.revision
                );
                self.add_event(true, "CommandIgnored", "Command", &note);
            }
        }
    }

    pub(crate) fn add_event(&mut self, warning: bool, reason: &str, action: &str, note: &str) {
        self.events.push(PlannedEvent {
            warning,
            reason: reason.to_owned(),
            action: action.to_owned(),
            note: clip_message(note),
        });
    }

    /// Requests another plan at a time.
    pub(crate) fn wake_at(&self, at: Timestamp) {
        self.wake_times.note(at);
    }
}
