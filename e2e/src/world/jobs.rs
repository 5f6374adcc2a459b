//! Jobs: submitted at the stable address, queried, and sent by callback to the load generator,
//! which acts as the receiver.

use anyhow::{Context, ensure};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_contracts::paths::MODELS;
use standardwebhooks::Webhook;

use super::test_world::{PODS_TIMEOUT, TestWorld, infer_request};

/// Key that signs callbacks of tests and the demo.
pub(crate) const SIGNING_KEY: &str = "whsec_c2xpcHdheS1lMmUtc2xpcHdheS1lMmUtMDEyMw==";

/// A callback as the receiver got it.
#[derive(Debug, Clone, Deserialize)]
pub struct ReceivedCallback {
    /// When it was received.
    pub received_at: Timestamp,
    signature: [String; 3],
    body: String,
}

impl ReceivedCallback {
    /// The job in the callback, after the public library of Standard Webhooks has verified its
    /// signature.
    ///
    /// # Errors
    /// A signature that is missing or wrong, or a body that is not JSON.
    pub fn verify(&self) -> anyhow::Result<Value> {
        let [id, timestamp, signature] = &self.signature;
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse()?);
        headers.insert("webhook-timestamp", timestamp.parse()?);
        headers.insert("webhook-signature", signature.parse()?);
        Webhook::new(SIGNING_KEY)?
            .verify(self.body.as_bytes(), &headers)
            .with_context(|| format!("{self:?}"))?;
        let body: Value = serde_json::from_str(&self.body)?;
        ensure!(body["id"] == id.as_str(), "the signature is of {id}, the body says {body}");
        Ok(body)
    }
}

/// The broker of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueBroker {
    Redis,
    Nats,
}

impl QueueBroker {
    /// Name of its Deployment, its Service, its Secret and its file in `examples/`.
    fn app_name(self) -> &'static str {
        match self {
            Self::Redis => "queue-redis",
            Self::Nats => "queue-nats",
        }
    }

    fn url(self) -> &'static str {
        match self {
            Self::Redis => "redis://queue-redis:6379",
            Self::Nats => "nats://queue-nats:4222",
        }
    }

    /// The command that stops it from inside its container.
    fn stop_command(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["/usr/bin/redis-cli", "shutdown"],
            Self::Nats => &["/nats-server", "--signal", "quit=1"],
        }
    }

    /// Its part of `spec.server.queue`: the name and the value of the field.
    pub fn queue_field(self) -> (&'static str, Value) {
        let field = if self == Self::Redis { "redis" } else { "nats" };
        (field, json!({"urlSecretKeyRef": {"name": self.app_name(), "key": "url"}}))
    }
}

impl TestWorld {
    /// Creates the broker, and the Secrets with its address and with the key that signs callbacks.
    pub async fn create_queue(&self, broker: QueueBroker) -> anyhow::Result<()> {
        let app = broker.app_name();
        self.cluster.apply(&self.namespace, &self.example(&format!("{app}.yaml"))?).await?;
        for (name, literal) in
            [(app, format!("url={}", broker.url())), ("callbacks", format!("hmac={SIGNING_KEY}"))]
        {
            let literal = format!("--from-literal={literal}");
            self.cluster
                .kubectl(["create", "secret", "generic", name, "-n", &self.namespace, &literal])
                .await?;
        }
        self.wait_deployment_ready(app).await
    }

    /// Stops the broker's container, which restarts with its files.
    pub async fn restart_broker(&self, broker: QueueBroker) {
        let app = format!("deployment/{}", broker.app_name());
        let exec = ["exec", "-n", &self.namespace, &app, "--"];
        // The connection ends with the container, so the result of the command is meaningless.
        let _ = self.cluster.kubectl(exec.iter().chain(broker.stop_command())).await;
    }

    /// The address at which the load generator receives callbacks, and the network (one address)
    /// that contains it. The load generator need not run yet.
    pub async fn callbacks_url(&self) -> anyhow::Result<(String, String)> {
        let manifest = self
            .example("loadgen.yaml")?
            .replace("name: loadgen", &format!("name: {}", self.generator));
        let service = manifest
            .split("---\n")
            .find(|it| it.contains("kind: Service"))
            .context("no Service")?;
        self.cluster.apply(&self.namespace, service).await?;
        let service = [
            "get",
            "service",
            &self.generator,
            "-n",
            &self.namespace,
            "-o=jsonpath={.spec.clusterIP}",
        ];
        let address: std::net::IpAddr = self.cluster.kubectl(service).await?.trim().parse()?;
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Ok((format!("http://{}:8090/callbacks", self.generator), format!("{address}/{prefix}")))
    }

    /// Callbacks that the load generator received.
    pub async fn callbacks(&self) -> anyhow::Result<Vec<ReceivedCallback>> {
        let url = format!("{}/callbacks", self.service_url(&self.generator, 8090).await?);
        let text = String::from_utf8(self.http.get(&url).await?.body.to_vec())?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Submits a row of digits as job `number` of `name`, until it is accepted: a client without a
    /// 202 sends the job again, with the same key.
    pub async fn submit_job(
        &self,
        name: &str,
        number: usize,
        row: &[f64],
        callback: Option<&str>,
    ) -> anyhow::Result<String> {
        let url = format!("{}{MODELS}{name}/jobs", self.service_url(name, 80).await?);
        let mut job =
            json!({"data": infer_request(row), "idempotency_key": format!("job-{number}")});
        if let Some(callback) = callback {
            job["callback_url"] = json!(callback);
        }
        let post = || async {
            let answer =
                self.http.post(&url, Some(name), &job).await.map_err(|error| error.to_string())?;
            let body: Value = answer.json().map_err(|error| error.to_string())?;
            match (answer.status.as_u16(), body["id"].as_str()) {
                (202, Some(id)) => Ok(id.to_owned()),
                _ => Err(format!("{}: {body}", answer.status)),
            }
        };
        Ok(self.cluster.wait_for(&self.namespace, "a job to be taken", PODS_TIMEOUT, post).await?)
    }

    /// Waits until a job has succeeded; returns its JSON.
    pub async fn wait_job_succeeded(&self, name: &str, id: &str) -> anyhow::Result<Value> {
        let url = format!("{}/v2/jobs/{id}", self.service_url(name, 80).await?);
        let look = || async {
            let answer = self.http.get_with_host(&url, name).await;
            let body: Value = answer.and_then(|it| it.json()).map_err(|error| error.to_string())?;
            let done = body["status"] == "succeeded" && body["result"]["outputs"].is_array();
            if done { Ok(body) } else { Err(body.to_string()) }
        };
        Ok(self.cluster.wait_for(&self.namespace, "the job to succeed", PODS_TIMEOUT, look).await?)
    }
}
