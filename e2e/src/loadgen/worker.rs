//! The open loop: a dispatcher that says when requests are due, and workers that send them, each over its own connection.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc, watch};

use super::account::{Account, Finished};
use super::client::{Connection, Exchange, Target};
use super::feedback::Sink;
use super::protocol::{Answer, Origin, check_answer, infer_body, origin};
use super::reason::Reason;
use super::rows::Row;
use super::schedule::Schedule;

/// What people ask of the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Requests per second; 0 pauses.
    Rate(f64),
    /// No more requests, for good.
    Stopped,
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    number: u64,
    intended: Instant,
}

/// Hands out slots at the asked pace, at most `total`. A full queue is overload of this generator: the slots are counted as
/// skipped and never sent, so that memory and lateness are bounded.
pub(crate) async fn dispatch(
    mut pace: watch::Receiver<Pace>,
    slots: mpsc::Sender<Slot>,
    account: Arc<Account>,
    total: Option<u64>,
) {
    let mut number = 0;
    loop {
        let now = *pace.borrow_and_update();
        let Pace::Rate(rate) = now else { return };
        let mut schedule = Schedule::new(Instant::now(), rate);
        loop {
            for intended in schedule.due(Instant::now()) {
                if total.is_some_and(|total| number >= total) {
                    return;
                }
                if slots.try_send(Slot { number, intended }).is_err() {
                    account.skip(1);
                }
                number += 1;
            }
            tokio::select! {
                changed = pace.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = until(schedule.next()) => {}
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What all workers share.
pub(crate) struct Work {
    pub(crate) run: String,
    pub(crate) model: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) target: Arc<Target>,
    pub(crate) account: Arc<Account>,
    pub(crate) slots: Mutex<mpsc::Receiver<Slot>>,
    pub(crate) pace: watch::Receiver<Pace>,
    pub(crate) feedback: Sink,
}

impl Work {
    /// One worker: sends due requests until the dispatcher ends.
    pub(crate) async fn work(self: Arc<Self>) {
        let path = format!("/v2/models/{}/infer", self.model);
        let mut connection = Connection::new(Arc::clone(&self.target));
        loop {
            let slot = self.slots.lock().await.recv().await;
            let Some(slot) = slot else { return };
            if matches!(*self.pace.borrow(), Pace::Rate(rate) if rate > 0.0) {
                self.send(&mut connection, &path, slot).await;
            } else {
                // Paused or stopped since it came due.
                self.account.skip(1);
            }
        }
    }

    async fn send(&self, connection: &mut Connection, path: &str, slot: Slot) {
        let Some(row) = self.rows.get((slot.number % self.rows.len() as u64) as usize) else { return };
        let id = format!("{}-{}", self.run, slot.number);
        self.account.begin();
        let sent = Instant::now();
        let exchange = connection.post(path, infer_body(&id, &row.input)).await;
        let done = Instant::now();
        let (status, origin, answer) = self.read(exchange, &id);
        let outcome = answer.as_ref().map(|answer| answer.label == row.label).map_err(|reason| *reason);
        self.account.finish(&Finished {
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

    fn read(&self, exchange: Result<Exchange, Reason>, id: &str) -> (u16, Origin, Result<Answer, Reason>) {
        let exchange = match exchange {
            Ok(exchange) => exchange,
            Err(reason) => return (0, Origin::default(), Err(reason)),
        };
        let answer = match (exchange.status, &exchange.body) {
            (_, Err(reason)) => Err(*reason),
            (200, Ok(body)) => check_answer(&exchange.headers, body, &self.model, id).map_err(Reason::Malformed),
            (status, Ok(_)) => Err(Reason::Status(status)),
        };
        (exchange.status, origin(&exchange.headers), answer)
    }
}
