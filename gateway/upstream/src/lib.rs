//! Sends requests to the pods of one arm: the choice of the pod ([`endpoint`]), its connections
//! ([`pool`], [`calls`]), a request to it ([`send`]), and the bodies of request and answer
//! ([`upload`], [`download`]), as far as they are kept in memory ([`buffer`]).

pub mod buffer;
pub mod calls;
pub mod download;
pub mod endpoint;
pub mod pool;
pub mod send;
pub mod upload;
