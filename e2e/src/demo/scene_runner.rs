//! Runs one scene of the demo: applies a version, watches the output of `kubectl get
//! modeldeployments`, and records the result.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use slipway_crds::labels::ABORT;
use slipway_crds::v1alpha1::{ModelDeploymentStatus, RolloutStage};

use super::table::RolloutRow;
use crate::world::{self, TestWorld};

/// How long a scene may take.
const SCENE_TIMEOUT: Duration = Duration::from_secs(420);

/// Widths of the columns of `kubectl get modeldeployments`, without the age, which changes
/// constantly.
const COLUMN_WIDTHS: [usize; 6] = [10, 6, 9, 10, 7, 24];

/// The cells of a table of kubectl. Its columns begin at the positions of the words in the first
/// line; cells may be empty.
fn parse_cells(text: &str) -> Vec<Vec<String>> {
    let header = text.lines().next().unwrap_or_default();
    let begins = |at: &usize| {
        header[*at..].starts_with(|c: char| !c.is_whitespace())
            && (*at == 0 || header[..*at].ends_with(' '))
    };
    let starts: Vec<usize> =
        (0..header.len()).filter(|at| header.is_char_boundary(*at)).filter(begins).collect();
    let cut = |line: &str| -> Vec<String> {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        starts
            .iter()
            .zip(ends)
            .map(|(from, to)| {
                line.get(*from..to.min(line.len())).unwrap_or_default().trim().to_owned()
            })
            .collect()
    };
    text.lines().map(cut).collect()
}

/// Prints what happens, in a form that differs from kubectl's output.
pub(super) fn print_heading(text: &str) {
    println!("\n=== {text}");
}

/// Runs the scenes of the demo in its namespace.
pub(super) struct SceneRunner {
    pub(super) world: TestWorld,
    /// Version by revision, for the account.
    versions: Mutex<BTreeMap<String, String>>,
}

impl SceneRunner {
    pub(super) fn new(world: TestWorld) -> Self {
        Self { world, versions: Mutex::default() }
    }

    /// The same namespace with the load generator of blue-green.
    pub(super) fn blue_green_world(&self) -> TestWorld {
        TestWorld { generator: "loadgen-bg".into(), ..self.world.clone() }
    }

    /// Versions by revision.
    pub(super) fn version_names(&self) -> BTreeMap<String, String> {
        self.versions.lock().map(|names| names.clone()).unwrap_or_default()
    }

    fn remember_versions(&self, status: &ModelDeploymentStatus) {
        let Ok(mut names) = self.versions.lock() else { return };
        for seen in [&status.stable, &status.candidate].into_iter().flatten() {
            names.insert(seen.revision.clone(), seen.version.clone());
        }
    }

    /// Applies the first version and waits until it serves.
    pub(super) async fn deploy_first(&self, name: &str, file: &str) -> anyhow::Result<()> {
        self.kubectl_apply(file).await?;
        self.watch_until(name, |status| world::check_ready(status).is_ok()).await?;
        Ok(())
    }

    /// The same with one text of the file replaced by another, which is printed.
    pub(super) async fn deploy_first_with(
        &self,
        name: &str,
        file: &str,
        from: &str,
        to: &str,
    ) -> anyhow::Result<()> {
        println!("$ sed 's|{from}|{to}|' examples/{file} | kubectl apply -f -");
        let text = self.world.example(file)?;
        anyhow::ensure!(text.contains(from), "no {from} in {file}");
        self.world.cluster.apply(&self.world.namespace, &text.replace(from, to)).await?;
        self.watch_until(name, |status| world::check_ready(status).is_ok()).await?;
        Ok(())
    }

    /// Rolls a version out and waits for the end of the rollout, whatever it is.
    pub(super) async fn run_rollout(
        &self,
        name: &str,
        file: &str,
        version: &str,
    ) -> anyhow::Result<RolloutRow> {
        let since = Timestamp::now();
        self.kubectl_apply(file).await?;
        let status = self.watch_until(name, |status| rollout_ended(status, version)).await?;
        self.rollout_row(&self.world, since, &status).await
    }

    /// Runs blue-green until the probation, then aborts it as a user.
    pub(super) async fn abort_blue_green(
        &self,
        file: &str,
        version: &str,
    ) -> anyhow::Result<RolloutRow> {
        let since = Timestamp::now();
        self.kubectl_apply(file).await?;
        let warm = |status: &ModelDeploymentStatus| {
            status.rollout.as_ref().is_some_and(|rollout| rollout.stage == RolloutStage::Probation)
        };
        self.watch_until("digits-bg", warm).await?;
        print_heading("green has all the traffic, blue is still warm; a person aborts");
        println!("$ kubectl annotate modeldeployment digits-bg {ABORT}=1");
        self.world.annotate("digits-bg", ABORT, "1").await?;
        let status = self.watch_until("digits-bg", |status| rollout_ended(status, version)).await?;
        self.rollout_row(&self.blue_green_world(), since, &status).await
    }

    async fn kubectl_apply(&self, file: &str) -> anyhow::Result<()> {
        println!("$ kubectl apply -f examples/{file}");
        let path =
            self.world.cluster.layout().root().join("examples").join(file).display().to_string();
        print!(
            "{}",
            self.world.cluster.kubectl(["apply", "-n", &self.world.namespace, "-f", &path]).await?
        );
        Ok(())
    }

    /// Prints the row of `kubectl get modeldeployments` whenever it changes, until `done`.
    async fn watch_until(
        &self,
        name: &str,
        done: impl Fn(&ModelDeploymentStatus) -> bool,
    ) -> anyhow::Result<ModelDeploymentStatus> {
        let shown = Mutex::new(String::new());
        let begun = Instant::now();
        let what = format!("{name} to get there");
        let look = || async {
            self.print_changed_row(name, begun, &shown).await.map_err(|error| error.to_string())?;
            let status = self.world.status(name).await?;
            self.remember_versions(&status);
            if done(&status) { Ok(status) } else { Err(super::describe_status(&status)) }
        };
        let status = slipway_cluster::wait::until_ok(&what, SCENE_TIMEOUT, look).await?;
        self.print_changed_row(name, begun, &shown).await?;
        Ok(status)
    }

    async fn print_changed_row(
        &self,
        name: &str,
        begun: Instant,
        shown: &Mutex<String>,
    ) -> anyhow::Result<()> {
        let text = self
            .world
            .cluster
            .kubectl(["get", "modeldeployments", "-n", &self.world.namespace, name])
            .await?;
        let rows: Vec<Vec<String>> = parse_cells(&text)
            .into_iter()
            .map(|row| row[..row.len().saturating_sub(1)].to_vec())
            .collect();
        let key = rows.last().map(|row| row.join("|")).unwrap_or_default();
        let mut shown = shown.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        if *shown != key {
            let elapsed = begun.elapsed().as_secs_f64();
            for row in rows.iter().skip(usize::from(!shown.is_empty())) {
                let line: Vec<String> = row
                    .iter()
                    .zip(COLUMN_WIDTHS)
                    .map(|(cell, width)| format!("{cell:<width$}"))
                    .collect();
                println!("{elapsed:6.1} s  {}", line.join(" ").trim_end());
            }
            *shown = key;
        }
        Ok(())
    }

    /// The row of the table for a rollout: its record, and the account of requests for a version
    /// that was rolled back.
    async fn rollout_row(
        &self,
        world: &TestWorld,
        since: Timestamp,
        status: &ModelDeploymentStatus,
    ) -> anyhow::Result<RolloutRow> {
        let record = status.history.first().cloned().context("no record of the rollout")?;
        let requests = world.requests(since).await?;
        let reached: Vec<_> =
            requests.iter().filter(|request| request.went_to(&record.revision)).collect();
        let blamed = requests
            .iter()
            .filter(|request| request.blames(&record.revision))
            .map(|request| request.sent_at)
            .min();
        let last = reached.iter().map(|request| request.sent_at).max();
        let abort =
            status.rollout.as_ref().and_then(|rollout| Some(rollout.abort.as_ref()?.time.0));
        let between = |from: Option<Timestamp>| {
            Some(Duration::try_from(last?.duration_since(from?)).unwrap_or_default())
        };
        Ok(RolloutRow {
            after_bad: abort.and_then(|_| between(blamed)),
            after_abort: between(abort),
            requests: reached.len(),
            record,
        })
    }
}

/// Whether the rollout of `version` has ended, by promotion or abort.
fn rollout_ended(status: &ModelDeploymentStatus, version: &str) -> bool {
    let promoted = status.rollout.is_none()
        && status.stable.as_ref().is_some_and(|stable| stable.version == version);
    let left = status
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.abort.as_ref()?.traffic_left_time.as_ref());
    let candidate = status.rollout.as_ref().is_some_and(|rollout| rollout.version == version);
    promoted || candidate && left.is_some()
}

#[cfg(test)]
mod tests {
    use super::parse_cells;

    #[test]
    fn empty_cells_keep_their_place() {
        let table = "NAME     STABLE   CANDIDATE   AGE\ndigits   v2                   58s\n";
        assert_eq!(parse_cells(table)[1], ["digits", "v2", "", "58s"]);
    }
}
