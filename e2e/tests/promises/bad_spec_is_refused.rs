//! The apiserver rejects unsafe and impossible specs, with a message that names the field and the
//! remedy.

use slipway_e2e::world;

/// Whether an answer names the field and says what is wrong with it: the API server puts the kind
/// of the error and the rejected value between the two.
fn tells(answer: &str, expected: &str) -> bool {
    let plain: String = answer.split('[').enumerate().fold(String::new(), |all, (place, part)| {
        match part.split_once(']') {
            Some((index, rest)) if index.parse::<usize>().is_ok() => all + rest,
            _ if place == 0 => all + part,
            _ => all + "[" + part,
        }
    });
    match expected.split_once(": ") {
        Some((field, text)) => plain.contains(field) && plain.contains(text),
        None => answer.contains(expected),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn bad_spec_is_refused() -> anyhow::Result<()> {
    world::run_promise("bad-spec", async |world| {
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
                    let found = tells(&told, expected);
                    anyhow::ensure!(found, "{}: expected {expected:?} in {told}", path.display());
                }
            }
            refused += 1;
        }
        anyhow::ensure!(refused >= 10, "only {refused} cases");
        for entry in std::fs::read_dir(folder.join("accept"))? {
            let path = entry?.path().display().to_string();
            world
                .cluster
                .kubectl(["apply", "--dry-run=server", "-n", &world.namespace, "-f", &path])
                .await?;
        }
        Ok(())
    })
    .await
}
