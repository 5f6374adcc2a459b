//! Reports of Prometheus, gateways and pods.

use std::collections::BTreeMap;

use slipway_contracts::state::BrakeTrip;
use slipway_core::observed::PodProblem;
use slipway_judge::evidence::{GateCounts, GateEvidence, GateReading};

use super::World;

impl World {
    /// A reading of the gate `errors`: (bad, good) of candidate and of stable.
    pub fn errors(&mut self, candidate: (f64, f64), stable: (f64, f64)) {
        let status = self.status();
        let counts = [(&status.candidate, candidate), (&status.stable, stable)]
            .into_iter()
            .filter_map(|(it, counts)| {
                let revision = it.as_ref()?.revision.clone();
                Some((revision, GateCounts { bad: counts.0, good: counts.1 }))
            });
        let reading = GateReading::Counts(counts.collect());
        let generation = status.traffic.as_ref().map_or(0, |traffic| traffic.generation);
        self.read(generation, "errors", reading);
    }

    pub fn read(&mut self, generation: i64, gate: &str, reading: GateReading) {
        self.serial += 1;
        let gates = BTreeMap::from([(gate.to_owned(), reading)]);
        self.observed.evidence =
            Some(GateEvidence { generation, taken_at: self.now, serial: self.serial, gates });
    }

    pub fn good(&mut self) {
        self.pass(1);
        self.errors((10.0, 9990.0), (10.0, 9990.0));
    }

    pub fn bad(&mut self) {
        self.pass(1);
        self.errors((500.0, 500.0), (10.0, 9990.0));
    }

    /// The report of every gateway about the candidate under the current weights: requests, those
    /// in flight, and the answered ones.
    pub fn answers(&mut self, requests: u64, in_flight: u64, answered: Option<u64>) {
        let revision = self.status().candidate.as_ref().unwrap().revision.clone();
        for pod in &mut self.observed.gateway.pods {
            let report = pod.report.as_mut().unwrap();
            report.requests = BTreeMap::from([(revision.clone(), requests)]);
            report.in_flight = BTreeMap::from([(revision.clone(), in_flight)]);
            report.answered =
                answered.map(|answered| BTreeMap::from([(revision.clone(), answered)]));
        }
    }

    pub fn brake(&mut self, index: usize) {
        let revision = self.status().candidate.as_ref().unwrap().revision.clone();
        let at = self.now;
        let report = self.observed.gateway.pods[index].report.as_mut().unwrap();
        let generation = report.generation;
        report.brake = Some(BrakeTrip {
            revision,
            generation,
            reason: "failures".into(),
            failures: 11,
            requests: 14,
            at,
        });
    }

    pub fn problem(&mut self, version: &str, message: &str, restarts: i32) {
        let revision = self.set(version).revision.clone();
        self.observed.pod_problems.push(PodProblem {
            revision,
            pod: format!("digits-{version}-x"),
            reason: "CrashLoopBackOff".into(),
            message: message.into(),
            restarts,
        });
    }
}
