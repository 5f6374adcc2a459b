//! What a server without a repository of further models answers to those who ask for one.

use serde_json::{Value, json};
use slipway_oip::inference as pb;
use tonic::Code;

use super::support::{Server, answer};

async fn ask(server: &Server, path: &str) -> (u16, Value) {
    answer(server.post(&format!("/v2/repository{path}")).body("{}").send().await.unwrap()).await
}

#[tokio::test]
async fn a_server_without_a_repository_serves_its_own_model_alone() {
    let server = Server::start("affine", &[]);
    let own = json!({"name": "m", "version": "1", "state": "READY", "reason": ""});
    assert_eq!(ask(&server, "/index").await, (200, json!([own])));
    assert_eq!(ask(&server, "/models/m/load").await.0, 200);
    for (path, status, part) in [
        ("/models/m/unload", 422, "own model"),
        ("/models/second/load", 422, "no model repository"),
        ("/models/second/unload", 404, "not loaded"),
    ] {
        let (got, body) = ask(&server, path).await;
        assert!(
            got == status && body["error"].as_str().unwrap().contains(part),
            "{path}: {got} {body}"
        );
    }
    let mut client = super::grpc::client(&server).await;
    let index = client.repository_index(pb::RepositoryIndexRequest::default()).await.unwrap();
    assert_eq!(index.into_inner().models.len(), 1);
    let of = pb::RepositoryModelLoadRequest { model_name: "second".into(), ..Default::default() };
    let refused = client.repository_model_load(of).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let metadata = client.server_metadata(pb::ServerMetadataRequest {}).await.unwrap();
    let (_, by_rest) = server.get("/v2").await;
    assert_eq!(by_rest["extensions"], json!(metadata.into_inner().extensions));
}
