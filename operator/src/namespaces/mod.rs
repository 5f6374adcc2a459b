//! State of a namespace: the Lease that names the operator that manages it, the settings of its
//! gateway, and its keys.

pub mod keys;
pub mod lease_object;
pub mod lease_watch;
pub mod leases;
pub mod settings;
