//! The admin server: `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use slipway_listener::{End, Server, Settings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Running;
use crate::telemetry::Metrics;
use crate::views::Views;

/// Every write has a time limit, so a reconcile that runs this long will never end.
const STUCK: Duration = Duration::from_secs(300);

/// How long answers that are on their way may take at the end. Nobody may keep a process that lost its lease by taking one slowly.
const DRAIN: Duration = Duration::from_secs(5);

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It waits for the lease: ready to take over.
    Standby = 0,
    /// It leads.
    Leading = 1,
    /// It ends.
    Ending = 2,
}

/// What the probes look at.
#[derive(Clone)]
pub struct Health {
    /// Caches.
    pub views: Arc<Views>,
    /// Reconciles that run.
    pub running: Arc<Running>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    phase: Arc<AtomicU8>,
}

impl Health {
    /// Standing by.
    pub fn new(views: Arc<Views>, running: Arc<Running>, metrics: Arc<Metrics>) -> Self {
        Self { views, running, metrics, phase: Arc::default() }
    }

    /// Notes what the process does.
    pub fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.metrics.leader.set(i64::from(phase == Phase::Leading));
    }

    fn live(&self) -> Result<&'static str, String> {
        match self.running.oldest() {
            Some(age) if age > STUCK => Err(format!("a reconcile has run for {} s", age.as_secs())),
            _ => Ok("ok"),
        }
    }

    fn ready(&self) -> Result<&'static str, String> {
        match self.phase.load(Ordering::Relaxed) {
            0 => Ok("standing by"),
            1 if self.views.are_synced() => Ok("leading"),
            1 => Err("caches are not synced yet".into()),
            _ => Err("ending".into()),
        }
    }
}

fn probe(result: Result<&'static str, String>) -> (StatusCode, String) {
    match result {
        Ok(text) => (StatusCode::OK, text.to_owned()),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics.text())
}

/// Serves until `stop`, and then at most as long as [`DRAIN`].
pub async fn serve(listener: TcpListener, health: Health, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(async |State(h): State<Health>| probe(h.live())))
        .route("/readyz", get(async |State(h): State<Health>| probe(h.ready())))
        .route("/metrics", get(metrics))
        .with_state(health);
    let make = move |_| TowerToHyperService::new(router.clone());
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = Server::new(listener, Settings::admin(End::Drain), builder).serve(make, stop.cancelled());
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = serving => {}
        () = drained => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_the_phase() {
        let health = Health::new(Arc::default(), Arc::default(), Arc::default());
        assert!(health.ready().is_ok(), "standing by");
        health.set(Phase::Leading);
        assert!(health.ready().is_err(), "no caches yet");
        health.set(Phase::Ending);
        assert!(health.ready().is_err());
        assert!(health.live().is_ok());
    }
}
