//! Which ModelDeployment a request is for.

use std::sync::Arc;

use crate::{model::Model, table::RouteTable};

const PREVIEW: &str = "-preview";

/// A ModelDeployment, and whether its preview address was used.
#[derive(Clone, Debug)]
pub struct Route {
    /// The ModelDeployment.
    pub model: Arc<Model>,
    /// Whether the request is for the preview revision.
    pub preview: bool,
}

/// The order of ARCHITECTURE.md: the host, the model name in the path, the only ModelDeployment there is.
pub fn select(table: &RouteTable, namespace: &str, host: Option<&str>, path: &str) -> Option<Route> {
    host.and_then(|host| by_host(table, namespace, host)).or_else(|| by_path(table, path)).or_else(|| only(table))
}

fn by_host(table: &RouteTable, namespace: &str, host: &str) -> Option<Route> {
    let host = host.split(':').next()?;
    let mut labels = host.split('.');
    let name = labels.next()?;
    // `<name>.<other namespace>` reached us by mistake, or is a public name that only looks like one of ours.
    if labels.next().is_some_and(|label| label != namespace) || labels.next().is_some_and(|label| label != "svc") {
        return None;
    }
    let found = |name: &str, preview| table.models.get(name).map(|model| Route { model: Arc::clone(model), preview });
    found(name, false).or_else(|| found(name.strip_suffix(PREVIEW)?, true))
}

fn by_path(table: &RouteTable, path: &str) -> Option<Route> {
    let model = path.strip_prefix("/v2/models/")?.split('/').next()?;
    let name = table.by_model_name.get(model)?;
    table.models.get(name).map(|model| Route { model: Arc::clone(model), preview: false })
}

fn only(table: &RouteTable) -> Option<Route> {
    let mut models = table.models.values();
    let model = models.next()?;
    models.next().is_none().then(|| Route { model: Arc::clone(model), preview: false })
}
