//! True labels, sent in small batches over a separate connection: one request for each label would
//! double the load.

use std::sync::Arc;
use std::time::Duration;

use slipway_contracts::paths::MODELS;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::account::RequestAccount;
use crate::client::{LoadTarget, TargetConnection};
use crate::protocol::{accepted_count, feedback_body};
use crate::reason::FailureReason;

/// Number of labels in one request.
const BATCH_SIZE: usize = 32;
/// How long the first label of a batch waits for others.
const BATCH_DELAY: Duration = Duration::from_millis(100);
/// Labels that may wait. More means that feedback is slower than inference.
const QUEUE_CAPACITY: usize = 10_000;

/// The queue of labels, used by workers.
pub(crate) struct FeedbackQueue {
    share: f64,
    queue: mpsc::Sender<(String, i64)>,
    account: Arc<RequestAccount>,
}

/// Takes labels from the queue and sends them.
pub(crate) struct FeedbackSender {
    queue: mpsc::Receiver<(String, i64)>,
    connection: TargetConnection,
    path: String,
    account: Arc<RequestAccount>,
}

/// Both ends of the queue. `share` of all answered requests get feedback.
pub(crate) fn feedback_channel(
    share: f64,
    model: &str,
    target: &Arc<LoadTarget>,
    account: &Arc<RequestAccount>,
) -> (FeedbackQueue, FeedbackSender) {
    let (queue, receiver) = mpsc::channel(QUEUE_CAPACITY);
    let sender = FeedbackSender {
        queue: receiver,
        connection: TargetConnection::new(Arc::clone(target)),
        path: format!("{MODELS}{model}/feedback"),
        account: Arc::clone(account),
    };
    (FeedbackQueue { share, queue, account: Arc::clone(account) }, sender)
}

impl FeedbackQueue {
    /// Queues feedback for one answer, if its number is in the share; never waits.
    pub(crate) fn offer(&self, number: u64, prediction_id: Option<String>, label: i64) {
        if !in_share(number, self.share) {
            return;
        }
        let taken = prediction_id.is_some_and(|id| self.queue.try_send((id, label)).is_ok());
        if !taken {
            self.account.update_feedback(|counts| counts.dropped += 1);
        }
    }
}

/// Spreads a share evenly and exactly: selects each number at which the running total grows by one.
fn in_share(number: u64, share: f64) -> bool {
    ((number + 1) as f64 * share).floor() > (number as f64 * share).floor()
}

impl FeedbackSender {
    /// Sends until all queue handles are dropped and the queue is empty.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = vec![first];
            let deadline = Instant::now() + BATCH_DELAY;
            while batch.len() < BATCH_SIZE {
                match timeout_at(deadline, self.queue.recv()).await {
                    Ok(Some(item)) => batch.push(item),
                    Ok(None) | Err(_) => break,
                }
            }
            self.send_batch(&batch).await;
        }
    }

    async fn send_batch(&mut self, batch: &[(String, i64)]) {
        let count = batch.len() as u64;
        let exchange = self.connection.post(&self.path, feedback_body(batch)).await;
        let outcome = match exchange {
            Ok(exchange) if (200..300).contains(&exchange.status) => {
                exchange.body.map(|body| accepted_count(&body, batch.len()))
            }
            Ok(exchange) => Err(FailureReason::Status(exchange.status)),
            Err(reason) => Err(reason),
        };
        self.account.update_feedback(|counts| {
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
