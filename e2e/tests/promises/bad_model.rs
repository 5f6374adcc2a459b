//! A model that cannot be loaded never receives traffic: stable is untouched and the status names
//! the reason.

use sha2::{Digest as _, Sha256};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_e2e::world::{self, TestWorld, revision_weights};

const WRONG: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Rolls `second` out and returns the message of its abort.
async fn refused(
    world: &TestWorld,
    second: &ModelDeployment,
    version: &str,
) -> anyhow::Result<String> {
    let stable = world.status("digits").await.map_err(anyhow::Error::msg)?;
    world.apply(second).await?;
    let status = world.wait_aborted("digits", version).await?;
    let abort =
        status.rollout.as_ref().and_then(|rollout| rollout.abort.clone()).expect("an abort");
    assert_eq!(abort.reason, "ModelLoadFailed", "{}", abort.message);
    assert_eq!(revision_weights(&status).get(&world::stable_revision(&stable)), Some(&1000));
    assert_eq!(world.account().await?.revision(&world::candidate_revision(&status)).answered, 0);
    Ok(abort.message)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn bad_model() -> anyhow::Result<()> {
    world::run_promise("bad-model", async |world| {
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 40).await?;
        let digest = |file: &str| -> anyhow::Result<String> {
            let bytes =
                std::fs::read(world.cluster.layout().root().join("examples/bad").join(file))?;
            Ok(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
        };
        let bad = |version: &str, uri: &str, digest: &str| -> anyhow::Result<ModelDeployment> {
            let mut object = world.quick_example("digits/v2.yaml")?;
            object.spec.model.version = Some(version.into());
            object.spec.model.uri = uri.into();
            object.spec.model.digest = Some(digest.into());
            Ok(object)
        };
        let cases = [
            ("missing", "http://model-store/digits/v9/model.onnx", WRONG.to_owned(), "404"),
            ("digest", "http://model-store/digits/v2/model.onnx", WRONG.to_owned(), "digest"),
            ("not-onnx", "http://model-store/bad/not-onnx.bin", digest("not-onnx.bin")?, "onnx"),
            (
                "truncated",
                "http://model-store/bad/truncated.onnx",
                digest("truncated.onnx")?,
                "part of one",
            ),
        ];
        for (version, uri, digest, word) in cases {
            let message = refused(&world, &bad(version, uri, &digest)?, version).await?;
            assert!(message.to_lowercase().contains(word), "{version}: {message}");
        }
        world.finish_load().await?;
        Ok(())
    })
    .await
}
