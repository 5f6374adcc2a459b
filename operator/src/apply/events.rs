//! Publishes events about ModelDeployments (events.k8s.io/v1). kube's `Recorder` combines events
//! that differ only in their note into one series and keeps the first note. Notes of this operator
//! carry data ("weight 5 %", then "weight 25 %"), so here only events with equal notes form a
//! series.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde_json::json;
use slipway_core::event::PlannedEvent;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::apply::applier::ModelIdentity;
use crate::apply::error::WriteError;
use crate::apply::request::with_timeout;

const CONTROLLER: &str = "ml.slipway.dev/operator";
/// How long a repeated event continues its series; the API server deletes events after an hour.
const SERIES_TIMEOUT: SignedDuration = SignedDuration::from_mins(6);

type SeriesKey = (String, String, String, String);

struct PublishedEvent {
    name: String,
    count: i32,
    last: Timestamp,
}

/// Publishes events; all reconciles share it.
pub struct EventPublisher {
    client: Client,
    instance: String,
    known: Mutex<HashMap<SeriesKey, PublishedEvent>>,
}

impl EventPublisher {
    /// Creates a publisher; `instance` identifies this process.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, known: Mutex::default() }
    }

    /// Publishes one event, or continues its series.
    ///
    /// # Errors
    /// When the API server rejects the event or does not answer.
    pub async fn publish(
        &self,
        subject: &ModelIdentity,
        note: &PlannedEvent,
        now: Timestamp,
    ) -> Result<(), WriteError> {
        let api = Api::<Event>::namespaced(self.client.clone(), &subject.namespace);
        let key =
            (subject.uid.clone(), note.reason.clone(), note.action.clone(), note.note.clone());
        if let Some((name, count)) = self.continue_series(&key, now) {
            let series = EventSeries { count, last_observed_time: MicroTime(now) };
            let (patch, params) = (Patch::Merge(json!({"series": series})), PatchParams::default());
            let request = api.patch_metadata(&name, &params, &patch);
            return with_timeout("patch", "Event", &name, request).await.map(drop);
        }
        let event = self.build_event(subject, note, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        with_timeout("create", "Event", &name, api.create(&PostParams::default(), &event)).await?;
        let mut known = self.known.lock();
        known.insert(key, PublishedEvent { name, count: 1, last: now });
        Ok(())
    }

    /// Name and new count of the series that an event continues. Removes expired series.
    fn continue_series(&self, key: &SeriesKey, now: Timestamp) -> Option<(String, i32)> {
        let mut known = self.known.lock();
        known.retain(|_, k| now.duration_since(k.last) < SERIES_TIMEOUT);
        let before = known.get_mut(key)?;
        before.count = before.count.saturating_add(1);
        before.last = now;
        Some((before.name.clone(), before.count))
    }

    fn build_event(&self, subject: &ModelIdentity, note: &PlannedEvent, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}{:04x}",
                    subject.name,
                    now.as_nanosecond(),
                    rand::random::<u16>()
                )),
                namespace: Some(subject.namespace.clone()),
                ..ObjectMeta::default()
            },
            regarding: Some(ObjectReference {
                api_version: Some(ModelDeployment::api_version(&()).into_owned()),
                kind: Some(ModelDeployment::kind(&()).into_owned()),
                name: Some(subject.name.clone()),
                namespace: Some(subject.namespace.clone()),
                uid: Some(subject.uid.clone()),
                ..ObjectReference::default()
            }),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(truncate_bytes(&note.reason, 128)),
            action: Some(truncate_bytes(&note.action, 128)),
            note: Some(truncate_bytes(&note.note, 1024)),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(CONTROLLER.into()),
            reporting_instance: Some(truncate_bytes(&self.instance, 128)),
            ..Event::default()
        }
    }
}

/// The longest prefix of at most `bytes` bytes that ends at a character boundary: the API server
/// limits notes in bytes.
fn truncate_bytes(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_characters() {
        assert_eq!(truncate_bytes("äöü", 3), "ä");
        assert_eq!(truncate_bytes("abc", 128), "abc");
    }
}
