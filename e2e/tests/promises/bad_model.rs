//! A model that cannot be loaded never gets traffic: stable is untouched and status names the reason.

use slipway_crds::v1alpha1::ModelDeployment;
use slipway_e2e::world::{self, World, weights};

const WRONG: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Rolls `second` out and returns the message of its abort.
async fn refused(world: &World, second: &ModelDeployment, version: &str) -> anyhow::Result<String> {
    let stable = world.status("digits").await.map_err(anyhow::Error::msg)?;
    world.apply(second).await?;
    let status = world.aborted("digits", version).await?;
    let abort = status.rollout.as_ref().and_then(|rollout| rollout.abort.clone()).expect("an abort");
    assert_eq!(abort.reason, "ModelLoadFailed", "{}", abort.message);
    assert_eq!(weights(&status).get(&world::stable_revision(&stable)), Some(&1000));
    assert_eq!(world.account().await?.revision(&world::candidate_revision(&status)).answered, 0);
    Ok(abort.message)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn bad_model() -> anyhow::Result<()> {
    world::run("bad-model", async |world| {
        world.start(&world.quick("digits/v1.yaml")?).await?;
        world.load("digits", 40).await?;
        let bad = |version: &str, uri: &str, digest: Option<&str>| -> anyhow::Result<ModelDeployment> {
            let mut object = world.quick("digits/v2.yaml")?;
            object.spec.model.version = Some(version.into());
            object.spec.model.uri = uri.into();
            object.spec.model.digest = digest.map(Into::into);
            Ok(object)
        };
        let cases = [
            ("missing", "http://model-store/digits/v9/model.onnx", None, "404"),
            ("digest", "http://model-store/digits/v2/model.onnx", Some(WRONG), "digest"),
            ("not-onnx", "http://model-store/bad/not-onnx.bin", None, "onnx"),
            ("truncated", "http://model-store/bad/truncated.onnx", None, "part of one"),
        ];
        for (version, uri, digest, word) in cases {
            let message = refused(&world, &bad(version, uri, digest)?, version).await?;
            assert!(message.to_lowercase().contains(word), "{version}: {message}");
        }
        world.settle().await?;
        Ok(())
    })
    .await
}
