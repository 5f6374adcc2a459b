//! Volumes of the pods of one revision, and their mounts.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_contracts::files::{CLAIMS_DIRECTORY, MODELS_DIRECTORY};

use crate::reserved::{CLAIM_VOLUMES, MODELS_VOLUME, TMP_VOLUME};

/// The volume of model files (a claim, or a directory of the pod) and `/tmp`, both bounded so that
/// one pod cannot fill a node, and the claims that a `pvc://claim/path` of the model or its
/// baseline names.
pub(crate) fn pod_volumes(
    model: &str,
    baseline: Option<&str>,
    models: Option<Volume>,
) -> (Vec<Volume>, Vec<VolumeMount>) {
    let mut volumes = vec![
        models.unwrap_or_else(|| scratch_volume(MODELS_VOLUME, "8Gi")),
        scratch_volume(TMP_VOLUME, "1Gi"),
    ];
    let mut mounts =
        vec![volume_mount(MODELS_VOLUME, MODELS_DIRECTORY), volume_mount(TMP_VOLUME, "/tmp")];
    let of_model = claim_from_uri(model);
    let of_baseline = baseline.and_then(claim_from_uri).filter(|claim| Some(*claim) != of_model);
    for (name, claim) in CLAIM_VOLUMES.into_iter().zip([of_model, of_baseline]) {
        let Some(claim) = claim else { continue };
        volumes.push(Volume {
            name: name.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: Some(true),
            }),
            ..Volume::default()
        });
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..volume_mount(name, &format!("{CLAIMS_DIRECTORY}/{claim}"))
        });
    }
    (volumes, mounts)
}

/// The claim in `pvc://claim/path`.
fn claim_from_uri(uri: &str) -> Option<&str> {
    let claim = uri.strip_prefix("pvc://")?.split('/').next()?;
    (!claim.is_empty()).then_some(claim)
}

pub(crate) fn scratch_volume(name: &str, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(limit.to_owned())),
            medium: None,
        }),
        ..Volume::default()
    }
}

pub(crate) fn volume_mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}
