//! A namespace with an operator in it, and the actions of tests on them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_operator::process::args::OperatorCli;
use slipway_operator::process::error::OperatorError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, Plane, free_port, plane};

/// A namespace for one test.
pub struct World {
    pub plane: &'static Plane,
    /// A client with all permissions.
    pub admin: Client,
    pub namespace: String,
}

/// An operator that runs in this process.
pub struct Operator {
    /// Its user, which identifies its requests in the audit log.
    pub user: String,
    /// Address of its admin server.
    pub admin: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), OperatorError>>,
}

impl World {
    /// Creates a new namespace.
    pub async fn new(name: &str) -> Self {
        let plane = plane().await;
        let admin = plane.admin();
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self { plane, admin, namespace: name.into() }
    }

    /// The API of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Starts an operator for this namespace.
    pub fn operator(&self, further: &[&str]) -> Operator {
        let user = self.plane.operator_user();
        let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let mut arguments =
            vec!["slipway-operator".to_owned(), format!("--namespace={}", self.namespace)];
        arguments.push(format!("--lease-namespace={}", self.namespace));
        arguments.push(format!("--admin-listen={admin}"));
        arguments.extend(further.iter().map(|a| (*a).to_owned()));
        let args = OperatorCli::parse_from(arguments).run;
        let stop = CancellationToken::new();
        let task = tokio::spawn(slipway_operator::process::run::run_in_cluster(
            self.plane.config(&user),
            args,
            stop.clone(),
        ));
        Operator { user, admin, stop, task }
    }

    pub async fn create(&self, name: &str, spec: Value) -> ModelDeployment {
        let object = serde_json::from_value(model(name, spec)).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Merges a change into a ModelDeployment.
    pub async fn merge(&self, name: &str, change: Value) {
        let api = self.api::<ModelDeployment>();
        api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// Waits until the condition holds for an object, and returns the object.
    pub async fn until<K>(&self, what: &str, name: &str, condition: impl Condition<K>) -> Option<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let awaited =
            tokio::time::timeout(DEADLINE, await_condition(self.api::<K>(), name, condition)).await;
        if let Ok(found) = awaited {
            return found.unwrap();
        }
        let now = self.api::<ModelDeployment>().get_opt(name).await;
        panic!("not in time: {what}; the ModelDeployment of that name: {now:#?}");
    }
}

impl Operator {
    /// Stops the operator and waits for its end.
    pub async fn end(self) -> Result<(), OperatorError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until the operator ends by itself.
    pub async fn ended(self) -> Result<(), OperatorError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the operator ends").unwrap()
    }

    /// The answer of `/readyz`.
    pub async fn readiness(&self) -> String {
        get(self.admin, "readyz").await
    }

    /// The answer of `/metrics`.
    pub async fn metrics(&self) -> String {
        get(self.admin, "metrics").await
    }
}

async fn get(admin: SocketAddr, path: &str) -> String {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    match client.get(format!("http://{admin}/{path}")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

/// A ModelDeployment as JSON.
pub fn model(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec})
}

/// A spec with one version and a digest, so that no pod has to report the digest.
pub fn spec(version: &str) -> Value {
    let digest = format!("sha256:{}", "0".repeat(64));
    json!({"model": {"version": version, "uri": format!("http://store/{version}/model.onnx"), "digest": digest}})
}

/// The same, rolled out in one step, with evidence that is read every second.
pub fn quick(version: &str) -> Value {
    let mut all = spec(version);
    all["strategy"] =
        json!({"canary": {"steps": [{"setWeight": 100}]}, "scaleDownDelaySeconds": 1});
    all["analysis"] = json!({"intervalSeconds": 1});
    all
}

/// Whether a version is stable and no rollout is running.
pub fn is_promoted(version: &str) -> impl Fn(Option<&ModelDeployment>) -> bool {
    move |object| {
        condition(object, "Reconciling").is_empty()
            && object
                .and_then(|o| o.status.as_ref()?.stable.as_ref())
                .is_some_and(|it| it.version == version)
    }
}

/// A condition of a ModelDeployment as `status/reason`.
pub fn condition(object: Option<&ModelDeployment>, type_: &str) -> String {
    let conditions =
        object.and_then(|o| o.status.as_ref()).map(|s| s.conditions.as_slice()).unwrap_or_default();
    conditions
        .iter()
        .find(|c| c.type_ == type_)
        .map(|c| format!("{}/{}", c.status, c.reason))
        .unwrap_or_default()
}
