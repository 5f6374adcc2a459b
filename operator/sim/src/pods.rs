//! ReplicaSets, their controller and the kubelet, with delays, crashes and evictions.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use slipway_core::observed::{FetchedModel, ModelDigest, PodProblem, PodView, ReplicaSetView};

use crate::behavior::ModelBehavior;
use crate::clock::START;
use crate::rng::SeededRng;

/// A ReplicaSet with its pods.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedReplicaSet {
    /// The object in the API server; its counts lag.
    pub(crate) view: ReplicaSetView,
    /// Pods that are not being deleted.
    pub(crate) pods: Vec<SimulatedPod>,
    /// The behaviour of its version.
    pub(crate) behavior: ModelBehavior,
    /// Whether the spec names the digest of its model; the model at the URI then has this digest.
    is_pinned_by_spec: bool,
    /// When its model was unknown last.
    unknown_at: Option<i64>,
    generation: u64,
    observed_generation: u64,
    pods_created: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct SimulatedPod {
    name: String,
    created_at: i64,
    ready: bool,
    /// The digest that it must find; `None` accepts any.
    pin: Option<String>,
    /// The digest of the fetched model.
    fetched_digest: Option<String>,
    /// Time at which it becomes ready, or fails again.
    next_change: i64,
    restarts: i32,
    message: Option<&'static str>,
}

/// The message of a pod that finds another model than that of its revision.
const MISMATCH: &str =
    r#"{"reason":"DigestMismatch","message":"the store has other bytes","permanent":true}"#;

impl SimulatedReplicaSet {
    pub(crate) fn new(view: ReplicaSetView, truth: ModelBehavior) -> Self {
        let fixed = view.digest.known_digest().is_some();
        Self {
            view,
            pods: Vec::new(),
            behavior: truth,
            is_pinned_by_spec: fixed,
            unknown_at: None,
            generation: 1,
            observed_generation: 0,
            pods_created: 0,
        }
    }

    /// Number of ready pods.
    pub(crate) fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| pod.ready).count()
    }

    pub(crate) fn scale(&mut self, replicas: i32) {
        if self.view.desired != replicas {
            self.view.desired = replicas;
            self.generation += 1;
            self.view.is_observed = false;
        }
    }

    /// One pod disappears, by a node drain or a failed kubelet.
    pub(crate) fn evict(&mut self, rng: &mut SeededRng) -> bool {
        if self.pods.is_empty() {
            return false;
        }
        let index = rng.between(0, self.pods.len() as i64 - 1) as usize;
        self.pods.remove(index);
        true
    }

    /// The pods as a watch reports them; the UID of each is its name.
    pub(crate) fn pod_views(&self) -> impl Iterator<Item = PodView> + '_ {
        self.pods.iter().map(|pod| PodView {
            name: pod.name.clone(),
            uid: pod.name.clone(),
            replica_set_uid: Some(self.view.uid.clone()),
            created_at: START + SignedDuration::from_secs(pod.created_at),
            ready: pod.ready,
            deleting: false,
        })
    }

    /// The Eviction subresource, with a budget of one pod: false if the budget blocks the eviction.
    /// A pod that is not ready may always be evicted.
    pub(crate) fn try_evict(&mut self, name: &str) -> Option<bool> {
        let index = self.pods.iter().position(|pod| pod.name == name)?;
        let missing = self.view.desired - self.ready() as i32;
        let goes = !self.pods[index].ready || missing < 1;
        if goes {
            self.pods.remove(index);
        }
        Some(goes)
    }

    /// Simulates one second of the kubelet and of the ReplicaSet controller. `stored` is the digest
    /// of the model at the URI, used if the spec names none. Returns whether the API server reports
    /// a change.
    pub(crate) fn tick(&mut self, now: i64, stored: &str, rng: &mut SeededRng) -> bool {
        let truth = self.behavior;
        let restarts = |set: &Self| set.pods.iter().map(|pod| pod.restarts).sum::<i32>();
        let before = restarts(self);
        for pod in &mut self.pods {
            pod.tick(now, &truth, if self.is_pinned_by_spec { None } else { Some(stored) }, rng);
        }
        let failed = restarts(self) != before;
        if self.is_unknown() {
            self.unknown_at = Some(now);
        }
        if rng.chance(0.8) {
            self.reconcile_pods(now, rng);
            let before = self.view.clone();
            self.view.current = self.pods.len() as i32;
            self.view.ready = self.ready() as i32;
            self.view.available = self.view.ready;
            self.view.is_observed = self.observed_generation == self.generation;
            return failed || before != self.view;
        }
        failed
    }

    fn reconcile_pods(&mut self, now: i64, rng: &mut SeededRng) {
        let want = self.view.desired.max(0) as usize;
        while self.pods.len() < want {
            self.pods_created += 1;
            let name = format!("{}-{}", self.view.name, self.pods_created);
            let next = now + self.behavior.start + rng.between(0, 3);
            let pin = self.view.digest.known_digest().map(str::to_owned);
            self.pods.push(SimulatedPod {
                name,
                created_at: now,
                ready: false,
                pin,
                fetched_digest: None,
                next_change: next,
                restarts: 0,
                message: None,
            });
        }
        // The controller prefers to delete pods that are not ready.
        self.pods.sort_by_key(|pod| !pod.ready);
        self.pods.truncate(want);
        self.observed_generation = self.generation;
    }

    /// Sets the digest of future pods.
    pub(crate) fn pin(&mut self, digest: &str) {
        self.view.digest = ModelDigest::Pinned(digest.to_owned());
    }

    /// Whether the model has been known for `seconds`; otherwise the ReplicaSet may have fewer pods
    /// than its share of the traffic needs.
    pub(crate) fn is_known(&self, now: i64, seconds: i64) -> bool {
        self.unknown_at.is_none_or(|at| now >= at + seconds)
    }

    /// Whether no pod has the model that all pods must have: no pod can be copied, and the model at
    /// the URI may have changed.
    fn is_unknown(&self) -> bool {
        let pin = self.view.digest.known_digest();
        let is_stored =
            pin.is_some() && self.pods.iter().any(|pod| pod.fetched_digest.as_deref() == pin);
        !self.is_pinned_by_spec && !is_stored && self.view.desired <= 1
    }

    /// The models that its pods have fetched.
    pub(crate) fn fetched_models(&self) -> impl Iterator<Item = FetchedModel> + '_ {
        self.pods.iter().filter_map(|pod| {
            let (revision, digest) = (self.view.revision.clone(), pod.fetched_digest.clone()?);
            Some(FetchedModel { revision, pod: pod.name.clone(), digest })
        })
    }

    /// Digests of the models that its ready pods serve.
    pub(crate) fn served_digests(&self) -> BTreeSet<&str> {
        self.pods
            .iter()
            .filter(|pod| pod.ready)
            .filter_map(|pod| pod.fetched_digest.as_deref())
            .collect()
    }

    /// What keeps its pods from running.
    pub(crate) fn pod_problems(&self) -> impl Iterator<Item = PodProblem> + '_ {
        self.pods.iter().filter_map(|pod| {
            Some(PodProblem {
                revision: self.view.revision.clone(),
                pod: pod.name.clone(),
                reason: "CrashLoopBackOff".to_owned(),
                message: pod.message?.to_owned(),
                restarts: pod.restarts,
            })
        })
    }
}

impl SimulatedPod {
    fn tick(&mut self, now: i64, truth: &ModelBehavior, stored: Option<&str>, rng: &mut SeededRng) {
        if self.ready {
            if truth.crash > 0.0 && rng.chance(truth.crash) {
                self.fail(now, "exit 137");
            }
        } else if now >= self.next_change {
            // A model that was fetched stays with the pod.
            let found = self.fetched_digest.as_deref().or(stored).or(self.pin.as_deref());
            let other = self.pin.is_some() && self.pin.as_deref() != found;
            match truth.load_failure {
                Some(line) => self.fail(now, line),
                None if other => self.fail(now, MISMATCH),
                None => {
                    self.fetched_digest = found.map(str::to_owned);
                    (self.ready, self.message) = (true, None);
                }
            }
        }
    }

    fn fail(&mut self, now: i64, message: &'static str) {
        self.ready = false;
        self.restarts += 1;
        self.message = Some(message);
        self.next_change = now + (5 * i64::from(self.restarts)).min(40);
    }
}
