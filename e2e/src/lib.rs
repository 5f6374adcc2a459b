//! Harness, demo and end-to-end tests of Slipway on a real cluster.
