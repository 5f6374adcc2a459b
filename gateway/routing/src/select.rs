//! Determines the target of a request.

use std::sync::Arc;

use slipway_contracts::paths;
use slipway_crds::routing::{RouteClaimant, normalize_host, service_name};
use slipway_gateway_policy::grpc;
use slipway_gateway_policy::refusal::RequestRefusal;

use crate::model::RoutedModel;
use crate::table::RouteTable;

const PREVIEW_SUFFIX: &str = "-preview";

/// A ModelDeployment, and whether its preview address was used.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub model: Arc<RoutedModel>,
    /// Whether the request is for the preview revision.
    pub preview: bool,
}

/// The target of a request.
#[derive(Clone, Debug)]
pub enum RouteTarget {
    /// A ModelDeployment.
    Model(RouteMatch),
    /// The gateway itself: its metadata and readiness.
    Gateway,
    /// The ModelDeployment whose model name is in the first message of the call.
    ByMessage,
    /// No target.
    Refused(RequestRefusal),
}

/// Determines the target in the order of docs/routing.md: the address of a Service, a declared
/// host, the model name. The cost does not depend on the number of ModelDeployments.
pub fn select_target(
    table: &RouteTable,
    namespace: &str,
    authority: Option<&str>,
    path: &str,
    grpc: bool,
) -> RouteTarget {
    if let Some(route) = authority.and_then(|authority| route_by_host(table, namespace, authority))
    {
        return RouteTarget::Model(route);
    }
    if grpc {
        return match () {
            () if grpc::names_model(path) => RouteTarget::ByMessage,
            () if grpc::is_about_server(path) => RouteTarget::Gateway,
            () => RouteTarget::Refused(RequestRefusal::UndeclaredHost),
        };
    }
    match path {
        paths::PROTOCOL | "/v2/" | paths::SERVER_LIVE | paths::SERVER_READY => RouteTarget::Gateway,
        _ => match path.strip_prefix(paths::MODELS).and_then(|rest| rest.split('/').next()) {
            Some(name) => route_by_model_name(table, name)
                .map_or(RouteTarget::Refused(RequestRefusal::UnknownModel), RouteTarget::Model),
            None => RouteTarget::Refused(RequestRefusal::UndeclaredHost),
        },
    }
}

fn route_by_host(table: &RouteTable, namespace: &str, authority: &str) -> Option<RouteMatch> {
    let host = normalize_host(authority);
    let found = |name: &str, preview| {
        table.models.get(name).map(|model| RouteMatch { model: Arc::clone(model), preview })
    };
    match service_name(&host, namespace) {
        Some(name) => {
            found(name, false).or_else(|| found(name.strip_suffix(PREVIEW_SUFFIX)?, true))
        }
        None => route_of_holder(table, table.holders.host_holder(&host)),
    }
}

/// The ModelDeployment that holds a model name.
pub fn route_by_model_name(table: &RouteTable, name: &str) -> Option<RouteMatch> {
    route_of_holder(table, table.holders.model_name_holder(name))
}

fn route_of_holder(table: &RouteTable, holder: Option<&RouteClaimant>) -> Option<RouteMatch> {
    table
        .models
        .get(&holder?.name)
        .map(|model| RouteMatch { model: Arc::clone(model), preview: false })
}
