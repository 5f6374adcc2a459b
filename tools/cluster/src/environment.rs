//! The environment of programs that use a cluster: PATH, kubeconfig, names and addresses.

use std::process::Command;

use kube::config::{KubeConfigOptions, Kubeconfig};
use slipway_provision::go_tools;

use crate::error::Result;
use crate::layout::ClusterLayout;

/// Environment variable with the name of the cluster, for tests that `slipway-e2e exec` starts.
pub const NAME_VARIABLE: &str = "SLIPWAY_E2E_NAME";
/// Environment variable with a kubectl context to use instead of a local cluster.
pub const CONTEXT_VARIABLE: &str = "CONTEXT";
/// Environment variable with the Prometheus of a foreign cluster.
pub const PROMETHEUS_VARIABLE: &str = "PROMETHEUS_URL";

/// The kubectl context to use instead of a local cluster.
pub fn foreign_context() -> Option<String> {
    std::env::var(CONTEXT_VARIABLE).ok().filter(|context| !context.is_empty())
}

/// PATH with our programs first.
pub fn search_path(layout: &ClusterLayout) -> String {
    let bins = go_tools::bin_dirs(layout.cache(), layout.root())
        .into_iter()
        .map(|dir| dir.display().to_string());
    let inherited = std::env::var("PATH").unwrap_or_default();
    // runc, nft and others are in sbin, which some users' PATH lacks.
    bins.chain([inherited, "/usr/sbin:/usr/bin:/sbin:/bin".into()]).collect::<Vec<_>>().join(":")
}

/// Variables for programs that use the cluster: our programs in PATH, kubeconfig, name and
/// addresses. Files that the programs store go to the cluster's directory, so that they are removed
/// with it.
pub fn environment_variables(layout: &ClusterLayout) -> Vec<(&'static str, String)> {
    let mut all = vec![("PATH", search_path(layout)), (NAME_VARIABLE, layout.name().to_string())];
    if foreign_context().is_none() {
        all.push(("KUBECONFIG", layout.kubeconfig().display().to_string()));
        all.push((PROMETHEUS_VARIABLE, layout.prometheus_url()));
        let notes = layout.data_dir().join("clients");
        for variable in ["KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            all.push((variable, notes.join(variable.to_lowercase()).display().to_string()));
        }
    }
    all
}

/// Sets the [`environment_variables`] of the cluster for a command.
pub fn set_environment(command: &mut Command, layout: &ClusterLayout) {
    command.envs(environment_variables(layout));
}

/// A client of the local cluster, also usable while it is starting.
pub(crate) async fn admin_client(layout: &ClusterLayout) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(layout.kubeconfig())?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
