//! Label sets of the series.

use prometheus_client::encoding::EncodeLabelSet;

/// Labels of a ModelDeployment.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) modeldeployment: String,
}

/// Labels of an outcome for clients.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ClientLabels {
    pub(super) modeldeployment: String,
    pub(super) outcome: &'static str,
}

/// Labels of a rejection reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) modeldeployment: String,
    pub(super) reason: &'static str,
}

/// Label of a file of the Secret `slipway-keys`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KeyLabels {
    pub(super) file: &'static str,
}

/// Labels of a revision.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RevisionLabels {
    pub(super) modeldeployment: String,
    pub(super) revision: String,
}

/// Labels of a revision in one role.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ArmLabels {
    pub(super) modeldeployment: String,
    pub(super) revision: String,
    pub(super) role: &'static str,
}

/// Labels of a revision in one role, and the outcome of requests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) modeldeployment: String,
    pub(super) revision: String,
    pub(super) role: &'static str,
    pub(super) outcome: &'static str,
}
