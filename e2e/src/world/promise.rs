//! Runs the test of a promise in its own namespace.

use anyhow::{Context, ensure};
use slipway_cluster::cluster::ClusterHandle;

use super::test_world::TestWorld;

/// Tests that disturb the whole cluster take this exclusively; all others share it.
static CLUSTER_LOCK: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Runs one test in its own namespace with a model store, in parallel with other tests. A failure
/// prints the state of the namespace.
pub async fn run_promise(
    prefix: &str,
    test: impl AsyncFnOnce(TestWorld) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _shared = CLUSTER_LOCK.read().await;
    run_in_namespace(prefix, test).await
}

/// The same for a test that stops the operator or Prometheus, or needs the whole machine: no other
/// test runs meanwhile.
pub async fn run_promise_alone(
    prefix: &str,
    test: impl AsyncFnOnce(TestWorld) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _alone = CLUSTER_LOCK.write().await;
    run_in_namespace(prefix, test).await
}

/// Environment variable: seconds since 1970 after which no promise starts, because the program that
/// runs the tests has a deadline.
const BEGIN_BEFORE: &str = "SLIPWAY_BEGIN_BEFORE";

/// Checks that a promise may still start.
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
