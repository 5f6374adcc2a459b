//! Unsafe and impossible specs are refused by the apiserver, with a message that names the field and the remedy.

use slipway_e2e::world;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn bad_spec_is_refused() -> anyhow::Result<()> {
    world::run("bad-spec", async |world| {
        let folder = world.cluster.layout().root().join("crds/tests/cases");
        let mut refused = 0;
        for entry in std::fs::read_dir(folder.join("reject"))? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?;
            let expected = text
                .lines()
                .find_map(|line| line.strip_prefix("# expect: "))
                .ok_or_else(|| anyhow::anyhow!("{}: no line `# expect: `", path.display()))?
                .trim();
            match world.cluster.apply(&world.namespace, &text).await {
                Ok(_) => anyhow::bail!("{} was accepted", path.display()),
                Err(error) => {
                    let told = error.to_string();
                    anyhow::ensure!(told.contains(expected), "{}: expected {expected:?} in {told}", path.display());
                }
            }
            refused += 1;
        }
        anyhow::ensure!(refused >= 10, "only {refused} cases");
        for entry in std::fs::read_dir(folder.join("accept"))? {
            let path = entry?.path().display().to_string();
            world.cluster.kubectl(["apply", "--dry-run=server", "-n", &world.namespace, "-f", &path]).await?;
        }
        Ok(())
    })
    .await
}
