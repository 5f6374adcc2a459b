//! The data plane of Slipway: exact weights, stickiness, shield, brake.
