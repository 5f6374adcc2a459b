//! Labels of the series.

use prometheus_client::encoding::EncodeLabelSet;

/// Of a ModelDeployment.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) modeldeployment: String,
}

/// Of what its clients saw.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ClientLabels {
    pub(super) modeldeployment: String,
    pub(super) outcome: &'static str,
}

/// Of what was rejected.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) modeldeployment: String,
    pub(super) reason: &'static str,
}

/// Of a file of the Secret `slipway-keys`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KeyLabels {
    pub(super) file: &'static str,
}

/// Of a revision.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RevisionLabels {
    pub(super) modeldeployment: String,
    pub(super) revision: String,
}

/// Of a revision in one role.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ArmLabels {
    pub(super) modeldeployment: String,
    pub(super) revision: String,
    pub(super) role: &'static str,
}

/// Of a revision in one role, by how requests ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) modeldeployment: String,
    pub(super) revision: String,
    pub(super) role: &'static str,
    pub(super) outcome: &'static str,
}
