//! The policies of the gateway, without any I/O: which slot of the split a request falls into
//! ([`split`]), which pod equal requests meet ([`affinity`]), when a candidate is taken out
//! ([`brake`]), what replays may cost ([`budget`]), what "in time" means ([`latency`]), and what
//! one ModelDeployment may take of what all share ([`share`], [`uploads`]). Clocks are passed in.
//!
//! Beside them the words of the data plane: what it is told ([`config`]), how requests end
//! ([`outcome`], [`failure`], [`refusal`]), and the little of gRPC that it must know ([`grpc`],
//! [`message`]).

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
