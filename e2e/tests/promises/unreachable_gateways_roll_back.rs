//! Unreachable gateways: weights that one of them does not confirm are rolled back, and while the
//! operator can reach none of them, a candidate receives no traffic.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use slipway_contracts::ports::GATEWAY_ADMIN;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::world::{self, TestWorld};

/// A table separate from kube-proxy's. It is placed before the bridge, so that it also sees packets
/// between pods of one node.
const TABLE: &str = "slipway_e2e_promise";

/// Drops packets until this value is dropped.
struct Firewall<'a>(&'a TestWorld);

impl<'a> Firewall<'a> {
    /// `rules` are the parts after `add rule … forward`.
    fn new(world: &'a TestWorld, rules: &[String]) -> anyhow::Result<Self> {
        let wall = Self(world);
        let mut script = String::new();
        for family in ["bridge", "inet"] {
            script += &format!("add table {family} {TABLE}\n");
            for hook in ["prerouting", "output"] {
                let chain = format!("{family} {TABLE} {hook}");
                script +=
                    &format!("add chain {chain} {{ type filter hook {hook} priority -310; }}\n");
                for rule in rules {
                    script += &format!("add rule {chain} {rule} drop\n");
                }
            }
        }
        wall.nft(&script)?;
        Ok(wall)
    }

    fn nft(&self, script: &str) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut child = self
            .0
            .cluster
            .nsenter_command()?
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("stdin")?.write_all(script.as_bytes())?;
        ensure!(child.wait()?.success(), "nft does not take\n{script}");
        Ok(())
    }
}

impl Drop for Firewall<'_> {
    fn drop(&mut self) {
        drop(self.nft(&format!("delete table bridge {TABLE}\ndelete table inet {TABLE}\n")));
    }
}

/// The family of an address in the syntax of rules.
fn family(address: &str) -> &'static str {
    if address.contains(':') { "ip6" } else { "ip" }
}

async fn addresses(
    world: &TestWorld,
    namespace: &str,
    selector: &str,
) -> anyhow::Result<Vec<String>> {
    let arguments =
        ["get", "pods", "-n", namespace, "-l", selector, "-o=jsonpath={.items[*].status.podIP}"];
    let text = world.cluster.kubectl(arguments).await?;
    let all: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    ensure!(!all.is_empty(), "no pod {selector} in {namespace}");
    Ok(all)
}

fn unreachable(status: &ModelDeploymentStatus, words: &[&str]) -> Result<(), String> {
    let found =
        status.conditions.iter().find(|it| it.type_ == "Reconciling").ok_or("no condition")?;
    let told = found.reason == "GatewaysUnreachable"
        && words.iter().all(|word| found.message.contains(word));
    let stable = status.stable.as_ref().map(|it| it.revision.as_str()).unwrap_or_default();
    let back = world::revision_weights(status)
        .into_iter()
        .all(|(revision, weight)| revision == stable || weight == 0);
    if told && back { Ok(()) } else { Err(world::describe_status(status)) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn unreachable_gateways_roll_back() -> anyhow::Result<()> {
    world::run_promise_alone("unreachable", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("unreachable_gateways_roll_back needs the network of the node, which only a cluster of ours lets this machine change");
            return Ok(());
        }
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 60).await?;
        let gateways = addresses(&world, &world.namespace, "app.kubernetes.io/component=gateway").await?;
        let first = gateways.first().context("no gateway")?;

        // One gateway cannot reach the API server: the first weight reaches only the other one.
        let deaf = Firewall::new(&world, &[format!("{} saddr {first} tcp dport {{ 443, 6443 }}", family(first))])?;
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        let back = |status: &ModelDeploymentStatus| unreachable(status, &["still uses generation"]);
        world.wait_for_status("digits", "the weight to go back", Duration::from_secs(150), back).await?;
        drop(deaf);
        world.wait_promoted("digits", "v2").await?;

        // The operator hears nobody: nothing goes to the next version, and status names pod, port and error.
        let port = GATEWAY_ADMIN.number;
        let rules: Vec<String> = gateways.iter().map(|to| format!("{} daddr {to} tcp dport {port}", family(to))).collect();
        let operator = addresses(&world, "slipway-system", "app.kubernetes.io/name=slipway-operator").await?;
        let rules: Vec<String> = operator
            .iter()
            .flat_map(|from| rules.iter().map(move |rule| format!("{} saddr {from} {rule}", family(from))))
            .collect();
        let dark = Firewall::new(&world, &rules)?;
        world.apply(&world.quick_example("digits/v3.yaml")?).await?;
        let address_end = format!(":{port}: ");
        let told = |status: &ModelDeploymentStatus| unreachable(status, &["slipway-gateway-", &address_end]);
        world.wait_for_status("digits", "the gateways to be named", Duration::from_secs(90), told).await?;
        drop(dark);
        world.wait_for_weight("digits", 50).await?;
        world.finish_load().await.map(drop)
    })
    .await
}
