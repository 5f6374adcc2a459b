//! What a test or the demo works in: a namespace with a model store, a load generator, and
//! ModelDeployments from `examples/`.

mod account;
mod http;
mod jobs;

use std::collections::BTreeMap;
use std::time::Duration;

pub use account::{LoadAccount, RevisionAccount, SingleRequest};
use anyhow::{Context, ensure};
pub use http::{HttpClient, HttpResponse};
pub use jobs::{QueueBroker, ReceivedCallback};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use slipway_crds::v1alpha1::{
    ModelDeployment, ModelDeploymentStatus, RevisionHeader, RolloutStage,
};

use crate::cluster::ClusterHandle;
use crate::error::in_words;

/// Field manager of tests: a person who edits with kubectl.
const FIELD_MANAGER: &str = "slipway-e2e";
/// How long pods may take to come up on a busy machine.
pub const PODS_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a whole rollout may take on a busy machine.
pub const ROLLOUT_TIMEOUT: Duration = Duration::from_secs(240);

/// A namespace and what is in it.
#[derive(Clone)]
pub struct TestWorld {
    /// The cluster.
    pub cluster: ClusterHandle,
    /// The namespace.
    pub namespace: String,
    /// Plain HTTP.
    pub http: HttpClient,
    /// Name of the load generator.
    pub generator: String,
}

/// Tests that disturb the whole cluster hold this alone; all others share it.
static CLUSTER_LOCK: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Runs one test in a namespace of its own, with the model store in it, beside other tests. A
/// failure prints the state of the namespace.
pub async fn run_promise(
    prefix: &str,
    test: impl AsyncFnOnce(TestWorld) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _shared = CLUSTER_LOCK.read().await;
    run_in_namespace(prefix, test).await
}

/// The same for a test that stops the operator or Prometheus, or needs the machine for itself: no
/// other test runs meanwhile.
pub async fn run_promise_alone(
    prefix: &str,
    test: impl AsyncFnOnce(TestWorld) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _alone = CLUSTER_LOCK.write().await;
    run_in_namespace(prefix, test).await
}

/// Seconds since 1970 after which no promise begins: what runs the tests has a deadline of its own.
const BEGIN_BEFORE: &str = "SLIPWAY_BEGIN_BEFORE";

/// Whether a promise may still begin.
fn check_begin_deadline(begin_before: Option<&str>, now: jiff::Timestamp) -> anyhow::Result<()> {
    let Some(moment) = begin_before else { return Ok(()) };
    let moment: i64 = moment
        .parse()
        .with_context(|| format!("{BEGIN_BEFORE}={moment} is no number of seconds"))?;
    ensure!(now.as_second() < moment, "not begun: it is too late to begin anything");
    Ok(())
}

async fn run_in_namespace(
    prefix: &str,
    test: impl AsyncFnOnce(TestWorld) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    check_begin_deadline(std::env::var(BEGIN_BEFORE).ok().as_deref(), jiff::Timestamp::now())?;
    let begun = std::time::Instant::now();
    let cluster = ClusterHandle::from_env().await?;
    let namespace = cluster.temp_namespace(prefix).await?;
    let world = TestWorld::new(cluster.clone(), namespace.name());
    let outcome = match world.prepare().await {
        Ok(()) => test(world.clone()).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        eprintln!("{prefix} failed: {error:#}\n{}", cluster.dump_state(namespace.name()).await);
        if let Ok(account) = world.account().await {
            eprintln!(
                "--- account\n{account:#?}\n--- failed requests\n{}",
                world.failed_requests().await
            );
        }
    }
    namespace.delete().await?;
    eprintln!("{prefix}: {:.0} s", begun.elapsed().as_secs_f64());
    outcome
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

    /// Restricted Pod Security for everything in the namespace, and the model store.
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

    /// A ModelDeployment of `examples/`, quick enough for a test.
    pub fn quick_example(&self, file: &str) -> anyhow::Result<ModelDeployment> {
        let mut object: ModelDeployment = serde_yaml::from_str(&self.example(file)?)?;
        object.spec.analysis.interval_seconds = 1;
        object.spec.strategy.scale_down_delay_seconds = 3;
        // Accounts are kept by revision.
        object.spec.traffic.revision_header = Some(RevisionHeader::default());
        Ok(object)
    }

    /// Applies a ModelDeployment as a person would.
    pub async fn apply(&self, object: &ModelDeployment) -> anyhow::Result<()> {
        self.cluster.apply(&self.namespace, &serde_json::to_string(object)?).await?;
        Ok(())
    }

    /// ModelDeployments of the namespace.
    pub fn model_deployments(&self) -> Api<ModelDeployment> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// The status of a ModelDeployment, or what is missing.
    pub async fn status(&self, name: &str) -> Result<ModelDeploymentStatus, String> {
        let object = self.model_deployments().get(name).await.map_err(|error| in_words(&error))?;
        let generation = object.metadata.generation;
        let status = object.status.ok_or("no status yet")?;
        match status.observed_generation == generation {
            true => Ok(status),
            false => Err(format!(
                "status is of generation {:?}, the spec of {generation:?}",
                status.observed_generation
            )),
        }
    }

    /// Waits until the status of `name` satisfies `condition`, and returns it.
    pub async fn wait_for_status(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&ModelDeploymentStatus) -> Result<(), String>,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let look = || async {
            let status = self.status(name).await?;
            condition(&status).map(|()| status)
        };
        Ok(self.cluster.wait_for(&self.namespace, what, deadline, look).await?)
    }

    /// Applies the first version and waits until it serves with all its replicas.
    pub async fn start_model(&self, object: &ModelDeployment) -> anyhow::Result<String> {
        self.apply(object).await?;
        let name = deployment_name(object);
        let status = self
            .wait_for_status(name, "the first version to be ready", PODS_TIMEOUT, check_ready)
            .await?;
        Ok(stable_revision(&status))
    }

    /// Waits until `version` is promoted.
    pub async fn wait_promoted(
        &self,
        name: &str,
        version: &str,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let what = format!("{version} to be promoted");
        self.wait_for_status(name, &what, ROLLOUT_TIMEOUT, |status| match &status.stable {
            Some(stable) if stable.version == version && status.rollout.is_none() => Ok(()),
            _ => Err(describe_status(status)),
        })
        .await
    }

    /// Waits until the candidate `version` is taken back.
    pub async fn wait_aborted(
        &self,
        name: &str,
        version: &str,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let what = format!("{version} to be taken back");
        self.wait_for_status(name, &what, ROLLOUT_TIMEOUT, |status| {
            let is_candidate =
                status.rollout.as_ref().is_some_and(|rollout| rollout.version == version);
            let left = status
                .rollout
                .as_ref()
                .and_then(|rollout| rollout.abort.as_ref()?.traffic_left_time.as_ref());
            if is_candidate && left.is_some() { Ok(()) } else { Err(describe_status(status)) }
        })
        .await
    }

    /// Waits until the candidate has the confirmed weight (in thousandths) and the judge or a pause
    /// holds it.
    pub async fn wait_for_weight(
        &self,
        name: &str,
        permille: i32,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let what = format!("the candidate to have {permille} thousandths");
        self.wait_for_status(name, &what, ROLLOUT_TIMEOUT, |status| {
            let settled = status.rollout.as_ref().is_some_and(|rollout| {
                matches!(
                    rollout.stage,
                    RolloutStage::Analyzing | RolloutStage::Paused | RolloutStage::Probation
                ) && rollout.steps.last().is_some_and(|step| {
                    step.weight_permille == permille && step.confirmed_time.is_some()
                })
            });
            if settled { Ok(()) } else { Err(describe_status(status)) }
        })
        .await
    }

    /// Sets an annotation, for people's commands.
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

    /// Starts the load generator at `rate` requests a second against `name`.
    pub async fn start_load(&self, name: &str, rate: u32) -> anyhow::Result<()> {
        self.start_load_as(name, name, rate).await
    }

    /// The same with requests that name `host`.
    pub async fn start_load_as(&self, name: &str, host: &str, rate: u32) -> anyhow::Result<()> {
        let manifest = self
            .example("loadgen.yaml")?
            .replace("--rate=200", &format!("--rate={rate}"))
            .replace(
                "- --target=http://digits",
                &format!("- --target=http://{name}\n            - --host={host}"),
            )
            .replace("--feedback-target=http://digits", &format!("--feedback-target=http://{name}"))
            .replace("name: loadgen", &format!("name: {}", self.generator));
        self.cluster.apply(&self.namespace, &manifest).await?;
        self.wait_deployment_ready(&self.generator).await?;
        let flows = || async {
            let account = self.account().await.map_err(|error| in_words(error.as_ref()))?;
            if account.answered > 0 { Ok(()) } else { Err(format!("{account:?}")) }
        };
        self.cluster
            .wait_for(&self.namespace, "requests to be answered", PODS_TIMEOUT, flows)
            .await?;
        Ok(())
    }

    /// The token of the namespace.
    pub async fn token(&self) -> anyhow::Result<String> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        let secret = secrets.get("slipway-keys").await?;
        let token =
            secret.data.unwrap_or_default().remove("token").context("no token in the Secret")?;
        Ok(String::from_utf8(token.0)?)
    }

    /// Changes the rate of the load generator; 0 pauses it.
    pub async fn set_rate(&self, rate: u32) -> anyhow::Result<()> {
        let url = format!("{}/rate", self.service_url(&self.generator, 8090).await?);
        let answer = self.http.post(&url, None, &json!({"rate": rate})).await?;
        anyhow::ensure!(answer.status.is_success(), "{url}: {answer:?}");
        Ok(())
    }

    /// The account of all requests so far.
    pub async fn account(&self) -> anyhow::Result<LoadAccount> {
        let url = format!("{}/account", self.service_url(&self.generator, 8090).await?);
        self.http.get(&url).await?.json()
    }

    /// Single requests that were sent since a moment, in order of completion.
    pub async fn requests(&self, since: jiff::Timestamp) -> anyhow::Result<Vec<SingleRequest>> {
        let base = self.service_url(&self.generator, 8090).await?;
        let answer =
            self.http.get(&format!("{base}/account/requests?since={since}&limit=1000000")).await?;
        let text = String::from_utf8(answer.body.to_vec())?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The first requests that failed, a line each, for people.
    async fn failed_requests(&self) -> String {
        let answer = async {
            let base = self.service_url(&self.generator, 8090).await?;
            self.http.get(&format!("{base}/account/requests?failed=true&limit=50")).await
        };
        answer.await.map_or_else(
            |error| error.to_string(),
            |it| String::from_utf8_lossy(&it.body).into_owned(),
        )
    }

    /// Stops the load, waits for the last answers, and checks that every request is accounted for
    /// and none failed.
    pub async fn finish_load(&self) -> anyhow::Result<LoadAccount> {
        self.set_rate(0).await?;
        let look = || async {
            let account = self.account().await.map_err(|error| in_words(error.as_ref()))?;
            if account.in_flight == 0 {
                Ok(account)
            } else {
                Err(format!("{} in flight", account.in_flight))
            }
        };
        let account = self
            .cluster
            .wait_for(&self.namespace, "the last answers", Duration::from_secs(40), look)
            .await?;
        account.check_complete()?;
        Ok(account)
    }

    /// What Prometheus answers to a query that asks for one number; `None` when nothing matches.
    pub async fn query_prometheus(&self, query: &str) -> anyhow::Result<Option<f64>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("{}/api/v1/query?query={encoded}", self.cluster.prometheus_url()?);
        let answer: serde_json::Value = self.http.get(&url).await?.json()?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"][0]["value"][1].as_str().map(str::parse).transpose()?)
    }

    /// Base URL by which tests reach a Service of the namespace, once it takes connections: it
    /// refuses them until its endpoints have reached the node's proxy, which no condition of any
    /// object tells.
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

    /// `kubectl get` of names, a line each.
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

/// Name of a ModelDeployment.
pub fn deployment_name(object: &ModelDeployment) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// The revision that serves; empty when none does.
pub fn stable_revision(status: &ModelDeploymentStatus) -> String {
    status.stable.as_ref().map(|stable| stable.revision.clone()).unwrap_or_default()
}

/// The candidate's revision; empty when there is none.
pub fn candidate_revision(status: &ModelDeploymentStatus) -> String {
    status.candidate.as_ref().map(|candidate| candidate.revision.clone()).unwrap_or_default()
}

/// The weights by revision, in thousandths.
pub fn revision_weights(status: &ModelDeploymentStatus) -> BTreeMap<String, i32> {
    let backends = status.traffic.iter().flat_map(|traffic| &traffic.backends);
    backends.map(|backend| (backend.revision.clone(), backend.weight_permille)).collect()
}

/// Ready, with the reason when not.
pub fn check_ready(status: &ModelDeploymentStatus) -> Result<(), String> {
    match find_condition(status, "Ready") {
        Some(("True", _)) => Ok(()),
        _ => Err(describe_status(status)),
    }
}

/// Status and reason of a condition.
pub fn find_condition<'a>(
    status: &'a ModelDeploymentStatus,
    kind: &str,
) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.as_str(), found.reason.as_str()))
}

/// A status in one line, for the complaint of a wait that runs out.
pub fn describe_status(status: &ModelDeploymentStatus) -> String {
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!(
                "{}={} {}: {}",
                condition.type_, condition.status, condition.reason, condition.message
            )
        })
        .collect();
    let version = |revision: &Option<slipway_crds::v1alpha1::RevisionStatus>| {
        revision.as_ref().map_or_else(
            || "-".to_owned(),
            |it| format!("{} {}/{}", it.version, it.ready_replicas, it.replicas),
        )
    };
    let stage = status.rollout.as_ref().map(|rollout| (rollout.stage, rollout.step.clone()));
    format!(
        "stable {}, candidate {}, {stage:?}; {}",
        version(&status.stable),
        version(&status.candidate),
        conditions.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::check_begin_deadline;

    #[test]
    fn no_promise_begins_after_the_moment() {
        let now = jiff::Timestamp::from_second(100).unwrap();
        assert!(
            check_begin_deadline(None, now).is_ok()
                && check_begin_deadline(Some("101"), now).is_ok()
        );
        assert!(
            check_begin_deadline(Some("100"), now).unwrap_err().to_string().contains("not begun")
        );
        assert!(
            check_begin_deadline(Some("soon"), now)
                .unwrap_err()
                .to_string()
                .contains("SLIPWAY_BEGIN_BEFORE=soon")
        );
    }
}
