//! The status in the making.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crds::labels;
use slipway_crds::v1alpha1::{
    Backend, CommandRecord, GateStatus, Outcome, RolloutRecord, RolloutStatus, Stage, TrafficStatus,
};

use crate::command::Pending;
use crate::context::Context;
use crate::event::Note;
use crate::judge::Judgement;
use crate::text::clipped;
use crate::traffic;

/// Rollouts that are remembered.
const HISTORY: usize = 10;
/// Steps that are remembered of one rollout.
const STEPS: usize = 64;
/// Longest name of a user in the status.
const USER_CHARACTERS: usize = 256;
/// Commands that are remembered of one rollout.
const RECORDS: usize = 32;

/// A restart that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restart {
    /// `spec.restartTime`.
    pub(crate) asked: Timestamp,
    /// How it stands.
    pub(crate) state: RestartState,
}

/// How a restart stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RestartState {
    /// It begins when the rollout is over: what is compared is not changed meanwhile.
    AfterRollout,
    /// It goes on.
    Running {
        /// Pods that are new and ready.
        done: usize,
    },
    /// A new pod does not get ready. The others stay as they are.
    NotReady {
        /// Its name.
        pod: String,
        /// Since when it is there.
        since: Timestamp,
    },
    /// Our own disruption budget lets no ready pod go, ever.
    NoBudget,
}

/// What is decided so far.
pub(crate) struct Draft {
    /// The revision to which traffic returns; nothing before the first one was ready.
    pub(crate) stable: Option<String>,
    /// The weights.
    pub(crate) traffic: TrafficStatus,
    /// The rollout of the candidate; stays while that is taken back.
    pub(crate) rollout: Option<RolloutStatus>,
    /// Last verdicts.
    pub(crate) gates: Vec<GateStatus>,
    /// Rollouts that ended, newest first.
    pub(crate) history: Vec<RolloutRecord>,
    /// Commands that were carried out.
    pub(crate) handled: BTreeMap<String, String>,
    /// What the judge said, and of which generation of the weights.
    pub(crate) judged: Option<(i64, Judgement)>,
    /// A person wants the current step to end.
    pub(crate) skip: bool,
    /// What others keep changing, or keep from being as we want it: for people.
    pub(crate) contested: Vec<String>,
    /// What an admission webhook or policy makes of our objects: for people.
    pub(crate) overridden: Vec<String>,
    /// Images of the stable revision's pods that the operator was given others for since, each with the one of today.
    pub(crate) outdated: BTreeSet<(String, String)>,
    /// The newest restart that is over.
    pub(crate) restarted: Option<Time>,
    /// The restart that is not.
    pub(crate) restart: Option<Restart>,
    /// Events.
    pub(crate) events: Vec<Note>,
    /// Times at which something may change by itself.
    pub(crate) wakes: Vec<Timestamp>,
}

impl Draft {
    /// Begins with what is stored.
    pub(crate) fn new(cx: &Context<'_>, stable: Option<String>) -> Self {
        Self {
            stable,
            traffic: cx.stored.traffic.clone().unwrap_or_default(),
            rollout: cx.stored.rollout.clone(),
            gates: cx.stored.gates.clone(),
            history: cx.stored.history.clone(),
            handled: cx.stored.handled_commands.clone(),
            judged: None,
            skip: false,
            contested: Vec::new(),
            overridden: Vec::new(),
            outdated: BTreeSet::new(),
            restarted: cx.stored.restarted_time.clone(),
            restart: None,
            events: Vec::new(),
            wakes: Vec::new(),
        }
    }

    /// The revision on trial, or taken back last.
    pub(crate) fn candidate(&self) -> Option<&str> {
        self.rollout.as_ref().map(|rollout| rollout.revision.as_str())
    }

    /// The rollout, unless it was taken back.
    pub(crate) fn active(&self) -> Option<&RolloutStatus> {
        self.rollout.as_ref().filter(|rollout| rollout.stage != Stage::Aborted)
    }

    /// Index of the current step.
    pub(crate) fn step_index(&self) -> usize {
        self.rollout.as_ref().map_or(0, |rollout| usize::try_from(rollout.step_index).unwrap_or_default())
    }

    /// The current step among all, for people: `2/4`.
    pub(crate) fn step_label(&self, cx: &Context<'_>) -> String {
        let steps = cx.spec.steps.len();
        format!("{}/{steps}", self.step_index().saturating_add(1).min(steps))
    }

    /// The candidate's share as asked for, in thousandths.
    pub(crate) fn weight(&self) -> i32 {
        self.candidate().map_or(0, |candidate| traffic::weight_of(&self.traffic, candidate))
    }

    /// Writes weights; see [`traffic::write`].
    pub(crate) fn write(&mut self, cx: &Context<'_>, backends: Vec<Backend>, preview: Option<String>) -> bool {
        traffic::write(&mut self.traffic, backends, preview, &cx.observed.gateway)
    }

    /// Sends everything to the stable revision.
    pub(crate) fn all_to_stable(&mut self, cx: &Context<'_>) {
        if let Some(stable) = self.stable.clone() {
            self.write(cx, traffic::only(&stable), None);
        }
    }

    /// Enters a stage of a step now.
    pub(crate) fn enter(&mut self, cx: &Context<'_>, index: usize, stage: Stage) {
        if let Some(rollout) = &mut self.rollout {
            rollout.step_index = i32::try_from(index).unwrap_or(i32::MAX);
            rollout.stage = stage;
            rollout.stage_start_time = Time(cx.stamp());
        }
    }

    /// Ends the record of the step, if it is still open.
    pub(crate) fn close_step(&mut self, cx: &Context<'_>, verdict: &str) {
        let share = self.candidate().and_then(|it| traffic::observed_share(&cx.observed.gateway, &self.traffic, it));
        let last = self.rollout.as_mut().and_then(|rollout| rollout.steps.last_mut());
        if let Some(record) = last.filter(|record| record.end_time.is_none()) {
            record.end_time = Some(Time(cx.stamp()));
            record.observed_permille = share;
            record.verdict = clipped(verdict);
        }
    }

    /// Puts the rollout into the history.
    pub(crate) fn record(&mut self, cx: &Context<'_>, outcome: Outcome, reason: &str, message: &str) {
        let Some(rollout) = &self.rollout else { return };
        let record = RolloutRecord {
            revision: rollout.revision.clone(),
            version: cx.version(&rollout.revision),
            outcome,
            reason: reason.to_owned(),
            message: clipped(message),
            start_time: rollout.start_time.clone(),
            end_time: Time(cx.stamp()),
            steps: rollout.steps.iter().take(STEPS).cloned().collect(),
            commands: rollout.commands.clone(),
        };
        self.history.insert(0, record);
        self.history.truncate(HISTORY);
    }

    /// Takes out a command that takes effect: the rollout remembers whose it was.
    pub(crate) fn obey(&mut self, cx: &Context<'_>, pending: &mut Pending, command: &str) {
        let record = CommandRecord {
            command: command.rsplit('/').next().unwrap_or_default().to_owned(),
            user: pending.user(command).chars().take(USER_CHARACTERS).collect(),
            step: self.step_label(cx),
            time: Time(cx.stamp()),
        };
        pending.handle(command, &mut self.handled);
        if let Some(rollout) = &mut self.rollout {
            rollout.commands.push(record);
            let surplus = rollout.commands.len().saturating_sub(RECORDS);
            rollout.commands.drain(..surplus);
        }
    }

    /// Drops commands that are for another revision or step than the current one, and tells people.
    pub(crate) fn drop_late(&mut self, pending: &mut Pending) {
        let current = self.rollout.as_ref().map(|rollout| (rollout.revision.clone(), rollout.step_index));
        for command in labels::COMMANDS {
            let Some(value) = pending.value(command) else { continue };
            let Some(target) = value.target else { continue };
            let is_current = current.as_ref().is_some_and(|(revision, step)| {
                *revision == target.revision && target.step.is_none_or(|asked| asked == *step)
            });
            if !is_current {
                pending.handle(command, &mut self.handled);
                let step = target.step.map_or_else(String::new, |step| format!(", step {}", i64::from(step) + 1));
                let note = format!(
                    "{command} by {} was for revision {}{step}, which is not the current one; nothing was done",
                    value.user, target.revision
                );
                self.note(true, "CommandIgnored", "Command", &note);
            }
        }
    }

    /// An event for people.
    pub(crate) fn note(&mut self, warning: bool, reason: &str, action: &str, note: &str) {
        self.events.push(Note { warning, reason: reason.to_owned(), action: action.to_owned(), note: clipped(note) });
    }

    /// Looks again at a time.
    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.wakes.push(at);
    }
}
