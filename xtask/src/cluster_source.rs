//! The source of the demo's cluster: a context of the user, kind on a container engine, or
//! Kubernetes built from source.
//!
//! kind's commands are those of kind.sigs.k8s.io/docs/user/quick-start.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The source of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClusterSource {
    /// The context of this name.
    Context(String),
    /// kind, with its nodes as containers.
    Kind,
    /// The harness in `tools/cluster`, which builds Kubernetes.
    Build,
}

/// The inputs of the choice.
#[derive(Debug, Default)]
pub(crate) struct HostCapabilities<'a> {
    /// The variable `CONTEXT`.
    pub(crate) context: &'a str,
    /// The variable `CLUSTER`.
    pub(crate) wanted: &'a str,
    /// Why docker cannot be used.
    pub(crate) docker_problem: Option<String>,
    /// Why kind cannot be used.
    pub(crate) kind_problem: Option<String>,
}

impl ClusterSource {
    /// Chooses the given context, else the requested source, else kind if it and docker are
    /// available.
    pub(crate) fn choose(machine: &HostCapabilities<'_>) -> Result<Self, String> {
        let lacking = machine.docker_problem.as_ref().or(machine.kind_problem.as_ref());
        match (machine.context, machine.wanted, lacking) {
            ("", "build", _) => Ok(Self::Build),
            ("", "kind", Some(reason)) => Err(format!("CLUSTER=kind cannot be: {reason}")),
            ("", "kind" | "", None) => Ok(Self::Kind),
            ("", "", Some(_)) => Ok(Self::Build),
            ("", other, _) => Err(format!("CLUSTER={other} is neither `kind` nor `build`")),
            (context, _, _) => Ok(Self::Context(context.into())),
        }
    }

    /// The choice on this machine, with the reason.
    pub(crate) fn detect() -> Result<(Self, String), String> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let (context, wanted) = (variable("CONTEXT"), variable("CLUSTER"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let (docker, kind) =
            (check_program(&path, "docker", &["info"]), check_program(&path, "kind", &["version"]));
        let machine = HostCapabilities {
            context: &context,
            wanted: &wanted,
            docker_problem: docker.err(),
            kind_problem: kind.err(),
        };
        let engine = Self::choose(&machine)?;
        let why = match &engine {
            Self::Context(context) => format!("cluster: the context {context} of your kubeconfig"),
            Self::Kind => {
                "cluster: kind, as docker and kind are here (CLUSTER=build builds Kubernetes from source)".into()
            }
            Self::Build if wanted == "build" => "cluster: Kubernetes built from source, as asked for".into(),
            Self::Build => {
                let reason = machine.docker_problem.or(machine.kind_problem).unwrap_or_default();
                format!("cluster: Kubernetes built from source ({reason})")
            }
        };
        Ok((engine, why))
    }
}

/// Checks that a program runs and reaches what it needs; the error says why not.
fn check_program(path: &OsStr, program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("`{program} {}` fails", arguments.join(" "))),
        Err(_) => Err(format!("there is no {program}")),
    }
}

/// A cluster of kind.
#[derive(Debug)]
pub(crate) struct KindCluster {
    name: String,
    kubeconfig: PathBuf,
}

impl KindCluster {
    /// The cluster of this name; its kubeconfig is in the checkout, and the user's own is not
    /// changed.
    pub(crate) fn new(name: &str, root: &Path) -> Self {
        Self {
            name: name.into(),
            kubeconfig: root.join("target/e2e").join(format!("kind-{name}.kubeconfig")),
        }
    }

    /// Creates the cluster.
    pub(crate) fn create_command(&self) -> Command {
        let mut command = self.kind_command(&["create", "cluster", "--wait", "180s"]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Lists the clusters of kind.
    pub(crate) fn list_command(&self) -> Command {
        let mut command = Command::new("kind");
        command.args(["get", "clusters"]);
        command
    }

    /// Writes the kubeconfig of an existing cluster.
    pub(crate) fn export_command(&self) -> Command {
        let mut command = self.kind_command(&["export", "kubeconfig"]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Loads images from docker to the cluster's nodes.
    pub(crate) fn load_command(&self, tags: &[&str]) -> Command {
        let mut command = self.kind_command(&["load", "docker-image"]);
        command.args(tags);
        command
    }

    /// Removes the cluster.
    pub(crate) fn delete_command(&self) -> Command {
        let mut command = self.kind_command(&["delete", "cluster"]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Makes a program use the cluster.
    pub(crate) fn set_environment(&self, command: &mut Command) {
        command.env("CONTEXT", self.context_name()).env("KUBECONFIG", &self.kubeconfig);
    }

    /// The context's name in the cluster's kubeconfig.
    pub(crate) fn context_name(&self) -> String {
        format!("kind-{}", self.name)
    }

    /// A command line with which users can inspect the cluster.
    pub(crate) fn kubeconfig_hint(&self) -> String {
        format!("export KUBECONFIG={}", self.kubeconfig.display())
    }

    fn kind_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kind");
        command.args(words).args(["--name", &self.name]);
        command
    }
}

#[cfg(test)]
mod tests {
    use slipway_provision::command::command_line;

    use super::*;

    #[test]
    fn a_context_wins_then_what_is_asked_for_then_kind() {
        let lacking = || Some("there is no docker".to_owned());
        let choose = |machine: HostCapabilities<'_>| ClusterSource::choose(&machine);
        assert_eq!(choose(HostCapabilities::default()), Ok(ClusterSource::Kind));
        assert_eq!(
            choose(HostCapabilities { docker_problem: lacking(), ..HostCapabilities::default() }),
            Ok(ClusterSource::Build)
        );
        assert_eq!(
            choose(HostCapabilities { kind_problem: lacking(), ..HostCapabilities::default() }),
            Ok(ClusterSource::Build)
        );
        assert_eq!(
            choose(HostCapabilities { wanted: "build", ..HostCapabilities::default() }),
            Ok(ClusterSource::Build)
        );
        assert_eq!(
            choose(HostCapabilities {
                context: "x",
                wanted: "kind",
                ..HostCapabilities::default()
            }),
            Ok(ClusterSource::Context("x".into()))
        );
        let refused = choose(HostCapabilities {
            wanted: "kind",
            docker_problem: lacking(),
            ..HostCapabilities::default()
        })
        .unwrap_err();
        assert!(refused.contains("there is no docker"), "{refused}");
        assert!(
            choose(HostCapabilities { wanted: "minikube", ..HostCapabilities::default() })
                .unwrap_err()
                .contains("minikube")
        );
    }

    #[test]
    fn programs_that_are_missing_or_fail_are_told() {
        let path = OsStr::new("/nonexistent");
        assert_eq!(check_program(path, "docker", &["info"]), Err("there is no docker".into()));
        let dir = std::env::temp_dir().join(format!("slipway-engine-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, code) in [("docker", 1), ("kind", 0)] {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::write(dir.join(name), format!("#!/bin/sh\nexit {code}\n")).unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o755))
                .unwrap();
        }
        assert_eq!(
            check_program(dir.as_os_str(), "docker", &["info"]),
            Err("`docker info` fails".into())
        );
        assert_eq!(check_program(dir.as_os_str(), "kind", &["version"]), Ok(()));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn kind_is_called_by_its_documented_commands() {
        let kind = KindCluster::new("slipway", Path::new("/w"));
        let config = "--kubeconfig /w/target/e2e/kind-slipway.kubeconfig";
        assert_eq!(
            command_line(&kind.create_command()),
            format!("kind create cluster --wait 180s --name slipway {config}")
        );
        assert_eq!(
            command_line(&kind.load_command(&["a:dev", "b:dev"])),
            "kind load docker-image --name slipway a:dev b:dev"
        );
        assert_eq!(
            command_line(&kind.delete_command()),
            format!("kind delete cluster --name slipway {config}")
        );
        assert_eq!(
            command_line(&kind.export_command()),
            format!("kind export kubeconfig --name slipway {config}")
        );
        assert_eq!(kind.context_name(), "kind-slipway");
    }
}
