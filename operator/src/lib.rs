//! The I/O shell of the Slipway operator.
