//! The open loop: a dispatcher that determines when requests are due, and workers that send them,
//! each over its own connection.

use std::sync::Arc;
use std::time::Instant;

use slipway_contracts::paths::MODELS;
use tokio::sync::{Mutex, mpsc, watch};

use crate::account::{FinishedRequest, RequestAccount};
use crate::client::{HttpExchange, LoadTarget, TargetConnection};
use crate::feedback::FeedbackQueue;
use crate::protocol::{AnswerOrigin, InferAnswer, check_answer, infer_body, read_origin};
use crate::reason::FailureReason;
use crate::rows::LabeledRow;
use crate::schedule::RequestSchedule;

/// The pace that the API sets for the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LoadPace {
    /// Requests per second; 0 pauses.
    Rate(f64),
    /// No more requests, permanently.
    Stopped,
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestSlot {
    number: u64,
    intended: Instant,
}

/// Hands out slots at the requested pace, at most `total`. A full queue means that this generator
/// is overloaded: the slots are counted as skipped and never sent, so that memory and lateness are
/// bounded.
pub(crate) async fn dispatch_requests(
    mut pace: watch::Receiver<LoadPace>,
    slots: mpsc::Sender<RequestSlot>,
    account: Arc<RequestAccount>,
    total: Option<u64>,
) {
    let mut number = 0;
    loop {
        let now = *pace.borrow_and_update();
        let LoadPace::Rate(rate) = now else { return };
        let mut schedule = RequestSchedule::new(Instant::now(), rate);
        loop {
            for intended in schedule.take_due(Instant::now()) {
                if total.is_some_and(|total| number >= total) {
                    return;
                }
                if slots.try_send(RequestSlot { number, intended }).is_err() {
                    account.skip_requests(1);
                }
                number += 1;
            }
            tokio::select! {
                changed = pace.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = sleep_until(schedule.next_due()) => {}
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The state that all workers share.
pub(crate) struct WorkerContext {
    pub(crate) run: String,
    pub(crate) model: String,
    pub(crate) rows: Vec<LabeledRow>,
    pub(crate) target: Arc<LoadTarget>,
    pub(crate) account: Arc<RequestAccount>,
    pub(crate) slots: Mutex<mpsc::Receiver<RequestSlot>>,
    pub(crate) pace: watch::Receiver<LoadPace>,
    pub(crate) feedback: FeedbackQueue,
}

impl WorkerContext {
    /// One worker: sends due requests until the dispatcher ends.
    pub(crate) async fn run_worker(self: Arc<Self>) {
        let path = format!("{MODELS}{}/infer", self.model);
        let mut connection = TargetConnection::new(Arc::clone(&self.target));
        loop {
            let slot = self.slots.lock().await.recv().await;
            let Some(slot) = slot else { return };
            if matches!(*self.pace.borrow(), LoadPace::Rate(rate) if rate > 0.0) {
                self.send_request(&mut connection, &path, slot).await;
            } else {
                // Paused or stopped since the request became due.
                self.account.skip_requests(1);
            }
        }
    }

    async fn send_request(&self, connection: &mut TargetConnection, path: &str, slot: RequestSlot) {
        let Some(row) = self.rows.get((slot.number % self.rows.len() as u64) as usize) else {
            return;
        };
        let id = format!("{}-{}", self.run, slot.number);
        self.account.begin_request();
        let sent = Instant::now();
        let exchange = connection.post(path, infer_body(&id, &row.input)).await;
        let done = Instant::now();
        let (status, origin, answer) = self.read_answer(exchange, &id);
        let outcome =
            answer.as_ref().map(|answer| answer.label == row.label).map_err(|reason| *reason);
        self.account.finish_request(&FinishedRequest {
            number: slot.number,
            intended: slot.intended,
            sent,
            done,
            status,
            origin,
            outcome,
        });
        if let Ok(answer) = answer {
            self.feedback.offer(slot.number, answer.prediction_id, row.label);
        }
    }

    fn read_answer(
        &self,
        exchange: Result<HttpExchange, FailureReason>,
        id: &str,
    ) -> (u16, AnswerOrigin, Result<InferAnswer, FailureReason>) {
        let exchange = match exchange {
            Ok(exchange) => exchange,
            Err(reason) => return (0, AnswerOrigin::default(), Err(reason)),
        };
        let answer = match (exchange.status, &exchange.body) {
            (_, Err(reason)) => Err(*reason),
            (200, Ok(body)) => check_answer(&exchange.headers, body, &self.model, id)
                .map_err(FailureReason::Malformed),
            (status, Ok(_)) => Err(FailureReason::Status(status)),
        };
        (exchange.status, read_origin(&exchange.headers), answer)
    }
}
