//! Writes that are refused, by object: an input of the next plan, so that its status says the same for as long as nothing changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff;
use crate::error::{Fault, WriteError};

/// Failures in a row after which even a fault that may pass is shown to people.
const PATIENT_FAILURES: u32 = 5;

#[derive(Clone)]
struct Refusal {
    failures: u32,
    /// When to try again.
    due: Instant,
    /// What people are told; nothing while it may pass.
    message: Option<String>,
}

type ByTarget = BTreeMap<String, Refusal>;

/// By UID of the ModelDeployment, then by verb, kind and name of what was written to.
#[derive(Default)]
pub struct Refusals {
    all: Mutex<HashMap<String, ByTarget>>,
}

/// The writes of one plan.
pub struct Round {
    uid: String,
    before: ByTarget,
    now: ByTarget,
}

impl Round {
    /// Whether a write is worth trying: one that was refused just now is not, whatever else asks for a new plan meanwhile.
    pub fn is_due(&mut self, target: &str, now: Instant) -> bool {
        let Some(waits) = self.before.get(target).filter(|it| it.due > now) else { return true };
        self.now.insert(target.to_owned(), waits.clone());
        false
    }

    /// Whether a write has failed already, or waits after it did.
    pub fn has_failed(&self, target: &str) -> bool {
        self.now.contains_key(target)
    }

    /// Notes a failure.
    pub fn failed(&mut self, target: &str, error: &WriteError, now: Instant) {
        let failures = self.before.get(target).map_or(0, |it| it.failures).saturating_add(1);
        // A budget that holds a pod is told at once, as a reason to wait.
        let held = matches!(error.fault, Fault::Budget(_));
        let shown = held || error.fault.needs_person() || failures >= PATIENT_FAILURES;
        let due = now + backoff::delay(failures, rand::random());
        let message = shown.then(|| error.to_string());
        self.now.insert(target.to_owned(), Refusal { failures, due, message });
    }

    /// Keeps what failed and what waits. What was not tried is not wanted any more, what was tried and did not fail is done. Gives how long the next one has
    /// to wait.
    pub fn end(self, refusals: &Refusals, now: Instant) -> Option<Duration> {
        let next = self.now.values().map(|it| it.due.saturating_duration_since(now)).min();
        refusals.lock().insert(self.uid, self.now);
        next
    }
}

impl Refusals {
    /// Begins to carry out a plan.
    pub fn round(&self, uid: &str) -> Round {
        let before = self.lock().get(uid).cloned().unwrap_or_default();
        Round { uid: uid.to_owned(), before, now: ByTarget::new() }
    }

    /// What people are told, by target; nothing before the first plan of this process was carried out.
    pub fn shown(&self, uid: &str) -> Option<BTreeMap<String, String>> {
        let all = self.lock();
        let of = all.get(uid)?;
        Some(of.iter().filter_map(|(target, it)| Some((target.clone(), it.message.clone()?))).collect())
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ByTarget>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fails = Option<fn() -> Fault>;

    fn error(fault: Fault) -> WriteError {
        WriteError { verb: "apply", kind: "Service", name: "m".into(), fault }
    }

    /// Tries targets at a time: those that fail, by their fault.
    fn try_all(refusals: &Refusals, now: Instant, targets: &[(&str, Fails)]) -> Option<Duration> {
        let mut round = refusals.round("u");
        for (target, fault) in targets {
            if round.is_due(target, now)
                && let Some(fault) = fault
            {
                round.failed(target, &error(fault()), now);
            }
        }
        round.end(refusals, now)
    }

    fn shown(refusals: &Refusals) -> Vec<String> {
        refusals.shown("u").unwrap().into_keys().collect()
    }

    const FORBIDDEN: Fails = Some(|| Fault::Forbidden("no".into()));
    const SERVER: Fails = Some(|| Fault::Server("x".into()));

    #[test]
    fn what_a_person_must_mend_is_shown_until_it_succeeds() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.shown("u"), None, "nothing was tried yet");
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
        let (refusals, mut now) = (Refusals::default(), Instant::now());
        for failures in 1..=PATIENT_FAILURES {
            now += try_all(&refusals, now, &[("a", SERVER)]).unwrap();
            assert_eq!(shown(&refusals).len(), usize::from(failures == PATIENT_FAILURES));
        }
    }

    #[test]
    fn a_lasting_refusal_costs_one_request_a_minute() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let mut tried = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            tried += u32::from(refusals.round("u").is_due("a", now));
            try_all(&refusals, now, &[("a", FORBIDDEN)]);
        }
        assert!((50..100).contains(&tried), "{tried}");
    }
}
