//! The policies of the gateway, without any I/O: the slot of the split that a request falls into
//! ([`split`]), the pod for equal requests ([`affinity`]), when a candidate is taken out
//! ([`brake`]), the limit on replays ([`budget`]), time limits ([`latency`]), and the part of
//! shared resources that one ModelDeployment may use ([`share`], [`uploads`]). Clocks are passed
//! in.
//!
//! Besides, the vocabulary of the data plane: its configuration ([`config`]), how requests end
//! ([`outcome`], [`failure`], [`refusal`]), and the required parts of gRPC ([`grpc`], [`message`]).

pub mod affinity;
pub mod brake;
pub mod budget;
pub mod config;
pub mod failure;
pub mod grpc;
pub mod latency;
pub mod message;
pub mod outcome;
pub mod refusal;
pub mod share;
pub mod split;
pub mod uploads;
