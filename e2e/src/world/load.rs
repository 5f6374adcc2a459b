//! The load generator of a namespace, and its account.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use slipway_cluster::error::in_words;

use super::account::{LoadAccount, SingleRequest};
use super::test_world::{PODS_TIMEOUT, TestWorld};

impl TestWorld {
    /// Starts the load generator at `rate` requests per second against `name`.
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

    /// Changes the rate of the load generator; 0 pauses it.
    pub async fn set_rate(&self, rate: u32) -> anyhow::Result<()> {
        let url = format!("{}/rate", self.service_url(&self.generator, 8090).await?);
        let answer = self.http.post(&url, None, &json!({"rate": rate})).await?;
        ensure!(answer.status.is_success(), "{url}: {answer:?}");
        Ok(())
    }

    /// The account of all requests so far.
    pub async fn account(&self) -> anyhow::Result<LoadAccount> {
        let url = format!("{}/account", self.service_url(&self.generator, 8090).await?);
        self.http.get(&url).await?.json()
    }

    /// Single requests that were sent since a time, in order of completion.
    pub async fn requests(&self, since: jiff::Timestamp) -> anyhow::Result<Vec<SingleRequest>> {
        let base = self.service_url(&self.generator, 8090).await?;
        let answer =
            self.http.get(&format!("{base}/account/requests?since={since}&limit=1000000")).await?;
        let text = String::from_utf8(answer.body.to_vec())?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The first failed requests, one per line, for messages.
    pub(super) async fn failed_requests(&self) -> String {
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
}
