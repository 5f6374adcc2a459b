//! Prediction ids. An answer carries one, and feedback with that id counts for the revision that
//! answered.
//!
//! `v2.<sample>.<sealed>`: `sample` is the number of the prediction in payload samples; `sealed`
//! is, in URL-safe base64, a nonce of 12 bytes (Unix seconds, then 8 random bytes), and under
//! ChaCha20-Poly1305 (RFC 8439) the revision, padded to a fixed length, and the predicted labels.
//! The key is derived from the Secret of the namespace for one ModelDeployment, so that an id
//! cannot be created, nor its revision be read, without that Secret.

#![warn(missing_docs)]

mod file;
mod id;
mod key;
mod label;
mod report;

pub use file::{KeyFileContent, TOKEN_BYTES, read_master, read_token};
pub use id::{
    InvalidPredictionId, MAX_REVISION, PREDICTION_ID_PURPOSE, PredictionId, PredictionIdSealer,
    is_revision,
};
pub use key::{ACCESS_PURPOSE, MasterKey, derive_key};
pub use label::{MAX_ROWS, PredictedLabel};
pub use report::PredictionReport;
