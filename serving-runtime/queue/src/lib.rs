//! The queue of jobs: [`job`] is the format, [`queue`] what any queue must do, [`redis`] the one on
//! Redis Streams. What is promised is in docs/queue.md.

pub mod job;
pub mod queue;
pub mod redis;
