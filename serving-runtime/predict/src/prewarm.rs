//! Warms the caches of a new pod before it is ready: it fetches the most requested inputs from a
//! pod that serves, and computes their answers.
//!
//! Only inputs are fetched, never answers; a new revision computes the answers with its own model.
//! Whatever fails, the pod is ready at most a few seconds later.

use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use slipway_contracts::paths::{HOT_INPUTS, MODELS};
use slipway_runtime_cache::CacheArgs;
use slipway_runtime_cache::hot_keys::{MAX_BYTES, decode_hot_inputs};
use slipway_runtime_engine::batch::RequestPriority;

use crate::models::LoadedModel;
use crate::predictor::{Predictor, run_untimed};

/// Time limit of fetching the inputs, and of the whole warm-up.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Where a pod answers what is hot.
const ADMIN_PORT: u16 = slipway_contracts::ports::METRICS.number;
/// The port where the gateway names the answering revision to clients that send the token.
const PRIVATE_PORT: u16 = slipway_contracts::ports::PRIVATE.number;
/// The header in which the gateway names the revision that answered.
const REVISION_HEADER: &str = slipway_contracts::headers::REVISION;

/// Warms the caches for `model`, if that is configured.
pub async fn prewarm_caches(
    predictor: &Predictor,
    model: &LoadedModel,
    modeldeployment: &str,
    args: &CacheArgs,
) {
    let Some(results) = predictor.caches.results.as_ref().filter(|_| args.cache_hot_keys > 0)
    else {
        return;
    };
    let begun = Instant::now();
    let until = begun + WARM_UP_TIMEOUT;
    let (mut answered, mut from) = (0_usize, String::new());
    let token = predictor.keys.token();
    let gateway = format!(
        "http://{modeldeployment}:{PRIVATE_PORT}{MODELS}{}",
        predictor.models.primary_name()
    );
    let work = async {
        let (who, bytes) = match tokio::time::timeout(
            FETCH_TIMEOUT,
            fetch_hot_inputs(args, modeldeployment, &gateway, token.as_ref()),
        )
        .await
        {
            Ok(Ok(told)) => told,
            Ok(Err(why)) => return tracing::info!(why, "nobody tells what is hot"),
            Err(_) => return tracing::info!("nobody tells in time what is hot"),
        };
        from = who;
        for inputs in decode_hot_inputs(&bytes, &model.signature)
            .into_iter()
            .take(args.cache_hot_keys as usize)
        {
            let warmed = results
                .warm(&model.digest, &model.signature, inputs, until, |inputs| {
                    run_untimed(model, inputs, until, RequestPriority::default())
                })
                .await;
            answered += usize::from(warmed.is_ok());
        }
    };
    // A longer warm-up is cut off: a pod that is ready with cold caches is better than one that is
    // late.
    let in_time = tokio::time::timeout_at(until.into(), work).await.is_ok();
    tracing::info!(
        answered,
        from,
        in_time,
        seconds = begun.elapsed().as_secs_f64(),
        "the caches are warm"
    );
}

/// Fetches the most requested inputs from a pod that serves, and returns them with that pod's
/// address: a pod of the revision that answers at the ModelDeployment's own address.
async fn fetch_hot_inputs(
    args: &CacheArgs,
    modeldeployment: &str,
    gateway: &str,
    token: Option<&SecretString>,
) -> Result<(String, Vec<u8>), String> {
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(FETCH_TIMEOUT)
        .build();
    let client = client.map_err(|e| e.to_string())?;
    let shown = |request: RequestBuilder| match token {
        Some(token) => request.bearer_auth(token.expose_secret()),
        None => request,
    };
    let base = if args.cache_hot_from.is_empty() {
        let answer = shown(client.get(gateway)).send().await.map_err(|e| e.to_string())?;
        let revision =
            answer.headers().get(REVISION_HEADER).and_then(|revision| revision.to_str().ok());
        let revision = revision.filter(|revision| slipway_prediction_id::is_revision(revision));
        let revision = revision.ok_or("no revision serves yet")?;
        format!("http://{modeldeployment}-{revision}:{ADMIN_PORT}")
    } else {
        args.cache_hot_from.clone()
    };
    let mut answer =
        shown(client.get(format!("{base}{HOT_INPUTS}"))).send().await.map_err(|e| e.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| e.to_string())? {
        if bytes.len() + piece.len() > MAX_BYTES {
            return Err(format!("more than {MAX_BYTES} bytes"));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((base, bytes))
}
