//! The public contract of Slipway: API types and the YAML generated from them.
