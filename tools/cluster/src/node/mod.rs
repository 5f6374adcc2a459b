//! One node with its control plane: its parts, how it starts and how it is removed.

pub mod addons;
pub mod components;
pub mod config;
pub mod down;
pub mod netns;
pub mod pki;
pub mod up;
