//! What the crates of the model server share: the keys of the namespace, the seal of entries in
//! shared stores, the clock, and tracing spans of calls.

pub mod clock;
pub mod keys;
pub mod seal;
pub mod trace;
