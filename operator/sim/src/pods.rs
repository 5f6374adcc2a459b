//! ReplicaSets, their controller and the kubelet: with delays, crashes and evictions.

use slipway_core::observed::{PodProblem, ReplicaSetView};

use crate::rng::Rng;
use crate::truth::Truth;

/// A ReplicaSet with its pods.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// As the API server shows it; counts lag.
    pub(crate) view: ReplicaSetView,
    /// Pods that are not being deleted.
    pub(crate) pods: Vec<Pod>,
    /// How its version behaves.
    pub(crate) truth: Truth,
    generation: u64,
    seen: u64,
    created: u32,
}

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    name: String,
    ready: bool,
    /// When it becomes ready, or fails again.
    next: i64,
    restarts: i32,
    message: Option<&'static str>,
}

impl Set {
    pub(crate) fn new(view: ReplicaSetView, truth: Truth) -> Self {
        Self { view, pods: Vec::new(), truth, generation: 1, seen: 0, created: 0 }
    }

    /// Pods that answer now.
    pub(crate) fn ready(&self) -> usize {
        self.pods.iter().filter(|pod| pod.ready).count()
    }

    pub(crate) fn scale(&mut self, replicas: i32) {
        if self.view.desired != replicas {
            self.view.desired = replicas;
            self.generation += 1;
            self.view.observed = false;
        }
    }

    /// A node drain, or a kubelet that died: one pod is gone.
    pub(crate) fn evict(&mut self, rng: &mut Rng) -> bool {
        if self.pods.is_empty() {
            return false;
        }
        let index = rng.between(0, self.pods.len() as i64 - 1) as usize;
        self.pods.remove(index);
        true
    }

    /// One second of the kubelet and of the ReplicaSet controller. True when the API server shows something new.
    pub(crate) fn tick(&mut self, now: i64, rng: &mut Rng) -> bool {
        let truth = self.truth;
        let restarts = |set: &Self| set.pods.iter().map(|pod| pod.restarts).sum::<i32>();
        let before = restarts(self);
        for pod in &mut self.pods {
            pod.tick(now, &truth, rng);
        }
        let failed = restarts(self) != before;
        if rng.chance(0.8) {
            self.control(now, rng);
            let before = self.view.clone();
            self.view.current = self.pods.len() as i32;
            self.view.ready = self.ready() as i32;
            self.view.available = self.view.ready;
            self.view.observed = self.seen == self.generation;
            return failed || before != self.view;
        }
        failed
    }

    fn control(&mut self, now: i64, rng: &mut Rng) {
        let want = self.view.desired.max(0) as usize;
        while self.pods.len() < want {
            self.created += 1;
            let name = format!("{}-{}", self.view.name, self.created);
            let next = now + self.truth.start + rng.between(0, 3);
            self.pods.push(Pod { name, ready: false, next, restarts: 0, message: None });
        }
        // The controller prefers to delete what is not ready.
        self.pods.sort_by_key(|pod| !pod.ready);
        self.pods.truncate(want);
        self.seen = self.generation;
    }

    /// What keeps its pods from running.
    pub(crate) fn problems(&self) -> impl Iterator<Item = PodProblem> + '_ {
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

impl Pod {
    fn tick(&mut self, now: i64, truth: &Truth, rng: &mut Rng) {
        if self.ready {
            if truth.crash > 0.0 && rng.chance(truth.crash) {
                self.fail(now, "exit 137");
            }
        } else if now >= self.next {
            match truth.load {
                Some(line) => self.fail(now, line),
                None => (self.ready, self.message) = (true, None),
            }
        }
    }

    fn fail(&mut self, now: i64, message: &'static str) {
        self.ready = false;
        self.restarts += 1;
        self.message = Some(message);
        self.next = now + (5 * i64::from(self.restarts)).min(40);
    }
}
