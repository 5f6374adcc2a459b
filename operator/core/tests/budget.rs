//! The cost of a rollout for the API server, and the allowed dependencies of the core.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::World;
use serde_json::json;
use slipway_crds::v1alpha1::RolloutStage;

#[test]
fn a_canary_with_two_weights_and_three_replicas_costs_at_most_16_writes() {
    let mut world = World::serving(
        json!({ "strategy": { "canary": { "steps": [{ "setWeight": 5 }, { "setWeight": 100 }] } } }),
    );
    world.version("v2");
    for round in 0..200 {
        if world.stage() == Some(RolloutStage::Analyzing) {
            // Six readings with too little evidence, then one with enough.
            let good = if round % 7 == 0 { 9990.0 } else { 40.0 };
            world.pass(10);
            world.errors((0.0, good), (0.0, 9990.0));
        }
        world.tick(1);
        // A second plan for the same state adds nothing.
        let writes = world.writes.len();
        world.step();
        world.writes.truncate(writes.max(world.writes.len()));
    }
    assert_eq!((world.stable().as_str(), world.size("v1")), ("v2", 0));
    assert!(world.writes.len() <= 16, "{}: {:#?}", world.writes.len(), world.writes);
}

#[test]
fn an_abort_costs_few_writes() {
    let mut world = World::serving(json!({}));
    world.version("v2");
    world.until(RolloutStage::Analyzing, 0);
    world.writes.clear();
    world.command("abort", "1");
    for _ in 0..20 {
        world.tick(5);
    }
    assert!(world.writes.len() <= 6, "{:#?}", world.writes);
}

#[test]
fn a_world_at_rest_costs_nothing() {
    let mut world = World::serving(json!({}));
    for _ in 0..100 {
        world.tick(3600);
    }
    assert!(world.writes.is_empty());
}

/// The core, and the judge and the builders below it, depend on no client, no runtime and no HTTP
/// library.
#[test]
fn the_core_depends_on_no_client() {
    let lock =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
    for folder in ["core", "judge", "objects"] {
        let manifest = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../{}/Cargo.toml"), folder);
        let manifest = std::fs::read_to_string(manifest).unwrap();
        let direct = manifest.split("[dev-dependencies]").next().unwrap();
        for banned in
            ["tokio", "hyper", "reqwest", "rand", "kube-client", "kube-runtime", "futures"]
        {
            let used = direct.lines().any(|line| line.starts_with(banned));
            assert!(!used, "{banned} is a dependency of operator/{folder}");
        }
    }
    // The dependencies of `kube` depend on its features, which are not in a lock file, so the test
    // asks cargo.
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "-p",
            "slipway-core",
            "-e",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for banned in ["tokio", "hyper", "reqwest", "rand", "kube-client", "kube-runtime"] {
        let used = tree.lines().any(|line| line.split(' ').next() == Some(banned));
        assert!(!used, "slipway-core depends on {banned}:\n{tree}");
    }
    for room in ["slipway-core", "slipway-judge", "slipway-objects"] {
        assert!(tree.lines().any(|line| line.split(' ').next() == Some(room)), "{room}:\n{tree}");
    }
    assert!(lock.contains("name = \"slipway-core\""));
}
