//! The queue on NATS JetStream (2.12 and newer).
//!
//! One stream keeps everything of a queue, so that a step that touches several things is one atomic
//! batch (NATS ADR-50): a job with its entry and its key of idempotency, an end with its callback
//! and counters. The job's own message is the truth, changed only when it is still as it
//! was read; the entries are what consumers hand out, each with a lease, and one that is
//! acknowledged is gone. An entry that outlives its job, as after a crash between a job's end and
//! the acknowledgement, is handed out once more and found to be a duplicate.

mod batcher;
mod capacity;
mod connection;
mod counters;
mod errors;
mod limits;
mod nats_queue;
mod operations;
mod record;
mod store;
mod subjects;

pub use self::nats_queue::NatsQueue;
