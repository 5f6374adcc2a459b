//! `grpc.health.v1`: the health of the server as a whole, of the inference service, and of each
//! model by its name.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use slipway_oip::health::health_check_response::ServingStatus;
use slipway_oip::health::health_server::Health as Service;
use slipway_oip::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use super::AppState;

const INFERENCE_SERVICE: &str = "inference.GRPCInferenceService";

pub(super) struct HealthService(pub(super) Arc<AppState>);

/// The health of a service. Clients of this check choose among servers, so a draining server
/// reports that it does not serve from the first moment, although it still answers requests.
fn serving_status(app: &AppState, service: &str) -> ServingStatus {
    let ready = match service {
        "" | INFERENCE_SERVICE => app.unready_reason().is_none(),
        model => match app.is_model_ready(model, None) {
            Ok(ready) => ready,
            Err(_) => return ServingStatus::ServiceUnknown,
        },
    };
    if ready && !app.is_draining() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Service for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match serving_status(&self.0, &service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "there is no service {service:?}; ask for \"\", {INFERENCE_SERVICE:?} or a model"
            ))),
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (app, service) = (Arc::clone(&self.0), request.into_inner().service);
        let stopping = app.wait_for_stopping();
        let (models, phases) = (app.predictor.models.changes(), app.subscribe_phase());
        // Sends the current state, and each later state that differs from the one before.
        let start = (app, service, models, phases, None);
        let states =
            stream::unfold(start, |(app, service, mut models, mut phases, last)| async move {
                loop {
                    models.mark_unchanged();
                    phases.mark_unchanged();
                    let now = serving_status(&app, &service);
                    if last != Some(now) {
                        let answer = HealthCheckResponse { status: now.into() };
                        return Some((Ok(answer), (app, service, models, phases, Some(now))));
                    }
                    tokio::select! {
                        changed = models.changed() => changed.ok()?,
                        changed = phases.changed() => changed.ok()?,
                    }
                }
            });
        Ok(Response::new(Box::pin(states.take_until(stopping))))
    }
}
