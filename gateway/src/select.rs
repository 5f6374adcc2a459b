//! Whom a request is for.

use std::sync::Arc;

use slipway_crds::routing::{RouteClaimant, normalize_host, service_name};

use crate::{
    model::Model,
    proxy::{answer::Refusal, grpc},
    table::RouteTable,
};

const PREVIEW: &str = "-preview";

/// A ModelDeployment, and whether its preview address was used.
#[derive(Clone, Debug)]
pub struct Route {
    /// The ModelDeployment.
    pub model: Arc<Model>,
    /// Whether the request is for the preview revision.
    pub preview: bool,
}

/// Whom a request is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A ModelDeployment.
    Model(Route),
    /// The gateway itself: who it is, and whether it is ready.
    Gateway,
    /// The ModelDeployment whose model the first message of this call names.
    Message,
    /// Nobody.
    Nobody(Refusal),
}

/// The order of ARCHITECTURE.md: the address of a Service, a declared host, the name of the model. Nothing here depends on how many ModelDeployments there are.
pub fn select(table: &RouteTable, namespace: &str, authority: Option<&str>, path: &str, grpc: bool) -> Target {
    if let Some(route) = authority.and_then(|authority| by_host(table, namespace, authority)) {
        return Target::Model(route);
    }
    if grpc {
        return match () {
            () if grpc::names_model(path) => Target::Message,
            () if grpc::is_about_server(path) => Target::Gateway,
            () => Target::Nobody(Refusal::UndeclaredHost),
        };
    }
    match path {
        "/v2" | "/v2/" | "/v2/health/live" | "/v2/health/ready" => Target::Gateway,
        _ => match path.strip_prefix("/v2/models/").and_then(|rest| rest.split('/').next()) {
            Some(name) => by_model_name(table, name).map_or(Target::Nobody(Refusal::UnknownModel), Target::Model),
            None => Target::Nobody(Refusal::UndeclaredHost),
        },
    }
}

fn by_host(table: &RouteTable, namespace: &str, authority: &str) -> Option<Route> {
    let host = normalize_host(authority);
    let found = |name: &str, preview| table.models.get(name).map(|model| Route { model: Arc::clone(model), preview });
    match service_name(&host, namespace) {
        Some(name) => found(name, false).or_else(|| found(name.strip_suffix(PREVIEW)?, true)),
        None => route(table, table.holders.host_holder(&host)),
    }
}

/// The ModelDeployment that holds the name of a model.
pub fn by_model_name(table: &RouteTable, name: &str) -> Option<Route> {
    route(table, table.holders.model_name_holder(name))
}

fn route(table: &RouteTable, holder: Option<&RouteClaimant>) -> Option<Route> {
    table.models.get(&holder?.name).map(|model| Route { model: Arc::clone(model), preview: false })
}
