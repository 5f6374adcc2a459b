//! The subjects of a queue on JetStream.
//!
//! | subject | what |
//! |---|---|
//! | `<queue>.work.<priority>.<id>` | an entry: the job's JSON. Other producers publish here |
//! | `<queue>.job.<id>` | the job as clients see it, fields as JSON in the header `Slipway-Job`, the result as payload |
//! | `<queue>.idem.<sha256>` | `<id> <fingerprint>` of an idempotency key |
//! | `<queue>.call.<id>` | a callback that is not yet settled |
//! | `<queue>.count.<process>` | the counters of a process, JSON |
//! | `<queue>.dead.<id>`, `<queue>.undelivered.<id>` | dead letters: of jobs, with the job's JSON, and of callbacks |

use slipway_runtime_queue::job::JobPriority;

/// The subjects of one queue.
#[derive(Debug)]
pub(crate) struct QueueSubjects {
    /// The stream, which is also the first part of all subjects.
    pub(crate) stream: String,
}

impl QueueSubjects {
    /// The subjects of `<prefix>/<queue>`. The name is encoded for NATS with `/` as `__`, `_` as
    /// `_u` and `.` as `_d`, so that no two queues share a stream.
    pub(crate) fn new(prefix: &str, queue: &str) -> Self {
        let mut stream = String::new();
        for c in format!("{prefix}/{queue}").chars() {
            match c {
                '/' => stream.push_str("__"),
                '_' => stream.push_str("_u"),
                '.' => stream.push_str("_d"),
                c => stream.push(c),
            }
        }
        Self { stream }
    }

    pub(crate) fn all_subjects(&self) -> String {
        format!("{}.>", self.stream)
    }

    pub(crate) fn entry(&self, priority: JobPriority, id: &str) -> String {
        format!("{}.work.{}.{id}", self.stream, priority.name())
    }

    pub(crate) fn entries(&self, priority: JobPriority) -> String {
        self.entry(priority, "*")
    }

    pub(crate) fn every_entry(&self) -> String {
        format!("{}.work.*.*", self.stream)
    }

    pub(crate) fn job(&self, id: &str) -> String {
        format!("{}.job.{id}", self.stream)
    }

    pub(crate) fn idempotency(&self, digest: &str) -> String {
        format!("{}.idem.{digest}", self.stream)
    }

    pub(crate) fn callback(&self, id: &str) -> String {
        format!("{}.call.{id}", self.stream)
    }

    pub(crate) fn callbacks(&self) -> String {
        self.callback("*")
    }

    pub(crate) fn counter(&self, process: &str) -> String {
        format!("{}.count.{process}", self.stream)
    }

    pub(crate) fn counters(&self) -> String {
        self.counter("*")
    }

    pub(crate) fn dead_letter(&self, id: &str) -> String {
        format!("{}.dead.{id}", self.stream)
    }

    pub(crate) fn undelivered(&self, id: &str) -> String {
        format!("{}.undelivered.{id}", self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_queues_share_a_stream() {
        let of = |queue: &str| QueueSubjects::new("slipway", queue).stream;
        assert_eq!(of("default/digits"), "slipway__default__digits");
        let all = ["a/b", "a_b", "a.b", "a/ub", "a_ub", "a__b", "a_db", "a._b"].map(of);
        for (n, name) in all.iter().enumerate() {
            assert!(
                !name.contains(['.', '/']) && !all.iter().skip(n + 1).any(|other| other == name),
                "{all:?}"
            );
        }
    }
}
