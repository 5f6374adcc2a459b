use super::*;

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

fn pod_with(status: &str) -> Pod {
    yaml(&format!(
        "
metadata:
  name: digits-aaaa-x
  namespace: ns
  uid: u-pod
  labels: {{app.kubernetes.io/component: runtime, ml.slipway.dev/modeldeployment: digits, ml.slipway.dev/revision: aaaa}}
status:
{status}
"
    ))
}

fn problem_of(status: &str) -> Option<(String, String, i32)> {
    cached_pod(&pod_with(status)).unwrap().problem.map(|p| (p.reason, p.message, p.restarts))
}

fn found(reason: &str, message: &str, restarts: i32) -> Option<(String, String, i32)> {
    Some((reason.to_owned(), message.to_owned(), restarts))
}

/// The status of a pod in a crash loop, with the given termination state of its container.
fn crash_looping(restarts: i32, ended: &str) -> String {
    format!(
        "
  containerStatuses:
  - name: server
    image: i
    imageID: i
    ready: false
    restartCount: {restarts}
    state: {{waiting: {{reason: CrashLoopBackOff, message: back-off 40s restarting failed container}}}}
    lastState: {{terminated: {{{ended}}}}}
"
    )
}

#[test]
fn the_runtimes_own_word_wins_over_back_off() {
    let report = FailureReport {
        reason: "ModelNotFound".to_owned(),
        message: "404".to_owned(),
        permanent: true,
    };
    let message = serde_json::to_string(&report).unwrap();
    let status = crash_looping(3, &format!("exitCode: 1, reason: Error, message: '{message}'"));
    assert_eq!(problem_of(&status), found("CrashLoopBackOff", &message, 3));
}

#[test]
fn a_container_that_runs_again_after_a_crash_still_counts() {
    let status = "
  containerStatuses:
  - {name: r, image: i, imageID: i, ready: false, restartCount: 1, state: {running: {}}, lastState: {terminated: {exitCode: 137, reason: OOMKilled}}}
";
    assert_eq!(
        problem_of(status),
        found("OOMKilled", "it needs more than its memory limit (exit code 137)", 1)
    );
}

/// A log may contain confidential data, and more users may read a ModelDeployment than pod logs.
#[test]
fn of_the_end_of_a_log_one_line_is_told_and_no_more() {
    let told = |log: &str| {
        let status = crash_looping(
            4,
            &format!("exitCode: 1, reason: Error, message: {}", serde_json::json!(log)),
        );
        problem_of(&status).unwrap().1
    };
    assert_eq!(
        told("token=hunter2\nconnecting\n\u{1b}[31mError: no such table\u{7}\n\n"),
        "[31mError: no such table"
    );
    assert_eq!(told(&"x".repeat(5000)).len(), 200);
    let log = "{\"level\":\"INFO\",\"token\":\"hunter2\"}\n{\"level\":\"ERROR\",\"message\":\"ending\"}\n";
    assert_eq!(
        told(log),
        "{\"level\":\"ERROR\",\"message\":\"ending\"}",
        "a log in JSON is one, too"
    );
}

/// The kubelet uses the end of the log as the message of a container that wrote no termination
/// message.
#[test]
fn a_container_that_runs_out_of_memory_again_and_again_is_told_as_such() {
    let status = crash_looping(4, "exitCode: 137, reason: OOMKilled, message: 'listening'");
    assert_eq!(
        problem_of(&status),
        found("OOMKilled", "it needs more than its memory limit (exit code 137)", 4)
    );
}

#[test]
fn images_init_containers_and_the_scheduler_speak() {
    let image = "
  containerStatuses:
  - {name: r, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: ImagePullBackOff, message: no such image}}}
";
    assert_eq!(problem_of(image), found("ImagePullBackOff", "no such image", 0));
    let init = "
  initContainerStatuses:
  - {name: fetch, image: i, imageID: i, ready: false, restartCount: 2, state: {terminated: {exitCode: 2, reason: Error, message: disk full}}}
  containerStatuses:
  - {name: r, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: PodInitializing}}}
";
    assert_eq!(problem_of(init), found("Error", "disk full", 2));
    let unscheduled = "
  phase: Pending
  conditions:
  - {type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/3 nodes are available}
";
    assert_eq!(problem_of(unscheduled), found("Unschedulable", "0/3 nodes are available", 0));
    let evicted = "
  phase: Failed
  reason: Evicted
  message: low on memory
";
    assert_eq!(problem_of(evicted), found("Evicted", "low on memory", 0));
}

#[test]
fn a_pod_that_starts_or_serves_has_no_problem() {
    let starting = "
  containerStatuses:
  - {name: r, image: i, imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: ContainerCreating}}}
";
    assert_eq!(problem_of(starting), None);
    let recovered = "
  conditions: [{type: Ready, status: 'True'}]
  containerStatuses:
  - {name: r, image: i, imageID: i, ready: true, restartCount: 5, state: {running: {}}, lastState: {terminated: {exitCode: 1}}}
";
    assert_eq!(problem_of(recovered), None);
    let done = "
  containerStatuses:
  - {name: r, image: i, imageID: i, ready: false, restartCount: 0, state: {terminated: {exitCode: 0, reason: Completed}}}
";
    assert_eq!(problem_of(done), None);
}

fn made_by(set: &str, name: &str, extra: &str) -> Pod {
    yaml(&format!(
        "
metadata:
  name: {name}
  namespace: ns
  uid: u-{name}
  labels: {{app.kubernetes.io/managed-by: slipway, app.kubernetes.io/component: gateway}}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: {set}, uid: {set}, controller: true}}]
{extra}
"
    ))
}

fn gateway_pod(name: &str, extra: &str) -> Pod {
    made_by("u-set", name, extra)
}

#[test]
fn a_gateway_pod_that_has_ended_has_no_address() {
    let kept = |phase: &str| {
        cached_pod(&gateway_pod("gw", &format!("status: {{podIP: 10.0.0.1, phase: {phase}}}")))
            .unwrap()
    };
    assert_eq!(kept("Running").ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(kept("Failed").ip, None);
}

#[test]
fn what_a_pod_has_fetched_is_read_from_its_first_step() {
    let hex = "a".repeat(64);
    let told = |message: &str, exit: i32, step: &str| {
        let status = format!(
            "  initContainerStatuses:
  - name: {step}
    image: i
    imageID: i
    ready: true
    restartCount: 0
    state: {{terminated: {{exitCode: {exit}, message: {}}}}}
",
            serde_json::json!(message)
        );
        cached_pod(&pod_with(&status)).unwrap().fetched.map(|it| (it.revision, it.pod, it.digest))
    };
    let report = FetchReport { digest: format!("sha256:{hex}"), bytes: 7, files: 1 };
    // With the end of the line that the model server writes.
    let message = serde_json::to_string(&report).unwrap() + "\n";
    let want = Some(("aaaa".to_owned(), "digits-aaaa-x".to_owned(), format!("sha256:{hex}")));
    assert_eq!(told(&message, 0, "fetch"), want);
    assert_eq!(told(&message, 1, "fetch"), None, "it failed");
    assert_eq!(told(&message, 0, "redis"), None, "another container");
    for forged in [
        "",
        "{}",
        "sha256:00",
        r#"{"digest":"sha256:00"}"#,
        &message.replace('a', "A"),
        &message.replace(&hex, "$(X)"),
    ] {
        assert_eq!(told(forged, 0, "fetch"), None, "{forged}");
    }
}
