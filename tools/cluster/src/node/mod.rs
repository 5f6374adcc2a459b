//! One node with its control plane: what it is made of, how it comes up and how it goes.

pub mod addons;
pub mod components;
pub mod config;
pub mod down;
pub mod netns;
pub mod pki;
pub mod up;
