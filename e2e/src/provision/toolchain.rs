//! Go programs: built from the pinned modules in `e2e/tools` into the cache, once for each version.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::progress::Step;
use crate::shell;

/// A group of programs that one `go.mod` pins.
#[derive(Debug)]
struct Tool {
    /// Folder below `e2e/tools`.
    name: &'static str,
    version: &'static str,
    tags: &'static str,
    /// Variables for the linker: `{v}` becomes the version.
    variables: &'static [&'static str],
    /// Package, and the name of its program.
    programs: &'static [(&'static str, &'static str)],
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "etcd",
        version: "v3.6.6",
        tags: "",
        variables: &[],
        programs: &[("go.etcd.io/etcd/server/v3", "etcd")],
    },
    Tool {
        name: "containerd",
        version: "v2.4.2",
        // Snapshotters that need C libraries and that nothing here uses.
        tags: "no_btrfs no_devmapper no_zfs",
        variables: &["github.com/containerd/containerd/v2/version.Version={v}"],
        programs: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
            ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
        ],
    },
    Tool {
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
    },
    Tool {
        name: "coredns",
        version: "v1.15.0",
        tags: "",
        variables: &[],
        programs: &[("github.com/coredns/coredns", "coredns")],
    },
    Tool {
        name: "metrics-server",
        version: "v0.9.0",
        tags: "",
        variables: &[],
        programs: &[("sigs.k8s.io/metrics-server/cmd/metrics-server", "metrics-server")],
    },
    Tool {
        name: "prometheus-adapter",
        version: "v0.12.0",
        tags: "",
        variables: &[],
        programs: &[("sigs.k8s.io/prometheus-adapter/cmd/adapter", "prometheus-adapter")],
    },
    Tool {
        name: "prometheus",
        // Prometheus 3.13.5: as a Go module it counts from zero.
        version: "v0.313.5",
        // Of the many kinds of discovery only that of Kubernetes; the others treble the build.
        tags: "remove_all_sd enable_kubernetes_sd",
        variables: &["github.com/prometheus/common/version.Version=3.13.5"],
        programs: &[("github.com/prometheus/prometheus/cmd/prometheus", "prometheus")],
    },
    Tool {
        name: "nats",
        version: "v2.15.2",
        tags: "",
        variables: &[],
        programs: &[("github.com/nats-io/nats-server/v2", "nats-server")],
    },
    Tool {
        name: "helm",
        version: "v3.22.0",
        tags: "",
        variables: &["helm.sh/helm/v3/internal/version.version={v}"],
        programs: &[("helm.sh/helm/v3/cmd/helm", "helm")],
    },
];

/// What only some promises need; unless all is asked for, it is built when somebody starts it.
const ON_DEMAND: [&str; 1] = ["prometheus-adapter"];

/// Builds what is not in the cache yet.
pub fn ensure(layout: &Layout, all: bool) -> Result<()> {
    TOOLS.iter().filter(|tool| all || !ON_DEMAND.contains(&tool.name)).try_for_each(|tool| tool.ensure(layout))
}

/// Builds kubectl and helm alone, for use with a cluster that is not ours.
pub fn ensure_clients(layout: &Layout) -> Result<()> {
    TOOLS.iter().filter(|tool| ["kubernetes", "helm"].contains(&tool.name)).try_for_each(|tool| tool.ensure(layout))
}

/// Path of a program in the cache, built if it is not there yet.
pub fn ensure_program(layout: &Layout, name: &str) -> Result<PathBuf> {
    TOOLS
        .iter()
        .filter(|tool| tool.programs.iter().any(|(_, program)| *program == name))
        .try_for_each(|t| t.ensure(layout))?;
    program(layout, name)
}

/// Path of a program in the cache.
pub fn program(layout: &Layout, name: &str) -> Result<PathBuf> {
    let tool = TOOLS.iter().find(|tool| tool.programs.iter().any(|(_, program)| *program == name));
    tool.map(|tool| tool.bin(layout).join(name)).ok_or_else(|| Error::Other(format!("no tool brings `{name}`")))
}

/// Folders of the programs, for PATH.
pub fn bin_dirs(layout: &Layout) -> Vec<PathBuf> {
    TOOLS.iter().map(|tool| tool.bin(layout)).collect()
}

impl Tool {
    fn bin(&self, layout: &Layout) -> PathBuf {
        layout.cache().join(format!("{}-{}", self.name, self.version)).join("bin")
    }

    fn ensure(&self, layout: &Layout) -> Result<()> {
        let bin = self.bin(layout);
        if self.programs.iter().all(|(_, program)| bin.join(program).exists()) {
            return Ok(());
        }
        let names: Vec<&str> = self.programs.iter().map(|(_, program)| *program).collect();
        Step::run(format!("building {} {}", names.join(", "), self.version), || {
            // Built aside and renamed, so that a build that was cut off is never taken for a whole one.
            let partial = bin.with_extension("partial");
            std::fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
            shell::run(&mut self.build(layout.root(), &partial))?;
            if bin.exists() {
                std::fs::remove_dir_all(&bin).map_err(Error::io("remove", &bin))?;
            }
            std::fs::rename(&partial, &bin).map_err(Error::io("rename", &partial))
        })
    }

    fn build(&self, root: &Path, into: &Path) -> Command {
        // One call for a whole group, so that shared packages compile once; alone, a program may be named otherwise.
        let output = match self.programs {
            [(_, program)] => into.join(program),
            _ => into.join(""),
        };
        let mut command = Command::new("go");
        command.current_dir(root.join("e2e/tools").join(self.name)).args(["build", "-o"]).arg(output);
        command.args(["-tags", self.tags, "-ldflags", &self.linker_flags()]);
        command.args(self.programs.iter().map(|(package, _)| *package));
        command.env("CGO_ENABLED", "0").env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly").env("GOWORK", "off");
        command
    }

    fn linker_flags(&self) -> String {
        let variables = self.variables.iter().map(|variable| format!(" -X {}", variable.replace("{v}", self.version)));
        format!("-s -w{}", variables.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_the_pins() {
        for tool in TOOLS {
            let path = crate::layout::workspace_root().join("e2e/tools").join(tool.name).join("go.mod");
            let pins = std::fs::read_to_string(&path).unwrap();
            for (package, _) in tool.programs {
                assert!(pins.contains(package), "{} lacks {package}", path.display());
            }
            let pinned = pins.lines().any(|line| {
                let mut words = line.trim_start_matches("require").split_whitespace();
                let module = words.next().unwrap_or_default();
                tool.programs[0].0.starts_with(module) && !module.is_empty() && words.next() == Some(tool.version)
            });
            assert!(pinned, "{} does not pin {}", path.display(), tool.version);
        }
    }

    #[test]
    fn a_group_builds_into_a_folder_and_a_single_program_to_its_name() {
        let line = |name: &str| {
            let tool = TOOLS.iter().find(|tool| tool.name == name).unwrap();
            shell::line(&tool.build(Path::new("/w"), Path::new("/o")))
        };
        assert!(line("etcd").contains("-o /o/etcd "));
        assert!(line("kubernetes").contains("-o /o/ "));
        assert!(line("kubernetes").contains("version.gitVersion=v1.36.3"));
    }
}
