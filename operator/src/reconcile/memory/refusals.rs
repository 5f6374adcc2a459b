//! Rejected writes, by object. They are an input of the next plan, so that its status stays the
//! same while nothing changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use slipway_core::refusal::{RefusalCause, RefusalReport, WriteTarget};

use crate::apply::WriteError;
use crate::reconcile::memory::backoff;
use crate::reconcile::memory::object::{ObjectMemories, RefusalsByTarget, RefusedWrite};

/// Number of consecutive failures after which even a temporary fault is shown to the user.
const SHOWN_AFTER_FAILURES: u32 = 5;

/// The writes of one plan.
pub struct WriteRound {
    uid: String,
    before: RefusalsByTarget,
    now: RefusalsByTarget,
}

impl WriteRound {
    /// Whether a write is worth trying: one that was refused just now is not, whatever else asks
    /// for a new plan meanwhile.
    pub fn is_due(&mut self, target: &WriteTarget, now: Instant) -> bool {
        let Some(waits) = self.before.get(target).filter(|it| it.due > now) else { return true };
        self.now.insert(target.clone(), waits.clone());
        false
    }

    /// Whether a write has failed already, or waits after it did.
    pub fn has_failed(&self, target: &WriteTarget) -> bool {
        self.now.contains_key(target)
    }

    /// Notes a failure.
    pub fn record_failure(&mut self, target: WriteTarget, error: &WriteError, now: Instant) {
        let failures = self.before.get(&target).map_or(0, |it| it.failures).saturating_add(1);
        // A budget that holds a pod is told at once, as a reason to wait.
        let held = error.fault.refusal_cause() == RefusalCause::Budget;
        let shown = held || error.fault.needs_user_action() || failures >= SHOWN_AFTER_FAILURES;
        let due = now + backoff::retry_delay(failures, rand::random());
        let report = shown.then(|| error.to_report());
        self.now.insert(target, RefusedWrite { failures, due, report });
    }

    /// Stores the failed and delayed writes. Earlier entries that were not attempted are no longer
    /// wanted, and those attempted without failure are done. Returns the delay until the next write
    /// is due.
    pub fn finish(self, memories: &ObjectMemories, now: Instant) -> Option<Duration> {
        let next = self.now.values().map(|it| it.due.saturating_duration_since(now)).min();
        memories.lock().entry(self.uid).or_default().refusals = Some(self.now);
        next
    }
}

impl ObjectMemories {
    /// Starts the execution of a plan.
    pub fn start_round(&self, uid: &str) -> WriteRound {
        let before = self.lock().get(uid).and_then(|it| it.refusals.clone()).unwrap_or_default();
        WriteRound { uid: uid.to_owned(), before, now: RefusalsByTarget::new() }
    }

    /// What the status shows; nothing before the first plan of this process was carried out.
    pub fn refusal_reports(&self, uid: &str) -> Option<BTreeMap<WriteTarget, RefusalReport>> {
        let all = self.lock();
        let of = all.get(uid)?.refusals.as_ref()?;
        Some(
            of.iter()
                .filter_map(|(target, it)| Some((target.clone(), it.report.clone()?)))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::WriteFault;

    type Fails = Option<fn() -> WriteFault>;

    fn target(name: &str) -> WriteTarget {
        WriteTarget { verb: "apply", kind: "Service", name: name.to_owned() }
    }

    fn error(fault: WriteFault) -> WriteError {
        WriteError { verb: "apply", kind: "Service", name: "m".into(), fault }
    }

    /// Attempts targets at a given time; each failing target has a fault.
    fn try_all(
        refusals: &ObjectMemories,
        now: Instant,
        targets: &[(&str, Fails)],
    ) -> Option<Duration> {
        let mut round = refusals.start_round("u");
        for (name, fault) in targets {
            if round.is_due(&target(name), now)
                && let Some(fault) = fault
            {
                round.record_failure(target(name), &error(fault()), now);
            }
        }
        round.finish(refusals, now)
    }

    fn shown(refusals: &ObjectMemories) -> Vec<String> {
        refusals.refusal_reports("u").unwrap().into_keys().map(|it| it.name).collect()
    }

    const FORBIDDEN: Fails = Some(|| WriteFault::Forbidden("no".into()));
    const SERVER: Fails = Some(|| WriteFault::Server("x".into()));

    #[test]
    fn what_a_person_must_mend_is_shown_until_it_succeeds() {
        let (refusals, start) = (ObjectMemories::default(), Instant::now());
        assert_eq!(refusals.refusal_reports("u"), None, "nothing was tried yet");
        let wait = try_all(&refusals, start, &[("a", FORBIDDEN), ("b", None)]).unwrap();
        assert_eq!(shown(&refusals), ["a"]);
        try_all(&refusals, start, &[("a", None)]);
        assert_eq!(shown(&refusals), ["a"], "it is not tried again at once");
        assert_eq!(try_all(&refusals, start + wait, &[("a", None)]), None);
        assert!(shown(&refusals).is_empty());
        try_all(&refusals, start, &[("a", FORBIDDEN)]);
        try_all(&refusals, start, &[]);
        assert!(shown(&refusals).is_empty(), "it is not wanted any more");
    }

    #[test]
    fn what_may_pass_is_shown_when_it_does_not() {
        let (refusals, mut now) = (ObjectMemories::default(), Instant::now());
        for failures in 1..=SHOWN_AFTER_FAILURES {
            now += try_all(&refusals, now, &[("a", SERVER)]).unwrap();
            assert_eq!(shown(&refusals).len(), usize::from(failures == SHOWN_AFTER_FAILURES));
        }
    }

    #[test]
    fn a_lasting_refusal_costs_one_request_a_minute() {
        let (refusals, start) = (ObjectMemories::default(), Instant::now());
        let mut tried = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            tried += u32::from(refusals.start_round("u").is_due(&target("a"), now));
            try_all(&refusals, now, &[("a", FORBIDDEN)]);
        }
        assert!((50..100).contains(&tried), "{tried}");
    }
}
