//! True labels, sent back in small batches over a connection of their own: one request for each label would double the load.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::account::Account;
use super::client::{Connection, Target};
use super::protocol::{accepted, feedback_body};
use super::reason::Reason;

/// Labels in one request.
const BATCH: usize = 32;
/// How long the first label of a batch waits for others.
const LINGER: Duration = Duration::from_millis(100);
/// Labels that may wait. More means that feedback is slower than inference.
const QUEUE: usize = 10_000;

/// Where workers put labels.
pub(crate) struct Sink {
    share: f64,
    queue: mpsc::Sender<(String, i64)>,
    account: Arc<Account>,
}

/// Takes labels from the queue.
pub(crate) struct Sender {
    queue: mpsc::Receiver<(String, i64)>,
    connection: Connection,
    path: String,
    account: Arc<Account>,
}

/// Both ends. `share` of all answered requests get feedback.
pub(crate) fn channel(share: f64, model: &str, target: &Arc<Target>, account: &Arc<Account>) -> (Sink, Sender) {
    let (queue, receiver) = mpsc::channel(QUEUE);
    let sender = Sender {
        queue: receiver,
        connection: Connection::new(Arc::clone(target)),
        path: format!("/v2/models/{model}/feedback"),
        account: Arc::clone(account),
    };
    (Sink { share, queue, account: Arc::clone(account) }, sender)
}

impl Sink {
    /// Feedback for one answer, when its number is in the share; never waits.
    pub(crate) fn offer(&self, number: u64, prediction_id: Option<String>, label: i64) {
        if !in_share(number, self.share) {
            return;
        }
        let taken = prediction_id.is_some_and(|id| self.queue.try_send((id, label)).is_ok());
        if !taken {
            self.account.feedback(|counts| counts.dropped += 1);
        }
    }
}

/// Spreads a share evenly and exactly: each number in which the running total grows by one.
fn in_share(number: u64, share: f64) -> bool {
    ((number + 1) as f64 * share).floor() > (number as f64 * share).floor()
}

impl Sender {
    /// Sends until all sinks are gone and the queue is empty.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = vec![first];
            let deadline = Instant::now() + LINGER;
            while batch.len() < BATCH {
                match timeout_at(deadline, self.queue.recv()).await {
                    Ok(Some(item)) => batch.push(item),
                    Ok(None) | Err(_) => break,
                }
            }
            self.send(&batch).await;
        }
    }

    async fn send(&mut self, batch: &[(String, i64)]) {
        let count = batch.len() as u64;
        let exchange = self.connection.post(&self.path, feedback_body(batch)).await;
        let outcome = match exchange {
            Ok(exchange) if (200..300).contains(&exchange.status) => {
                exchange.body.map(|body| accepted(&body, batch.len()))
            }
            Ok(exchange) => Err(Reason::Status(exchange.status)),
            Err(reason) => Err(reason),
        };
        self.account.feedback(|counts| {
            counts.sent += count;
            match outcome {
                Ok(accepted) => {
                    counts.accepted += accepted.min(count);
                    counts.rejected += count.saturating_sub(accepted);
                }
                Err(reason) => *counts.failed.entry(reason).or_default() += count,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::in_share;

    #[test]
    fn a_share_is_exact() {
        for (share, expected) in [(0.0, 0), (0.1, 100), (0.25, 250), (0.5, 500), (1.0, 1000)] {
            let count = (0..1000).filter(|number| in_share(*number, share)).count();
            assert!(count.abs_diff(expected) <= 1, "{share}: {count}");
        }
    }
}
