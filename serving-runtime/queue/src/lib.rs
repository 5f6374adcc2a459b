//! The queue of jobs: [`job`] is the format, [`queue`] the interface of all queues, [`redis`] the
//! implementation on Redis Streams. The guarantees are in docs/queue.md.

pub mod job;
pub mod queue;
pub mod redis;
