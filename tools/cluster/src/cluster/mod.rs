//! The handle that tests and the demo use: a running cluster, local or foreign.

mod dump;
mod port_forward;
mod temp_namespace;

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::config::KubeConfigOptions;
use port_forward::PortForwards;
pub use temp_namespace::TempNamespace;

use crate::environment::{
    NAME_VARIABLE, PROMETHEUS_VARIABLE, admin_client, foreign_context, search_path, set_environment,
};
use crate::error::{HarnessError, Result};
use crate::layout::{self, ClusterLayout};
use crate::node::{addons, components, netns, up};
use crate::process::NodeProcess;
use crate::{shell, wait};

#[derive(Clone)]
pub struct ClusterHandle {
    layout: ClusterLayout,
    /// The kubectl context, when the cluster is foreign.
    foreign: Option<String>,
    client: kube::Client,
    forwards: Arc<PortForwards>,
}

impl ClusterHandle {
    /// Opens the cluster that the environment names: the context in `CONTEXT`, else the cluster in
    /// `SLIPWAY_E2E_NAME`, else the cluster of this checkout.
    pub async fn from_env() -> Result<Self> {
        let name = std::env::var(NAME_VARIABLE)
            .ok()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(layout::default_name);
        Self::open(&name).await
    }

    /// Opens a cluster by name; `CONTEXT` in the environment takes precedence.
    pub async fn open(name: &str) -> Result<Self> {
        let layout = ClusterLayout::new(name)?;
        if let Some(context) = foreign_context() {
            let options =
                KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
            let config = kube::Config::from_kubeconfig(&options).await;
            let config =
                config.map_err(|why| HarnessError::Context { name: context.clone(), why })?;
            let client = kube::Client::try_from(config)?;
            return Ok(Self { layout, foreign: Some(context), client, forwards: Arc::default() });
        }
        if !layout.kubeconfig().exists() || !netns::link_exists(&layout) {
            return Err(HarnessError::NotUp(name.into()));
        }
        let client = admin_client(&layout).await?;
        Ok(Self { layout, foreign: None, client, forwards: Arc::default() })
    }

    /// A client with administrator rights.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Names, paths and addresses of the cluster.
    pub fn layout(&self) -> &ClusterLayout {
        &self.layout
    }

    /// Whether this is a context of the user rather than a local cluster.
    pub fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Path of an administrator's kubeconfig.
    pub fn kubeconfig_path(&self) -> Result<PathBuf> {
        self.require_local("kubeconfig path").map(|()| self.layout.kubeconfig())
    }

    /// Address of the node, reachable from the host, from the node and from pods.
    pub fn node_ip(&self) -> Result<Ipv4Addr> {
        self.require_local("node address").map(|()| self.layout.node_ip())
    }

    /// URL of Prometheus, reachable from the host, from the node and from pods.
    pub fn prometheus_url(&self) -> Result<String> {
        match &self.foreign {
            None => Ok(self.layout.prometheus_url()),
            Some(_) => std::env::var(PROMETHEUS_VARIABLE)
                .map_err(|_| HarnessError::Foreign("set PROMETHEUS_URL")),
        }
    }

    /// The process of a component, by the name of its log file; `None` when it does not run.
    pub fn component_process(&self, name: &str) -> Option<NodeProcess> {
        NodeProcess::find_running(&self.layout, name)
    }

    /// Stops Prometheus; returns when it has ended.
    pub fn stop_prometheus(&self) -> Result<()> {
        self.require_local("stopping Prometheus")?;
        self.component_process("prometheus").map_or(Ok(()), |process| process.stop())
    }

    /// Starts Prometheus unless it runs; returns when it answers.
    pub async fn start_prometheus(&self) -> Result<()> {
        self.require_local("starting Prometheus")?;
        if self.component_process("prometheus").is_none() {
            components::new_prometheus(&self.layout)?
                .start(&self.layout, &search_path(&self.layout))?;
        }
        let probe = components::readiness_probe("prometheus");
        let deadline = Duration::from_secs(30);
        wait::until_ok("Prometheus answers", deadline, || {
            up::probe_component(&self.layout, &self.client, probe)
        })
        .await
    }

    /// Starts prometheus-adapter unless it runs; returns when it serves external metrics. Only
    /// tests that scale by them need it.
    pub async fn start_prometheus_adapter(&self) -> Result<()> {
        self.require_local("starting prometheus-adapter")?;
        if self.component_process("prometheus-adapter").is_none() {
            components::new_prometheus_adapter(&self.layout)?
                .start(&self.layout, &search_path(&self.layout))?;
        }
        self.apply("kube-system", &addons::external_metrics(&self.layout).to_string()).await?;
        let available = || up::api_available(&self.client, addons::EXTERNAL_METRICS_API);
        wait::until_ok("external metrics are available", Duration::from_secs(60), available).await
    }

    /// Stops prometheus-adapter and removes its API first: a registered API that does not answer
    /// blocks deletions of namespaces.
    pub async fn stop_prometheus_adapter(&self) -> Result<()> {
        self.require_local("stopping prometheus-adapter")?;
        self.kubectl(["delete", "apiservice", addons::EXTERNAL_METRICS_API, "--ignore-not-found"])
            .await?;
        self.component_process("prometheus-adapter").map_or(Ok(()), |process| process.stop())
    }

    /// A command that runs its arguments in the node's network; files and processes are those of
    /// the host.
    pub fn nsenter_command(&self) -> Result<Command> {
        self.require_local("entering the node's network")?;
        let mut command = netns::netns_command(&self.layout);
        set_environment(&mut command, &self.layout);
        Ok(command)
    }

    pub fn kubectl_path(&self) -> Result<PathBuf> {
        self.client_program("kubectl")
    }

    /// kubectl or helm. For a foreign cluster, the user's own programs are used.
    fn client_program(&self, name: &str) -> Result<PathBuf> {
        let built = self.layout.program_path(name)?;
        Ok(if self.is_foreign() && !built.is_file() { name.into() } else { built })
    }

    /// Runs kubectl and returns its output.
    pub async fn kubectl(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<String> {
        shell::run_async(with_arguments(self.kubectl_command()?, arguments)).await
    }

    fn kubectl_command(&self) -> Result<Command> {
        let mut command = Command::new(self.kubectl_path()?);
        set_environment(&mut command, &self.layout);
        if let Some(context) = &self.foreign {
            command.arg(format!("--context={context}"));
        }
        Ok(command)
    }

    /// Runs `kubectl slipway` as another user, by impersonation, and returns its output.
    pub async fn run_plugin_as(
        &self,
        user: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<String> {
        let mut command =
            with_arguments(Command::new(crate::images::plugin_path(&self.layout)), arguments);
        set_environment(&mut command, &self.layout);
        if let Some(context) = &self.foreign {
            command.arg(format!("--context={context}"));
        }
        command.arg(format!("--as={user}"));
        shell::run_async(command).await
    }

    /// Base URL by which this process reaches a Service: its cluster address, or a port-forward for
    /// a foreign cluster, whose network is not reachable.
    pub async fn service_url(&self, namespace: &str, name: &str, port: u16) -> Result<String> {
        if self.is_foreign() {
            return self.forwards.url(self.kubectl_command()?, namespace, name, port).await;
        }
        let services: Api<Service> = Api::namespaced(self.client(), namespace);
        let address = services.get(name).await?.spec.and_then(|spec| spec.cluster_ip);
        let address = address.ok_or_else(|| HarnessError::NoAddress {
            namespace: namespace.into(),
            name: name.into(),
        })?;
        let is_ipv6 = address.contains(':');
        Ok(if is_ipv6 {
            format!("http://[{address}]:{port}")
        } else {
            format!("http://{address}:{port}")
        })
    }

    /// Runs helm and returns its output.
    pub async fn helm(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<String> {
        let mut command = Command::new(self.client_program("helm")?);
        set_environment(&mut command, &self.layout);
        if let Some(context) = &self.foreign {
            command.arg(format!("--kube-context={context}"));
        }
        shell::run_async(with_arguments(command, arguments)).await
    }

    /// Applies manifests (YAML or JSON) that are in memory.
    pub async fn apply(&self, namespace: &str, manifests: &str) -> Result<String> {
        let file = self
            .layout
            .root()
            .join("target/e2e")
            .join(format!("apply-{}-{namespace}.yaml", std::process::id()));
        std::fs::write(&file, manifests).map_err(HarnessError::io("write", &file))?;
        let applied =
            self.kubectl(["apply", "-n", namespace, "-f", &file.display().to_string()]).await;
        // kubectl's answer matters more than a left-over file.
        let _ = std::fs::remove_file(&file);
        applied
    }

    /// Polls until `condition` returns `Ok`. On a timeout, the error contains its last message and
    /// the state of `namespace` and of the operator.
    pub async fn wait_for<T, F>(
        &self,
        namespace: &str,
        what: &str,
        deadline: Duration,
        condition: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, String>>,
    {
        match wait::until_ok(what, deadline, condition).await {
            Err(HarnessError::Timeout { what, after, last, .. }) => {
                let state = self.dump_state(namespace).await;
                Err(HarnessError::Timeout { what, after, last, state })
            }
            other => other,
        }
    }

    /// Creates a namespace with a unique name, deleted when the handle is dropped or
    /// [`TempNamespace::delete`]d.
    pub async fn temp_namespace(&self, prefix: &str) -> Result<TempNamespace> {
        TempNamespace::create(self, prefix).await
    }

    /// Runs `test` in a temporary namespace, deletes the namespace whatever the outcome, and
    /// returns the outcome. A failure first dumps the state of the namespace to stderr.
    pub async fn with_temp_namespace<T, E, F>(
        &self,
        prefix: &str,
        test: impl FnOnce(String) -> F,
    ) -> Result<T, E>
    where
        E: From<HarnessError> + std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let namespace = self.temp_namespace(prefix).await?;
        let outcome = test(namespace.name().to_string()).await;
        if let Err(error) = &outcome {
            eprintln!("{error}\n{}", self.dump_state(namespace.name()).await);
        }
        namespace.delete().await?;
        outcome
    }

    fn require_local(&self, what: &'static str) -> Result<()> {
        if self.is_foreign() { Err(HarnessError::Foreign(what)) } else { Ok(()) }
    }
}

fn with_arguments(
    mut command: Command,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Command {
    command.args(arguments);
    command
}
