//! Where the demo's cluster comes from: a context of the user's, kind on a container engine, or Kubernetes built from source.
//!
//! kind's commands are those of kind.sigs.k8s.io/docs/user/quick-start.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a cluster comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The context of this name.
    Context(String),
    /// kind, with its nodes as containers.
    Kind,
    /// The harness in `e2e/`, which builds Kubernetes.
    Build,
}

/// What the choice depends on.
#[derive(Debug, Default)]
pub(crate) struct Machine<'a> {
    /// `CONTEXT`.
    pub(crate) context: &'a str,
    /// `CLUSTER`.
    pub(crate) wanted: &'a str,
    /// Why docker cannot be used.
    pub(crate) docker: Option<String>,
    /// Why kind cannot be used.
    pub(crate) kind: Option<String>,
}

impl Engine {
    /// A context that is given wins; then what is asked for; then kind, where it and docker are.
    pub(crate) fn choose(machine: &Machine<'_>) -> Result<Self, String> {
        let lacking = machine.docker.as_ref().or(machine.kind.as_ref());
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
    pub(crate) fn here() -> Result<(Self, String), String> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let (context, wanted) = (variable("CONTEXT"), variable("CLUSTER"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let (docker, kind) = (answers(&path, "docker", &["info"]), answers(&path, "kind", &["version"]));
        let machine = Machine { context: &context, wanted: &wanted, docker: docker.err(), kind: kind.err() };
        let engine = Self::choose(&machine)?;
        let why = match &engine {
            Self::Context(context) => format!("cluster: the context {context} of your kubeconfig"),
            Self::Kind => {
                "cluster: kind, as docker and kind are here (CLUSTER=build builds Kubernetes from source)".into()
            }
            Self::Build if wanted == "build" => "cluster: Kubernetes built from source, as asked for".into(),
            Self::Build => {
                let reason = machine.docker.or(machine.kind).unwrap_or_default();
                format!("cluster: Kubernetes built from source ({reason})")
            }
        };
        Ok((engine, why))
    }
}

/// Whether a program runs and reaches what it needs; else why not.
fn answers(path: &OsStr, program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("`{program} {}` fails", arguments.join(" "))),
        Err(_) => Err(format!("there is no {program}")),
    }
}

/// A cluster of kind.
#[derive(Debug)]
pub(crate) struct Kind {
    name: String,
    kubeconfig: PathBuf,
}

impl Kind {
    /// The cluster of this name; its kubeconfig stays in the checkout, and the user's own is left alone.
    pub(crate) fn new(name: &str, root: &Path) -> Self {
        Self { name: name.into(), kubeconfig: root.join("target/e2e").join(format!("kind-{name}.kubeconfig")) }
    }

    /// Makes it.
    pub(crate) fn create(&self) -> Command {
        let mut command = self.kind(&["create", "cluster", "--wait", "180s"]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Lists the clusters of kind.
    pub(crate) fn list(&self) -> Command {
        let mut command = Command::new("kind");
        command.args(["get", "clusters"]);
        command
    }

    /// Writes the kubeconfig of a cluster that is there.
    pub(crate) fn export(&self) -> Command {
        let mut command = self.kind(&["export", "kubeconfig"]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Brings images from docker to its nodes.
    pub(crate) fn load(&self, tags: &[&str]) -> Command {
        let mut command = self.kind(&["load", "docker-image"]);
        command.args(tags);
        command
    }

    /// Removes it.
    pub(crate) fn delete(&self) -> Command {
        let mut command = self.kind(&["delete", "cluster"]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Has a program use it.
    pub(crate) fn aim(&self, command: &mut Command) {
        command.env("CONTEXT", self.context()).env("KUBECONFIG", &self.kubeconfig);
    }

    /// The context's name in its kubeconfig.
    pub(crate) fn context(&self) -> String {
        format!("kind-{}", self.name)
    }

    /// How to look around.
    pub(crate) fn hint(&self) -> String {
        format!("export KUBECONFIG={}", self.kubeconfig.display())
    }

    fn kind(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kind");
        command.args(words).args(["--name", &self.name]);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_provision::command::line;

    #[test]
    fn a_context_wins_then_what_is_asked_for_then_kind() {
        let lacking = || Some("there is no docker".to_owned());
        let choose = |machine: Machine<'_>| Engine::choose(&machine);
        assert_eq!(choose(Machine::default()), Ok(Engine::Kind));
        assert_eq!(choose(Machine { docker: lacking(), ..Machine::default() }), Ok(Engine::Build));
        assert_eq!(choose(Machine { kind: lacking(), ..Machine::default() }), Ok(Engine::Build));
        assert_eq!(choose(Machine { wanted: "build", ..Machine::default() }), Ok(Engine::Build));
        assert_eq!(
            choose(Machine { context: "x", wanted: "kind", ..Machine::default() }),
            Ok(Engine::Context("x".into()))
        );
        let refused = choose(Machine { wanted: "kind", docker: lacking(), ..Machine::default() }).unwrap_err();
        assert!(refused.contains("there is no docker"), "{refused}");
        assert!(choose(Machine { wanted: "minikube", ..Machine::default() }).unwrap_err().contains("minikube"));
    }

    #[test]
    fn programs_that_are_missing_or_fail_are_told() {
        let path = OsStr::new("/nonexistent");
        assert_eq!(answers(path, "docker", &["info"]), Err("there is no docker".into()));
        let dir = std::env::temp_dir().join(format!("slipway-engine-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, code) in [("docker", 1), ("kind", 0)] {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::write(dir.join(name), format!("#!/bin/sh\nexit {code}\n")).unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(answers(dir.as_os_str(), "docker", &["info"]), Err("`docker info` fails".into()));
        assert_eq!(answers(dir.as_os_str(), "kind", &["version"]), Ok(()));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn kind_is_called_by_its_documented_commands() {
        let kind = Kind::new("slipway", Path::new("/w"));
        let config = "--kubeconfig /w/target/e2e/kind-slipway.kubeconfig";
        assert_eq!(line(&kind.create()), format!("kind create cluster --wait 180s --name slipway {config}"));
        assert_eq!(line(&kind.load(&["a:dev", "b:dev"])), "kind load docker-image --name slipway a:dev b:dev");
        assert_eq!(line(&kind.delete()), format!("kind delete cluster --name slipway {config}"));
        assert_eq!(line(&kind.export()), format!("kind export kubeconfig --name slipway {config}"));
        assert_eq!(kind.context(), "kind-slipway");
    }
}
