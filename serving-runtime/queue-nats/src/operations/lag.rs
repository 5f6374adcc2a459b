//! How many jobs wait, and for how long.

use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::job::JobPriority;
use slipway_runtime_queue::queue::{QueueError, QueueLag};

use crate::connection::JetStreamConnection;
use crate::counters::CounterLedger;
use crate::nats_queue::NatsQueueInner;
use crate::store;

impl NatsQueueInner {
    pub(crate) async fn measure_lag(
        &self,
        link: &JetStreamConnection,
    ) -> Result<QueueLag, QueueError> {
        let entries = self.subjects.every_entry();
        let (infos, sums, oldest) = futures::future::try_join3(
            link.consumer_infos(),
            CounterLedger::totals(link, &self.subjects),
            store::first_written(link, &entries, 1),
        )
        .await?;
        let (work, calls) = infos.split_at(JobPriority::ALL.len().min(infos.len()));
        let (mut callbacks, mut late) = (0, 0);
        if let Some(calls) = calls.first() {
            callbacks = calls.num_pending + calls.num_ack_pending as u64;
            if calls.num_pending > 0 {
                let next = calls.delivered.stream_sequence + 1;
                let written = store::first_written(link, &self.subjects.callbacks(), next).await?;
                late = written.map_or(0, |at| now_millis().saturating_sub(at));
            }
        }
        Ok(QueueLag {
            waiting: work.iter().map(|info| info.num_pending).sum(),
            taken: work.iter().map(|info| info.num_ack_pending as u64).sum(),
            oldest: oldest.map_or(0, |at| now_millis().saturating_sub(at)),
            callbacks,
            callbacks_late: late,
            totals: sums
                .into_iter()
                .filter_map(|(name, n)| Some((name, u64::try_from(n).ok()?)))
                .collect(),
        })
    }
}
