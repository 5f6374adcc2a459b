//! Groups of promises, and when one may be left out.
//!
//! Tier 1 (`core`) always runs. The groups of tier 2 need other projects' servers: a group may be
//! left out only when its tools are not in the cache and less time is left than it takes to obtain
//! them.

use std::path::Path;
use std::time::Duration;

use slipway_provision::{BuildCache, python, registry_unit};

/// How many promises are tested in parallel; they wait more than they compute.
pub(crate) const TEST_THREADS: &str = "4";

/// A named group of promises.
#[derive(Debug)]
pub(crate) struct PromiseGroup {
    pub(crate) name: &'static str,
    /// When the group may be left out.
    pub(crate) skip_policy: SkipPolicy,
    /// Seconds to obtain its tools with an empty cache, and to run it.
    pub(crate) cold_seconds: u64,
    /// Seconds to run it when all tools are available.
    pub(crate) warm_seconds: u64,
}

/// When a group may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SkipPolicy {
    /// Never.
    Never,
    /// When tools are missing and the time is too short.
    MissingTools,
}

/// All groups, in the order in which they run.
pub(crate) const GROUPS: &[PromiseGroup] = &[
    PromiseGroup {
        name: "core",
        skip_policy: SkipPolicy::Never,
        cold_seconds: 0,
        warm_seconds: 600,
    },
    PromiseGroup {
        name: CLIENTS,
        skip_policy: SkipPolicy::MissingTools,
        cold_seconds: 120,
        warm_seconds: 40,
    },
];

/// The group of the public clients, which needs no cluster.
pub(crate) const CLIENTS: &str = "clients";

/// Environments of the public clients: name, and the file with their requirements.
pub(crate) const CLIENT_ENVIRONMENTS: [(&str, &str); 3] = [
    ("clients-triton", "serving-runtime/tests/clients/requirements.txt"),
    ("clients-kserve", "serving-runtime/tests/clients/requirements-kserve.txt"),
    ("clients-onnx", "serving-runtime/tests/clients/requirements-onnx.txt"),
];

pub(crate) fn find_group(name: &str) -> Result<&'static PromiseGroup, String> {
    let known = || GROUPS.iter().map(|group| group.name).collect::<Vec<_>>().join(", ");
    GROUPS
        .iter()
        .find(|group| group.name == name)
        .ok_or_else(|| format!("no group is called `{name}`; there are {}", known()))
}

/// The conditions when a group is about to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunConditions {
    /// Whether its tools are in the cache.
    pub(crate) tools_present: bool,
    /// How much of the budget is left; `None` without a budget.
    pub(crate) time_left: Option<Duration>,
    /// Whether the time has passed after which no group may start.
    pub(crate) too_late: bool,
    /// Whether all groups must run, however long they take.
    pub(crate) all: bool,
}

/// Whether a group runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupDecision {
    Run,
    /// Left out, which is allowed; the reason.
    Skip(String),
    /// Left out, which is not allowed; the reason.
    Fail(String),
}

impl PromiseGroup {
    /// Decides whether the group runs in this situation.
    pub(crate) fn decide(&self, situation: RunConditions) -> GroupDecision {
        let RunConditions { tools_present, time_left: left, too_late, all } = situation;
        if all {
            return GroupDecision::Run;
        }
        let short = |needed: u64| left.is_some_and(|left| left < Duration::from_secs(needed));
        match self.skip_policy {
            SkipPolicy::MissingTools
                if !tools_present && (too_late || short(self.cold_seconds)) =>
            {
                GroupDecision::Skip(format!(
                    "its tools are not in the cache and take about {}; {}",
                    slipway_provision::format_minutes(self.cold_seconds),
                    left_in_words(left)
                ))
            }
            _ if too_late => {
                GroupDecision::Fail("not begun: it is too late to begin anything".into())
            }
            _ => GroupDecision::Run,
        }
    }

    /// Whether all of its tools are in the cache.
    pub(crate) fn tools_present(&self, cache: &BuildCache, root: &Path) -> bool {
        self.name != CLIENTS
            || CLIENT_ENVIRONMENTS.iter().all(|(name, file)| {
                let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
                let requirements = python::parse_requirements(&text);
                python::PythonEnvironment { name, python: "python3", requirements: &requirements }
                    .is_present(cache)
            })
    }

    /// Number of promises in the group, counted in the sources, because a group that is left out is
    /// never built.
    pub(crate) fn promise_count(&self, root: &Path) -> usize {
        let (dir, end, mark) = match self.name {
            CLIENTS => ("serving-runtime/tests/clients", ".py", "\nrun(["),
            _ => ("e2e/tests/promises", ".rs", "#[ignore = \"needs the cluster"),
        };
        let files = registry_unit::file_names(&root.join(dir))
            .into_iter()
            .filter(|file| file.ends_with(end));
        let texts = files
            .map(|file| std::fs::read_to_string(root.join(dir).join(file)).unwrap_or_default());
        texts.map(|text| text.matches(mark).count()).sum()
    }
}

fn left_in_words(left: Option<Duration>) -> String {
    match left {
        Some(left) if !left.is_zero() => {
            format!("{} are left", slipway_provision::format_minutes(left.as_secs()))
        }
        _ => "no time is left".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: RunConditions =
        RunConditions { tools_present: true, time_left: None, too_late: false, all: false };

    fn seconds(left: u64) -> Option<Duration> {
        Some(Duration::from_secs(left))
    }

    fn is_skip(decision: &GroupDecision) -> bool {
        matches!(decision, GroupDecision::Skip(_))
    }

    #[test]
    fn a_group_is_left_out_only_without_tools_and_without_time() {
        let clients = find_group(CLIENTS).unwrap();
        let cold = RunConditions { tools_present: false, ..NOW };
        assert_eq!(clients.decide(NOW), GroupDecision::Run);
        assert_eq!(
            clients.decide(cold),
            GroupDecision::Run,
            "without a budget there is always time"
        );
        assert_eq!(
            clients.decide(RunConditions { time_left: seconds(120), ..cold }),
            GroupDecision::Run
        );
        assert!(is_skip(&clients.decide(RunConditions { time_left: seconds(119), ..cold })));
        assert_eq!(
            clients.decide(RunConditions { time_left: seconds(0), ..NOW }),
            GroupDecision::Run,
            "warm tools never skip"
        );
    }

    #[test]
    fn what_could_have_run_and_was_not_begun_has_failed() {
        let late = RunConditions { too_late: true, ..NOW };
        assert!(matches!(find_group(CLIENTS).unwrap().decide(late), GroupDecision::Fail(_)));
        assert!(matches!(find_group("core").unwrap().decide(late), GroupDecision::Fail(_)));
        assert!(matches!(
            find_group("core").unwrap().decide(RunConditions { tools_present: false, ..late }),
            GroupDecision::Fail(_)
        ));
        assert!(is_skip(
            &find_group(CLIENTS).unwrap().decide(RunConditions { tools_present: false, ..late })
        ));
    }

    #[test]
    fn all_skips_nothing() {
        let worst = RunConditions {
            tools_present: false,
            time_left: seconds(0),
            too_late: true,
            all: true,
        };
        assert!(GROUPS.iter().all(|group| group.decide(worst) == GroupDecision::Run));
    }

    #[test]
    fn promises_are_counted_in_the_sources() {
        let root = slipway_provision::workspace_root();
        assert!(find_group("core").unwrap().promise_count(&root) >= 24);
        assert_eq!(find_group(CLIENTS).unwrap().promise_count(&root), 4);
    }
}
