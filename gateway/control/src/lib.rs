//! The control plane side of the gateway: watches ModelDeployments and EndpointSlices ([`watch`]),
//! reads the parts that the gateway applies ([`resource`]), converts them to the configuration of
//! the data plane ([`convert`]), and reports the applied state to the operator ([`state`],
//! [`streams`]).

pub mod convert;
pub mod resource;
pub mod state;
pub mod streams;
pub mod watch;
