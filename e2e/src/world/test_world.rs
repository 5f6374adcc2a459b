//! A namespace, and the actions of a user in it.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use slipway_cluster::cluster::ClusterHandle;
use slipway_contracts::files;
use slipway_crds::v1alpha1::{ModelDeployment, RevisionHeader};

use super::http::HttpClient;

/// Field manager of tests, which act as a user who edits with kubectl.
const FIELD_MANAGER: &str = "slipway-e2e";
/// How long pods may take to start on a machine under load.
pub const PODS_TIMEOUT: Duration = Duration::from_secs(120);

/// A namespace and its contents.
#[derive(Clone)]
pub struct TestWorld {
    pub cluster: ClusterHandle,
    pub namespace: String,
    pub http: HttpClient,
    /// Name of the load generator.
    pub generator: String,
}

impl TestWorld {
    /// A namespace of a cluster.
    pub fn new(cluster: ClusterHandle, namespace: &str) -> Self {
        Self {
            cluster,
            namespace: namespace.into(),
            http: HttpClient::default(),
            generator: "loadgen".into(),
        }
    }

    /// Enables restricted Pod Security for the namespace, and creates the model store.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let labels =
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let namespaces: Api<Namespace> = Api::all(self.cluster.client());
        namespaces.patch(&self.namespace, &PatchParams::default(), &Patch::Merge(labels)).await?;
        self.cluster.apply(&self.namespace, &self.example("model-store.yaml")?).await?;
        self.wait_deployment_ready("model-store").await
    }

    /// Text of a file in `examples/`.
    pub fn example(&self, file: &str) -> anyhow::Result<String> {
        let path = self.cluster.layout().root().join("examples").join(file);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// A ModelDeployment of `examples/`, with shorter times for a test.
    pub fn quick_example(&self, file: &str) -> anyhow::Result<ModelDeployment> {
        let mut object: ModelDeployment = serde_yaml::from_str(&self.example(file)?)?;
        object.spec.analysis.interval_seconds = 1;
        object.spec.strategy.scale_down_delay_seconds = 3;
        // Accounts are kept by revision.
        object.spec.traffic.revision_header = Some(RevisionHeader::default());
        Ok(object)
    }

    /// Applies a ModelDeployment as a user would.
    pub async fn apply(&self, object: &ModelDeployment) -> anyhow::Result<()> {
        self.cluster.apply(&self.namespace, &serde_json::to_string(object)?).await?;
        Ok(())
    }

    /// ModelDeployments of the namespace.
    pub fn model_deployments(&self) -> Api<ModelDeployment> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Sets an annotation, for commands of users.
    pub async fn annotate(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.model_deployments().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Changes the spec by a merge patch.
    pub async fn patch_spec(&self, name: &str, spec: serde_json::Value) -> anyhow::Result<()> {
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.model_deployments().patch(name, &params, &Patch::Merge(json!({"spec": spec}))).await?;
        Ok(())
    }

    /// The token of the namespace.
    pub async fn token(&self) -> anyhow::Result<String> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        let secret = secrets.get(files::KEYS_SECRET).await?;
        let token = secret
            .data
            .unwrap_or_default()
            .remove(files::TOKEN)
            .context("no token in the Secret")?;
        Ok(String::from_utf8(token.0)?)
    }

    /// Prometheus' answer to a query for one number; `None` when no series matches.
    pub async fn query_prometheus(&self, query: &str) -> anyhow::Result<Option<f64>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("{}/api/v1/query?query={encoded}", self.cluster.prometheus_url()?);
        let answer: serde_json::Value = self.http.get(&url).await?.json()?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"][0]["value"][1].as_str().map(str::parse).transpose()?)
    }

    /// Base URL by which tests reach a Service of the namespace, once it accepts connections: it
    /// refuses them until its endpoints have reached the node's proxy, which no object's conditions
    /// report.
    pub async fn service_url(&self, name: &str, port: u16) -> anyhow::Result<String> {
        let url = self.cluster.service_url(&self.namespace, name, port).await?;
        let address = url.trim_start_matches("http://").to_owned();
        let connect = || async {
            tokio::net::TcpStream::connect(&address)
                .await
                .map(drop)
                .map_err(|error| format!("{address}: {error}"))
        };
        self.cluster
            .wait_for(
                &self.namespace,
                &format!("Service {name} to take connections"),
                PODS_TIMEOUT,
                connect,
            )
            .await?;
        Ok(url)
    }

    /// Waits until a Deployment has all its pods.
    pub async fn wait_deployment_ready(&self, name: &str) -> anyhow::Result<()> {
        let deployment = format!("deployment/{name}");
        let look = || async {
            let arguments =
                ["rollout", "status", "-n", &self.namespace, &deployment, "--timeout=5s"];
            self.cluster.kubectl(arguments).await.map(drop).map_err(|error| error.to_string())
        };
        Ok(self
            .cluster
            .wait_for(&self.namespace, &format!("{deployment} to be ready"), PODS_TIMEOUT, look)
            .await?)
    }

    /// The names from `kubectl get`.
    pub async fn object_names(&self, kind: &str, selector: &str) -> anyhow::Result<Vec<String>> {
        let text = self
            .cluster
            .kubectl(["get", kind, "-n", &self.namespace, "-l", selector, "-o", "name"])
            .await?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// An inference request for a row of the digits.
pub fn infer_request(row: &[f64]) -> serde_json::Value {
    json!({"inputs": [{"name": "X", "shape": [1, row.len()], "datatype": "FP32", "data": row}]})
}
