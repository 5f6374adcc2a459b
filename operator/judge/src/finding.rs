//! The result of judging one gate.

use jiff::Timestamp;
use slipway_crds::v1alpha1::GateVerdict;

/// The result of judging one gate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GateFinding {
    pub(crate) verdict: GateVerdict,
    pub(crate) message: String,
    pub(crate) candidate: String,
    pub(crate) stable: String,
    pub(crate) consecutive: i32,
    pub(crate) last_look_time: Option<Timestamp>,
}

impl GateFinding {
    pub(crate) fn new(verdict: GateVerdict, message: impl Into<String>) -> Self {
        Self {
            verdict,
            message: message.into(),
            candidate: String::new(),
            stable: String::new(),
            consecutive: 0,
            last_look_time: None,
        }
    }

    pub(crate) fn no_data(why: impl Into<String>) -> Self {
        Self::new(GateVerdict::NoData, why)
    }
}
