//! Many idle connections at every port of a gateway do not disturb requests, probes, rollouts and
//! the connection to the operator.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use slipway_contracts::ports;
use slipway_e2e::world::{self, TestWorld};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const DATA: u16 = ports::HTTP.number;
const ADMIN: u16 = ports::GATEWAY_ADMIN.number;

async fn gateways(world: &TestWorld) -> anyhow::Result<Vec<(IpAddr, i32)>> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), &world.namespace);
    let found =
        pods.list(&ListParams::default().labels("app.kubernetes.io/component=gateway")).await?;
    let address = |pod: &Pod| -> anyhow::Result<(IpAddr, i32)> {
        let status = pod.status.as_ref().context("no status")?;
        let restarts = status
            .container_statuses
            .iter()
            .flatten()
            .map(|container| container.restart_count)
            .sum();
        let ready =
            status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
        anyhow::ensure!(ready, "{:?} is not ready", pod.metadata.name);
        Ok((status.pod_ip.as_ref().context("no address")?.parse()?, restarts))
    };
    let mut all: Vec<_> = found.items.iter().map(address).collect::<anyhow::Result<_>>()?;
    all.sort_unstable();
    Ok(all)
}

/// Opens `count` connections to each address and keeps that number as well as possible, each
/// beginning with `first`, until the set is dropped.
fn crowd(addresses: &[SocketAddr], count: usize, first: &'static [u8]) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for address in addresses.iter().copied() {
        for _ in 0..count {
            crowd.spawn(async move {
                loop {
                    let opened =
                        tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address))
                            .await;
                    if let Ok(Ok(mut stream)) = opened {
                        let mut end = [0; 1];
                        drop(stream.write_all(first).await);
                        // A closed connection is opened again.
                        while matches!(
                            tokio::io::AsyncReadExt::read(&mut stream, &mut end).await,
                            Ok(1)
                        ) {}
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn attackers_wait_outside() -> anyhow::Result<()> {
    world::run_promise_alone("attackers", async |world| {
        if world.cluster.is_foreign() {
            eprintln!("attackers_wait_outside needs the addresses of pods, which only a cluster of ours lets this machine reach");
            return Ok(());
        }
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 100).await?;
        let before = gateways(&world).await?;
        let at = |port: u16| before.iter().map(|(ip, _)| SocketAddr::new(*ip, port)).collect::<Vec<_>>();
        let crowds = [
            crowd(&at(ADMIN), 400, b""),
            crowd(&at(ADMIN), 100, b"P"),
            crowd(&at(ADMIN), 40, b"GET /v1/state HTTP/1.1\r\nhost: x\r\n\r\n"),
            crowd(&at(DATA), 1500, b""),
            crowd(&at(DATA), 1500, b"P"),
        ];
        world.apply(&world.quick_example("digits/v2.yaml")?).await?;
        world.wait_promoted("digits", "v2").await?;
        anyhow::ensure!(gateways(&world).await? == before, "gateways have changed");
        for (ip, _) in &before {
            for path in ["livez", "readyz", "metrics"] {
                let answer = world.http.get(&format!("http://{}/{path}", SocketAddr::new(*ip, ADMIN))).await?;
                anyhow::ensure!(answer.status.is_success(), "{path} of {ip}: {answer:?}");
            }
        }
        drop(crowds);
        world.finish_load().await.map(drop)
    })
    .await
}
