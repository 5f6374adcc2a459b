//! Namespaces that exist as long as a test.

use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::cluster::ClusterHandle;
use crate::environment::set_environment;
use crate::error::{HarnessError, Result};

/// A namespace that is deleted when this handle is dropped.
pub struct TempNamespace {
    cluster: ClusterHandle,
    name: String,
    deleted: bool,
}

impl TempNamespace {
    pub(crate) async fn create(cluster: &ClusterHandle, prefix: &str) -> Result<Self> {
        let object = json!({"metadata": {"generateName": format!("{prefix}-"), "labels": {"slipway-e2e": "temporary"}}});
        let object: Namespace = serde_json::from_value(object)
            .map_err(|source| HarnessError::Json { what: "namespace".into(), source })?;
        let made = namespace_api(cluster).create(&PostParams::default(), &object).await?;
        Ok(Self {
            cluster: cluster.clone(),
            name: made.metadata.name.unwrap_or_default(),
            deleted: false,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes the namespace, without waiting until its objects are gone.
    pub async fn delete(mut self) -> Result<()> {
        self.deleted = true;
        namespace_api(&self.cluster).delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

impl Drop for TempNamespace {
    /// When a test panics, no executor is available to run a client, so kubectl deletes the
    /// namespace.
    fn drop(&mut self) {
        let Ok(kubectl) = self.cluster.kubectl_path() else { return };
        if self.deleted {
            return;
        }
        let mut command = Command::new(kubectl);
        set_environment(&mut command, self.cluster.layout());
        if let Some(context) = &self.cluster.foreign {
            command.arg(format!("--context={context}"));
        }
        command.args(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
        // A failure cannot be reported here; the cluster is removed in the end.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn namespace_api(cluster: &ClusterHandle) -> Api<Namespace> {
    Api::all(cluster.client())
}
