//! What belongs to a namespace: the Lease that says which operator looks after it, the settings of
//! its gateway, and its keys.

pub mod keys;
pub mod lease_object;
pub mod lease_watch;
pub mod leases;
pub mod settings;
