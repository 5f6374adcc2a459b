//! The control plane's side of the gateway: it watches ModelDeployments and EndpointSlices
//! ([`watch`]), reads of them what it applies ([`resource`]), converts that to the configuration of
//! the data plane ([`convert`]), and tells the operator what is in force ([`state`], [`streams`]).

pub mod convert;
pub mod resource;
pub mod state;
pub mod streams;
pub mod watch;
