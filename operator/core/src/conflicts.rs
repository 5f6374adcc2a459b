//! What of a ModelDeployment's hosts and of its model's name is another's.

use slipway_crds::routing::{ClaimRegistry, RouteClaimant, RoutingClaims};

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameClaim {
    /// A host of `spec.traffic.hosts`.
    Host(String),
    /// The name of the model.
    ModelName(String),
}

/// A claim that an older ModelDeployment of the namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimConflict {
    /// What.
    pub claim: NameClaim,
    /// Name of the ModelDeployment that holds it.
    pub holder: String,
}

/// The claims that others hold, in order. `holders` may not know of this claim yet; a holder that
/// is younger will lose it, so it is no conflict.
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
