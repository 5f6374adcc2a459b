//! The state of a namespace and of the operator, for the message of a failed test.

use crate::cluster::ClusterHandle;

/// Namespace and label of the operator, as the chart installs it.
const OPERATOR_SELECTOR: [&str; 3] =
    ["--all-namespaces", "-l", "app.kubernetes.io/name=slipway-operator"];

impl ClusterHandle {
    /// The state that a developer needs first. Never fails, because it runs after another failure.
    pub async fn dump_state(&self, namespace: &str) -> String {
        let looks: [(&str, Vec<&str>); 6] = [
            (
                "pods",
                vec![
                    "get",
                    "pods,replicasets,services,endpointslices",
                    "-o",
                    "wide",
                    "-n",
                    namespace,
                ],
            ),
            ("modeldeployments", vec!["get", "modeldeployments", "-o", "yaml", "-n", namespace]),
            ("events", vec!["get", "events", "--sort-by=.lastTimestamp", "-n", namespace]),
            (
                "logs of pods",
                vec![
                    "logs",
                    "--prefix",
                    "--all-containers",
                    "--tail=20",
                    "-l",
                    "app.kubernetes.io/managed-by=slipway",
                    "-n",
                    namespace,
                ],
            ),
            ("operator", [&["get", "pods", "-o", "wide"], OPERATOR_SELECTOR.as_slice()].concat()),
            ("logs of the operator", vec![]),
        ];
        let mut text = String::new();
        for (title, arguments) in looks {
            let shown = match arguments.is_empty() {
                true => self.operator_logs().await,
                false => self.kubectl(&arguments).await.unwrap_or_else(|error| error.to_string()),
            };
            text.push_str(&format!("--- {title}\n{}\n", shown.trim_end()));
        }
        text
    }

    /// `kubectl logs` requires one namespace, and the operator may be in any.
    async fn operator_logs(&self) -> String {
        let place =
            "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
        let pods = self
            .kubectl([&["get", "pods", "-o", place], OPERATOR_SELECTOR.as_slice()].concat())
            .await
            .unwrap_or_default();
        let mut text = String::new();
        for (namespace, pod) in pods.lines().filter_map(|line| line.split_once('/')) {
            let logs = self.kubectl(["logs", "-n", namespace, pod, "--tail=80"]).await;
            text.push_str(&logs.unwrap_or_else(|error| error.to_string()));
        }
        text
    }
}
