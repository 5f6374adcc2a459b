//! The queue on NATS JetStream (2.12 and newer).
//!
//! One stream stores everything of a queue, so that a step with several writes is one atomic batch
//! (NATS ADR-50): a job with its entry and its idempotency key, or a completion with its callback
//! and counters. The job's own message is authoritative and is changed only if it is still as it
//! was read. Consumers deliver the entries, each with a lease; an acknowledged entry is deleted. An
//! entry that outlives its job, for example after a crash between the job's completion and the
//! acknowledgement, is delivered once more and detected as a duplicate.

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
