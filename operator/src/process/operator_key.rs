//! The operator's own key, by which gateways authenticate it. It is stored in a Secret in the
//! operator's namespace, created by the first operator that finds none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use slipway_listener::OperatorKey;

use crate::apply::{WriteFault, with_timeout};
use crate::process::error::OperatorError;

/// Key of the entry in the Secret's data.
const KEY_FIELD: &str = "ed25519.pkcs8";
/// Attempts when other writers change the Secret at the same time.
const MAX_TRIES: usize = 5;

/// Reads the key from the Secret; when the Secret has none, stores a new key. Of two operators that
/// find none, the later one uses the key of the earlier one.
///
/// # Errors
/// When the Secret does not exist, cannot be read or written, or contains an invalid key.
pub async fn load_key(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<OperatorKey, OperatorError> {
    let wrong = |why: &dyn std::fmt::Display| {
        OperatorError::Argument(format!(
            "--key-secret {namespace}/{name}: {why}; the chart makes the Secret, empty"
        ))
    };
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    for _ in 0..MAX_TRIES {
        let secret =
            with_timeout("get", "Secret", name, api.get(name)).await.map_err(|e| wrong(&e))?;
        if let Some(kept) = secret.data.as_ref().and_then(|data| data.get(KEY_FIELD)) {
            return OperatorKey::from_pkcs8(&kept.0)
                .map_err(|e| wrong(&format_args!("{KEY_FIELD}: {e}")));
        }
        let made = OperatorKey::generate().map_err(|e| wrong(&e))?;
        // The version causes a conflict when another client has written in the meantime.
        let body = json!({
            "metadata": {"resourceVersion": secret.metadata.resource_version}, "data": {KEY_FIELD: STANDARD.encode(&made)}
        });
        match with_timeout(
            "patch",
            "Secret",
            name,
            api.patch(name, &PatchParams::default(), &Patch::Merge(&body)),
        )
        .await
        {
            Ok(_) => tracing::info!(namespace, name, "made the operator's key"),
            Err(error) if matches!(error.fault, WriteFault::Conflict(_)) => {}
            Err(error) => return Err(wrong(&error)),
        }
        // The stored key is authoritative, so it is read again.
    }
    Err(wrong(&"somebody else keeps writing it"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::Value;

    use super::*;

    /// A Secret: its version and its data, with optimistic locking as in an API server.
    type Stored = Arc<Mutex<(u64, Value)>>;

    fn shown(stored: &(u64, Value)) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "data": stored.1,
            "metadata": {"name": "key", "namespace": "ns", "resourceVersion": stored.0.to_string()}
        })
    }

    async fn patch(State(stored): State<Stored>, body: String) -> (StatusCode, Json<Value>) {
        let body: Value = serde_json::from_str(&body).unwrap();
        let mut stored = stored.lock().unwrap();
        let version = json!(stored.0.to_string());
        if body["metadata"]["resourceVersion"] != version {
            let status = json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "message": "", "code": 409});
            return (StatusCode::CONFLICT, Json(status));
        }
        *stored = (stored.0 + 1, body["data"].clone());
        (StatusCode::OK, Json(shown(&stored)))
    }

    async fn world(data: Value) -> (Client, Stored) {
        let stored = Arc::new(Mutex::new((1, data)));
        let read =
            |State(stored): State<Stored>| async move { Json(shown(&stored.lock().unwrap())) };
        let router =
            Router::new().route("/api/v1/namespaces/ns/secrets/key", get(read).patch(patch));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router.with_state(Arc::clone(&stored))).into_future());
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        (Client::try_from(config).unwrap(), stored)
    }

    #[tokio::test]
    async fn operators_that_find_no_key_agree_on_one() {
        slipway_chassis::tls::install_provider();
        let (client, stored) = world(Value::Null).await;
        let all = futures::future::join_all((0..4).map(|_| load_key(&client, "ns", "key"))).await;
        let all: Vec<String> = all.into_iter().map(|key| key.unwrap().public_key()).collect();
        assert!(all.iter().all(|key| *key == all[0]), "{all:?}");
        assert_eq!(stored.lock().unwrap().0, 2, "it was written once");
        assert_eq!(load_key(&client, "ns", "key").await.unwrap().public_key(), all[0], "and stays");
    }

    #[tokio::test]
    async fn what_is_no_key_is_told_and_not_written_over() {
        slipway_chassis::tls::install_provider();
        let (client, stored) = world(json!({KEY_FIELD: "AAAA"})).await;
        let error = load_key(&client, "ns", "key").await.unwrap_err().to_string();
        assert!(error.contains("ns/key") && error.contains("PKCS#8"), "{error}");
        assert_eq!(stored.lock().unwrap().0, 1);
    }
}
