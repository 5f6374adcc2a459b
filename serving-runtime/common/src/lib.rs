//! What the rooms of the model server share, and what is none of theirs: the keys of the namespace,
//! the seal of entries that are kept where others write too, the clock, and spans of calls.

pub mod clock;
pub mod keys;
pub mod seal;
pub mod trace;
