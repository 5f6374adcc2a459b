//! The Go programs of other projects that cluster, demo, tests and checks run.

use std::path::{Path, PathBuf};

use crate::cache::BuildCache;
use crate::error::{ProvisionError, Result};
use crate::go_tool::{GoPlugins, GoTool};

pub const TOOLS: &[GoTool] = &[
    GoTool {
        name: "etcd",
        version: "v3.6.6",
        tags: "",
        variables: &[],
        programs: &[("go.etcd.io/etcd/server/v3", "etcd")],
        plugins: None,
        cold_seconds: 50,
    },
    GoTool {
        name: "containerd",
        version: "v2.4.2",
        // Excludes snapshotters that need C libraries and are not used here.
        tags: "no_btrfs no_devmapper no_zfs",
        variables: &["github.com/containerd/containerd/v2/version.Version={v}"],
        programs: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
            (
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "containerd-shim-runc-v2",
            ),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
        ],
        plugins: None,
        cold_seconds: 200,
    },
    GoTool {
        name: "kubernetes",
        version: "v1.36.3",
        tags: "",
        variables: &[
            "k8s.io/component-base/version.gitVersion={v}",
            "k8s.io/component-base/version.gitMajor=1",
            "k8s.io/component-base/version.gitMinor=36",
            "k8s.io/component-base/version.gitTreeState=clean",
        ],
        programs: &[
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
            ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
            ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ],
        plugins: None,
        cold_seconds: 580,
    },
    GoTool {
        name: "coredns",
        version: "v1.15.0",
        tags: "",
        variables: &[],
        programs: &[("github.com/coredns/coredns", "coredns")],
        // The plug-ins that the harness's Corefile uses; those of clouds depend on the clouds'
        // libraries.
        plugins: Some(GoPlugins {
            module: "github.com/coredns/coredns",
            file: "core/plugin/zplugin.go",
            package: "github.com/coredns/coredns/plugin",
            keep: &["bind", "errors", "kubernetes", "loadbalance", "ready"],
        }),
        cold_seconds: 90,
    },
    GoTool {
        name: "metrics-server",
        version: "v0.9.0",
        tags: "",
        variables: &[],
        programs: &[("sigs.k8s.io/metrics-server/cmd/metrics-server", "metrics-server")],
        plugins: None,
        cold_seconds: 240,
    },
    GoTool {
        name: "prometheus-adapter",
        version: "v0.12.0",
        tags: "",
        variables: &[],
        programs: &[("sigs.k8s.io/prometheus-adapter/cmd/adapter", "prometheus-adapter")],
        plugins: None,
        cold_seconds: 80,
    },
    GoTool {
        name: "prometheus",
        // Prometheus 3.13.5: as a Go module its version starts at zero.
        version: "v0.313.5",
        // Of the many kinds of discovery only that of Kubernetes; the others triple the build time.
        tags: "remove_all_sd enable_kubernetes_sd",
        variables: &["github.com/prometheus/common/version.Version=3.13.5"],
        programs: &[("github.com/prometheus/prometheus/cmd/prometheus", "prometheus")],
        plugins: None,
        cold_seconds: 280,
    },
    GoTool {
        name: "nats",
        version: "v2.15.2",
        tags: "",
        variables: &[],
        programs: &[("github.com/nats-io/nats-server/v2", "nats-server")],
        plugins: None,
        cold_seconds: 30,
    },
    GoTool {
        name: "helm",
        version: "v3.22.0",
        tags: "",
        variables: &["helm.sh/helm/v3/internal/version.version={v}"],
        programs: &[("helm.sh/helm/v3/cmd/helm", "helm")],
        plugins: None,
        cold_seconds: 110,
    },
    GoTool {
        name: "actionlint",
        version: "v1.7.12",
        tags: "",
        variables: &[],
        programs: &[("github.com/rhysd/actionlint/cmd/actionlint", "actionlint")],
        plugins: None,
        cold_seconds: 15,
    },
];

/// The tools of the demo's cluster.
pub const DEMO: &[&str] = &["helm", "etcd", "containerd", "coredns", "kubernetes", "prometheus"];
/// Further tools that only the promises need.
pub const PROMISES: &[&str] = &["nats", "metrics-server", "prometheus-adapter"];
/// Tools that only checks without a cluster need.
pub const CHECKS: &[&str] = &["actionlint"];
/// Tools for a foreign cluster.
pub const CLIENTS: &[&str] = &["helm", "kubernetes"];

/// The tool of this name.
pub fn find_tool(name: &str) -> Result<&'static GoTool> {
    TOOLS
        .iter()
        .find(|tool| tool.name == name)
        .ok_or_else(|| ProvisionError::Other(format!("no tool is called `{name}`")))
}

/// Builds those of these tools that are not in the cache yet.
pub fn ensure_tools(cache: &BuildCache, root: &Path, names: &[&str]) -> Result<()> {
    names.iter().try_for_each(|name| find_tool(name)?.ensure_built(cache, root).map(drop))
}

/// Path of a program, built when it is not in the cache yet.
pub fn ensure_program(cache: &BuildCache, root: &Path, program: &str) -> Result<PathBuf> {
    Ok(tool_with_program(program)?.ensure_built(cache, root)?.join(program))
}

/// Path of a program in the cache, whether it exists or not.
pub fn program_path(cache: &BuildCache, root: &Path, program: &str) -> Result<PathBuf> {
    Ok(tool_with_program(program)?.bin_dir(cache, root)?.join(program))
}

/// Folders of all programs, for PATH.
pub fn bin_dirs(cache: &BuildCache, root: &Path) -> Vec<PathBuf> {
    TOOLS.iter().filter_map(|tool| tool.bin_dir(cache, root).ok()).collect()
}

fn tool_with_program(program: &str) -> Result<&'static GoTool> {
    let tool = TOOLS.iter().find(|tool| tool.programs.iter().any(|(_, name)| *name == program));
    tool.ok_or_else(|| ProvisionError::Other(format!("no tool brings `{program}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_the_pins() {
        for tool in TOOLS {
            let path = crate::workspace_root().join("e2e/tools").join(tool.name).join("go.mod");
            let pins = std::fs::read_to_string(&path).unwrap();
            for (package, _) in tool.programs {
                assert!(pins.contains(package), "{} lacks {package}", path.display());
            }
            let pinned = pins.lines().any(|line| {
                let mut words = line.trim_start_matches("require").split_whitespace();
                let module = words.next().unwrap_or_default();
                tool.programs[0].0.starts_with(module)
                    && !module.is_empty()
                    && words.next() == Some(tool.version)
            });
            assert!(pinned, "{} does not pin {}", path.display(), tool.version);
        }
    }

    #[test]
    fn every_tool_is_of_use() {
        let mut listed: Vec<&str> = DEMO.iter().chain(PROMISES).chain(CHECKS).copied().collect();
        let mut all: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        listed.sort_unstable();
        all.sort_unstable();
        assert_eq!(listed, all);
    }

    #[test]
    fn unknown_programs_are_named() {
        assert!(tool_with_program("nonesuch").unwrap_err().to_string().contains("nonesuch"));
        assert_eq!(tool_with_program("ctr").unwrap().name, "containerd");
    }
}
