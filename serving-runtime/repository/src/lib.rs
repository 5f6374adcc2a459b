//! The repository of further models of a model server: what lies in its [`directory`] is tried in a
//! [`sandbox`] and loaded when clients ask for it.

pub mod args;
pub mod directory;
pub mod sandbox;
