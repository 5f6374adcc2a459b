//! Checks of health and metadata.

use reqwest::Method;
use serde_json::Value;

use crate::model::ModelMetadata;
use crate::report::CheckGroup::{Recommended, Required};
use crate::rest::RestClient;
use crate::{CheckRunner, CheckVerdict, ensure, skip_check};

/// The metadata of the server.
#[derive(Debug, Default)]
pub(crate) struct ServerMetadata {
    pub(crate) server: String,
    pub(crate) extensions: Vec<String>,
    pub(crate) model: Option<ModelMetadata>,
}

pub(crate) async fn check_rest_basics(
    runner: &mut CheckRunner,
    rest: &RestClient,
) -> ServerMetadata {
    let mut found =
        ServerMetadata { server: "a server without metadata".into(), ..ServerMetadata::default() };
    let status = async |path: String| -> CheckVerdict {
        let answer = rest.get(&path).await?;
        ensure!(answer.status == 200, "{path}: status {}", answer.status);
        Ok(())
    };
    let model_path = format!("/v2/models/{}", rest.model);
    runner
        .check(
            Required,
            "rest.health.live",
            "GET /v2/health/live is 200",
            status("/v2/health/live".into()),
        )
        .await;
    runner
        .check(
            Required,
            "rest.health.ready",
            "GET /v2/health/ready is 200",
            status("/v2/health/ready".into()),
        )
        .await;
    runner
        .check(
            Required,
            "rest.model.ready",
            "GET /v2/models/{m}/ready is 200",
            status(format!("{model_path}/ready")),
        )
        .await;
    let server = async {
        let about = rest.get("/v2").await?.expect_success()?;
        let text = |key: &str| about.get(key).and_then(Value::as_str).map(str::to_owned);
        let (name, version) = (text("name"), text("version"));
        ensure!(name.is_some() && version.is_some(), "name and version must be strings: {about}");
        let list = about.get("extensions").and_then(Value::as_array);
        let names: Option<Vec<String>> =
            list.and_then(|l| l.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        ensure!(names.is_some(), "extensions must be an array of strings: {about}");
        found.extensions = names.unwrap_or_default();
        found.server = format!("{} {}", name.unwrap_or_default(), version.unwrap_or_default());
        Ok(())
    };
    runner
        .check(Required, "rest.server.metadata", "GET /v2 has name, version, extensions", server)
        .await;
    let metadata = async {
        let model = ModelMetadata::from_json(&rest.get(&model_path).await?.expect_success()?)?;
        ensure!(model.name == rest.model, "name is {:?}", model.name);
        ensure!(
            !model.inputs.is_empty() && !model.outputs.is_empty(),
            "there are no inputs or no outputs"
        );
        found.model = Some(model);
        Ok(())
    };
    runner
        .check(
            Required,
            "rest.model.metadata",
            "GET /v2/models/{m} has name, platform, inputs and outputs",
            metadata,
        )
        .await;
    check_versions(runner, rest, found.model.as_ref()).await;
    check_unknown_names(runner, rest, &model_path).await;
    found
}

async fn check_versions(
    runner: &mut CheckRunner,
    rest: &RestClient,
    model: Option<&ModelMetadata>,
) {
    let versioned = async {
        let Some(version) = model.and_then(|m| m.versions.first()) else {
            return skip_check("the metadata lists no versions");
        };
        let base = format!("/v2/models/{}/versions/{version}", rest.model);
        let answer = rest.get(&base).await?;
        if answer.status == 501 {
            return skip_check("the server answers 501 to versions");
        }
        let of_version = ModelMetadata::from_json(&answer.expect_success()?)?;
        ensure!(
            Some(&of_version.inputs) == model.map(|m| &m.inputs),
            "the inputs differ from those without a version"
        );
        let ready = rest.get(&format!("{base}/ready")).await?;
        ensure!(ready.status == 200, "ready: status {}", ready.status);
        Ok(())
    };
    runner
        .check(
            Required,
            "rest.model.version",
            "a listed version can be asked for in the path",
            versioned,
        )
        .await;
    let unknown = async {
        rest.get(&format!("/v2/models/{}/versions/987654", rest.model)).await?.expect_error()?;
        Ok(())
    };
    runner
        .check(
            Required,
            "rest.model.version_unknown",
            "an unknown version is an error with a text",
            unknown,
        )
        .await;
}

async fn check_unknown_names(runner: &mut CheckRunner, rest: &RestClient, model_path: &str) {
    let nowhere = "/v2/models/slipway-conformance-no-such-model";
    let metadata = async {
        rest.get(nowhere).await?.expect_error()?;
        Ok(())
    };
    runner
        .check(
            Required,
            "rest.model.unknown",
            "metadata of an unknown model is an error with a text",
            metadata,
        )
        .await;
    let is_404 = async {
        for path in [nowhere.to_owned(), format!("{nowhere}/ready")] {
            let answer = rest.get(&path).await?;
            ensure!(answer.status == 404, "{path}: status {}", answer.status);
        }
        Ok(())
    };
    runner
        .check(
            Recommended,
            "rest.model.unknown_404",
            "an unknown model is 404, also when asked whether it is ready",
            is_404,
        )
        .await;
    let method = async {
        let answer = rest.request(Method::DELETE, model_path).await?;
        ensure!(answer.status == 405, "DELETE: status {}", answer.status);
        answer.expect_error()?;
        Ok(())
    };
    runner.check(Recommended, "rest.method_405", "a wrong method is 405 with a text", method).await;
    let path = async {
        let answer = rest.get("/v2/slipway-conformance-no-such-path").await?;
        ensure!(answer.status == 404, "status {}", answer.status);
        answer.expect_error()?;
        Ok(())
    };
    runner.check(Recommended, "rest.path_404", "an unknown path is 404 with a text", path).await;
}
