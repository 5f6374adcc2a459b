//! Waits for conditions, always with a deadline.

use std::time::{Duration, Instant};

use crate::error::{HarnessError, Result};

/// Interval between two checks of a condition.
const INTERVAL: Duration = Duration::from_millis(100);

/// Polls until `condition` returns `Ok`; on a timeout its last message is in the error. The caller
/// adds the state of the cluster.
pub async fn until_ok<T, F>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = std::result::Result<T, String>>,
{
    let since = Instant::now();
    loop {
        // A check that hangs must not block the wait.
        let left = deadline.saturating_sub(since.elapsed());
        let last = match tokio::time::timeout(left.max(INTERVAL), condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(complaint)) => complaint,
            Err(_) => "no answer in time".into(),
        };
        if since.elapsed() >= deadline {
            return Err(HarnessError::Timeout {
                what: what.into(),
                after: deadline,
                last,
                state: String::new(),
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The same for conditions of the kernel, outside of any runtime.
pub fn until_blocking(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let since = Instant::now();
    while !condition() {
        if since.elapsed() >= deadline {
            return Err(HarnessError::Timeout {
                what: what.into(),
                after: deadline,
                last: "not yet".into(),
                state: String::new(),
            });
        }
        std::thread::sleep(INTERVAL / 5);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_complaint_is_reported() {
        let mut looks = 0;
        let look = || {
            looks += 1;
            let complaint = format!("look {looks}");
            async move { Err::<(), _>(complaint) }
        };
        let error = until_ok("a thing", Duration::ZERO, look).await.unwrap_err().to_string();
        assert!(error.contains("a thing: look 1"), "{error}");
    }

    #[tokio::test]
    async fn a_value_comes_back() {
        assert_eq!(
            until_ok("a value", Duration::from_secs(1), || async { Ok(7) }).await.unwrap(),
            7
        );
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_hang_the_wait() {
        let wait = until_ok(
            "a thing",
            Duration::ZERO,
            std::future::pending::<std::result::Result<(), String>>,
        );
        assert!(wait.await.unwrap_err().to_string().contains("no answer in time"));
    }
}
