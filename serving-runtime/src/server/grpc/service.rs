//! The methods of the inference service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_server::GrpcInferenceService;
use slipway_oip::inference::infer_parameter::ParameterChoice;
use slipway_prediction_id::PredictionReport;
use slipway_runtime_cache::CACHE_HEADER;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_predict::predictor::Prediction;
use slipway_runtime_protocol::{InferRequest, NAN_OUTPUTS, grpc as convert, metadata_message};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::status::grpc_status;
use crate::server::call::{InferCall, RequestGuard};
use crate::server::error::ApiError;
use crate::server::repository::unknown_parameter;
use crate::server::{
    AppState, OFFLOAD_BYTES, PREDICTION_KEY, SERVER_NAME, SERVER_VERSION, features,
    parse_off_thread, statistics,
};

pub(super) struct InferenceService(pub(super) Arc<AppState>);

type ResponseStream =
    Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl InferenceService {
    /// The answer, and the report for the issuer of the prediction id.
    async fn infer(
        &self,
        mut request: pb::ModelInferRequest,
        call: &InferCall,
    ) -> Result<(pb::ModelInferResponse, PredictionReport), ApiError> {
        let app = &self.0;
        let model = app.find_model(&request.model_name, non_empty(&request.model_version)).await?;
        call.set_model(&model);
        if let Some(features) = &app.predictor.caches.features {
            Box::pin(features::fill_message(app, features, &model, &mut request)).await?;
        }
        let begun = Instant::now();
        let mut parsed = if convert::payload_bytes(&request) < OFFLOAD_BYTES {
            convert::parse_message(request, &model.signature)?
        } else {
            let signature = model.signature.clone();
            parse_off_thread(move || convert::parse_message(request, &signature)).await?
        };
        model.stats.record_input(begun.elapsed());
        app.predictor.check_rows(&model, &parsed.inputs)?;
        let limit = parsed.timeout.map_or(call.limit(), |own| own.min(call.limit()));
        let (inputs, deadline) = (std::mem::take(&mut parsed.inputs), call.started_at() + limit);
        let InferRequest { priority, .. } = parsed;
        let prediction = app.predictor.predict_with_priority(&model, inputs, deadline, priority);
        let prediction = match tokio::time::timeout_at(deadline.into(), prediction).await {
            Err(_) | Ok(Err(PredictError::DeadlineExceeded(_))) => {
                return Err(ApiError::Deadline(limit.as_millis()));
            }
            Ok(prediction) => prediction?,
        };
        let begun = Instant::now();
        let Prediction { outputs, report, cache, nan_outputs } = prediction;
        let cache = cache.map(|outcome| (CACHE_HEADER, outcome.public_name().to_owned()));
        let nan = (nan_outputs > 0).then(|| (NAN_OUTPUTS, nan_outputs.to_string()));
        let names = (model.name.as_str(), model.version.as_str());
        let told = cache.into_iter().chain(nan);
        let answer = convert::write_message(names, &model.signature, parsed, outputs, told);
        model.stats.record_output(begun.elapsed());
        Ok((answer?, report))
    }

    /// Checks that a call may do more than predict.
    fn authorize(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.0
            .predictor
            .keys
            .authorize(metadata.as_ref())
            .map_err(|error| grpc_status(&error.into()))
    }

    /// Answers one message of a stream, counted as a request of its own.
    async fn infer_streamed(
        &self,
        request: pb::ModelInferRequest,
        limit: Duration,
    ) -> pb::ModelStreamInferResponse {
        let call = InferCall::begin(limit);
        let counting = RequestGuard::begin(&self.0.predictor.metrics, &call);
        let (id, answer) = (request.id.clone(), self.infer(request, &call).await);
        counting.finish(answer.as_ref().map_or_else(|e| e.status().as_u16(), |_| 200));
        match answer {
            Ok((mut response, report)) => {
                // A stream has one set of headers for many answers, so the id is in the message.
                if let Some(id) = self.0.predictor.keys.issue_prediction_id(&report) {
                    let id = pb::InferParameter {
                        parameter_choice: Some(ParameterChoice::StringParam(id)),
                    };
                    response.parameters.insert("prediction_id".to_owned(), id);
                }
                pb::ModelStreamInferResponse {
                    error_message: String::new(),
                    infer_response: Some(response),
                }
            }
            // The id shows which of the requests failed.
            Err(error) => pb::ModelStreamInferResponse {
                error_message: error.to_string(),
                infer_response: Some(pb::ModelInferResponse { id, ..Default::default() }),
            },
        }
    }
}

fn grpc_response<T, E: Into<ApiError>>(result: Result<T, E>) -> Result<tonic::Response<T>, Status> {
    result.map(tonic::Response::new).map_err(|e| grpc_status(&e.into()))
}

fn check_repository_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        Ok(())
    } else {
        Err(ApiError::bad_request("repository_name must be empty: there is one repository"))
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    type ModelStreamInferStream = ResponseStream;

    async fn server_live(
        &self,
        _: tonic::Request<pb::ServerLiveRequest>,
    ) -> Result<tonic::Response<pb::ServerLiveResponse>, Status> {
        Ok(tonic::Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: tonic::Request<pb::ServerReadyRequest>,
    ) -> Result<tonic::Response<pb::ServerReadyResponse>, Status> {
        let ready = self.0.unready_reason().is_none();
        Ok(tonic::Response::new(pb::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: tonic::Request<pb::ModelReadyRequest>,
    ) -> Result<tonic::Response<pb::ModelReadyResponse>, Status> {
        let request = request.into_inner();
        grpc_response(
            self.0
                .is_model_ready(&request.name, non_empty(&request.version))
                .map(|ready| pb::ModelReadyResponse { ready }),
        )
    }

    async fn server_metadata(
        &self,
        _: tonic::Request<pb::ServerMetadataRequest>,
    ) -> Result<tonic::Response<pb::ServerMetadataResponse>, Status> {
        Ok(tonic::Response::new(pb::ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: SERVER_VERSION.to_owned(),
            extensions: self.0.extensions().into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: tonic::Request<pb::ModelMetadataRequest>,
    ) -> Result<tonic::Response<pb::ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        let model = self.0.predictor.models.get(&request.name, non_empty(&request.version));
        grpc_response(model.map(|model| {
            metadata_message(&model.description(), self.0.predictor.models.versions(&model.name))
        }))
    }

    async fn model_infer(
        &self,
        mut request: tonic::Request<pb::ModelInferRequest>,
    ) -> Result<tonic::Response<pb::ModelInferResponse>, Status> {
        let call = request.extensions_mut().remove::<Arc<InferCall>>();
        let call = call.unwrap_or_else(|| InferCall::begin(self.0.args.request_timeout()));
        match self.infer(request.into_inner(), &call).await {
            Ok((response, report)) => {
                let said =
                    |name: &str| match response.parameters.get(name)?.parameter_choice.as_ref()? {
                        ParameterChoice::StringParam(text) => MetadataValue::try_from(text).ok(),
                        _ => None,
                    };
                // Clients that measure latency must see in the metadata whether the model ran.
                let told = [CACHE_HEADER, NAN_OUTPUTS].map(|name| (name, said(name)));
                let report = (PREDICTION_KEY, MetadataValue::try_from(report.encode()).ok());
                let mut answer = tonic::Response::new(response);
                for (header, value) in told.into_iter().chain([report]) {
                    if let Some(value) = value {
                        answer.metadata_mut().insert(header, value);
                    }
                }
                Ok(answer)
            }
            Err(error) => {
                call.record_refusal(error.status().as_u16());
                Err(grpc_status(&error))
            }
        }
    }

    async fn model_stream_infer(
        &self,
        request: tonic::Request<tonic::Streaming<pb::ModelInferRequest>>,
    ) -> Result<tonic::Response<ResponseStream>, Status> {
        let (app, stopping) = (Arc::clone(&self.0), self.0.wait_for_stopping());
        // The time limit of the stream applies to each message.
        let limit = request
            .extensions()
            .get::<Arc<InferCall>>()
            .map_or(app.args.request_timeout(), |call| call.limit());
        let answers = request.into_inner().then(move |message| {
            let this = Self(Arc::clone(&app));
            async move { Ok(this.infer_streamed(message?, limit).await) }
        });
        Ok(tonic::Response::new(Box::pin(answers.take_until(stopping))))
    }

    async fn model_statistics(
        &self,
        request: tonic::Request<pb::ModelStatisticsRequest>,
    ) -> Result<tonic::Response<pb::ModelStatisticsResponse>, Status> {
        let request = request.into_inner();
        let found =
            self.0.models_for_statistics(non_empty(&request.name), non_empty(&request.version));
        grpc_response(found.map(|models| pb::ModelStatisticsResponse {
            model_stats: models.iter().map(|model| statistics::statistics_message(model)).collect(),
        }))
    }

    async fn repository_index(
        &self,
        request: tonic::Request<pb::RepositoryIndexRequest>,
    ) -> Result<tonic::Response<pb::RepositoryIndexResponse>, Status> {
        let request = request.into_inner();
        check_repository_name(&request.repository_name).map_err(|e| grpc_status(&e))?;
        let entries = self.0.repository_index(request.ready).await;
        grpc_response(entries.map(|entries| {
            pb::RepositoryIndexResponse {
                models: entries
                    .into_iter()
                    .map(|e| pb::repository_index_response::ModelIndex {
                        name: e.name,
                        version: e.version,
                        state: e.state.to_owned(),
                        reason: e.reason,
                    })
                    .collect(),
            }
        }))
    }

    async fn repository_model_load(
        &self,
        request: tonic::Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<tonic::Response<pb::RepositoryModelLoadResponse>, Status> {
        use pb::model_repository_parameter::ParameterChoice as Choice;
        self.authorize(request.metadata())?;
        let request = request.into_inner();
        check_repository_name(&request.repository_name).map_err(|e| grpc_status(&e))?;
        let mut version = None;
        for (name, parameter) in request.parameters {
            match (name.as_str(), parameter.parameter_choice) {
                ("version", Some(Choice::StringParam(text))) => version = Some(text),
                _ => return Err(grpc_status(&unknown_parameter(&name))),
            }
        }
        let loaded = self.0.load_model(&request.model_name, version.as_deref()).await;
        grpc_response(loaded.map(|()| pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: tonic::Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<tonic::Response<pb::RepositoryModelUnloadResponse>, Status> {
        self.authorize(request.metadata())?;
        let request = request.into_inner();
        check_repository_name(&request.repository_name).map_err(|e| grpc_status(&e))?;
        let unloaded = self.0.unload_model(&request.model_name);
        grpc_response(unloaded.map(|()| pb::RepositoryModelUnloadResponse {}))
    }
}
