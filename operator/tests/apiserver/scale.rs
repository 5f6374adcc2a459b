//! Many ModelDeployments at a time: the resources that the process needs. `SLIPWAY_SCALE` sets
//! their number.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeployment;

use crate::support::fakes::Fakes;
use crate::support::world::{World, spec};
use crate::support::{audit, eventually, eventually_within};

/// More than a single canary may need, because pods and gateways become ready one after the other
/// here.
const BUDGET: usize = 20;

/// Time limit for hundreds of objects on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// Stops the operator however the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resources that a process has used so far.
#[derive(Clone, Copy)]
struct Used {
    cpu_seconds: f64,
    resident_mib: f64,
    peak_mib: f64,
}

impl Process {
    fn used(&self) -> Used {
        let folder = Path::new("/proc").join(self.0.id().to_string());
        let status = fs::read_to_string(folder.join("status")).unwrap();
        let mib = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        let stat = fs::read_to_string(folder.join("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
        // Fields 14 and 15 of the line, in hundredths of a second.
        Used {
            cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
            resident_mib: mib("VmRSS:"),
            peak_mib: mib("VmHWM:"),
        }
    }
}

fn spec_of(version: &str) -> Value {
    let mut spec = spec(version);
    let more = json!({
        "replicas": 3,
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"setWeight": 100}]}, "scaleDownDelaySeconds": 1},
        "analysis": {"intervalSeconds": 2}
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn serves(object: &ModelDeployment, version: &str) -> bool {
    let Some(status) = &object.status else { return false };
    status.rollout.is_none()
        && status.stable.as_ref().is_some_and(|r| r.version == version && r.ready_replicas == 3)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs kube-apiserver and etcd"]
async fn many_at_once() {
    let count: usize =
        std::env::var("SLIPWAY_SCALE").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let world = World::new("many").await;
    let fakes = Fakes::start(&world, 20).await;
    let user = world.plane.operator_user();
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-operator"));
    command
        .env("KUBECONFIG", world.plane.kubeconfig(&user))
        .env("RUST_LOG", "warn")
        .stderr(Stdio::inherit());
    command
        .args(["--namespace=many", "--lease-namespace=many", "--admin-listen=127.0.0.1:0"])
        .args(fakes.arguments());
    let process = Process(command.spawn().unwrap());
    let log = world.plane.audit_log();
    let asked = || audit::requests(&log, &user).iter().filter(|r| !r.is_of_lease()).count();
    eventually("the caches are filled", async || asked() >= 9).await;
    let empty = process.used();
    println!("empty: {:.1} MiB", empty.resident_mib);

    let names: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
    let all_serve = async |version: &str| {
        let all = world.api::<ModelDeployment>().list(&Default::default()).await.unwrap();
        all.iter().filter(|o| serves(o, version)).count() == count
    };
    let tell = |what: &str, start: Instant, before: (usize, Used)| {
        let (requests, now) = (asked() - before.0, process.used());
        println!(
            "{what} {count}: {:.1} s, {:.1} requests and {:.4} CPU s each, {:.1} MiB resident, {:.1} at most",
            start.elapsed().as_secs_f64(),
            requests as f64 / count as f64,
            (now.cpu_seconds - before.1.cpu_seconds) / count as f64,
            now.resident_mib,
            now.peak_mib
        );
        requests
    };

    let (start, before) = (Instant::now(), (asked(), empty));
    stream::iter(&names)
        .for_each_concurrent(8, |name| async { drop(world.create(name, spec_of("v1")).await) })
        .await;
    eventually_within(LONG, "all serve", async || all_serve("v1").await).await;
    tell("create", start, before);

    let (start, before) = (Instant::now(), (asked(), process.used()));
    let change = json!({"spec": spec_of("v2")});
    stream::iter(&names).for_each_concurrent(8, |name| world.merge(name, change.clone())).await;
    eventually_within(LONG, "all are promoted", async || all_serve("v2").await).await;
    let requests = tell("update", start, before);
    assert!(requests <= BUDGET * count, "{requests} requests for {count} rollouts");
}
