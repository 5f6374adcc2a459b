//! Conflicts about hosts and model names: what another ModelDeployment already holds.

use slipway_crds::routing::{ClaimRegistry, RouteClaimant, RoutingClaims};

/// What a ModelDeployment claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameClaim {
    /// A host of `spec.traffic.hosts`.
    Host(String),
    ModelName(String),
}

/// A claim that an older ModelDeployment of the namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimConflict {
    /// The claim that cannot be satisfied.
    pub claim: NameClaim,
    /// Name of the ModelDeployment that holds it.
    pub holder: String,
}

/// The claims that other ModelDeployments hold, in order. `holders` may not contain this claimant
/// yet; a younger holder will lose the claim, so it is not a conflict.
pub fn find_conflicts(
    holders: &ClaimRegistry,
    claimant: &RouteClaimant,
    claims: &RoutingClaims,
) -> Vec<ClaimConflict> {
    let older = |holder: Option<&RouteClaimant>| {
        holder.filter(|holder| *holder < claimant).map(|holder| holder.name.clone())
    };
    let conflict = |claim, holder| ClaimConflict { claim, holder };
    let hosts = claims.hosts.iter().filter_map(|host| {
        older(holders.host_holder(host))
            .map(|holder| conflict(NameClaim::Host(host.clone()), holder))
    });
    let name = older(holders.model_name_holder(&claims.model_name));
    let name = name.map(|holder| conflict(NameClaim::ModelName(claims.model_name.clone()), holder));
    hosts.chain(name).collect()
}
