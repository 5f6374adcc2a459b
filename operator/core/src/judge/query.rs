//! What the metrics poller asks Prometheus, over the metrics of ARCHITECTURE.md ("Metrics").
//!
//! `increase(...[{{window}}])` looks back exactly to the confirmation of the weight: the poller puts in the age of the window at each reading. It bears
//! counter resets, and it names both revisions, so neither an older weight nor an older revision is ever judged.

use slipway_crds::v1alpha1::{Gate, GateType};

use crate::evidence::{GateQueries, Queries};

/// The queries of all gates, in their order.
pub fn queries(namespace: &str, name: &str, gates: &[Gate], candidate: &str, stable: &str) -> Vec<GateQueries> {
    let selector = Selector { namespace, name, candidate, stable };
    gates.iter().map(|gate| GateQueries { gate: gate.name.clone(), queries: query(gate, &selector) }).collect()
}

struct Selector<'a> {
    namespace: &'a str,
    name: &'a str,
    candidate: &'a str,
    stable: &'a str,
}

impl Selector<'_> {
    /// Increase of a metric's series of both revisions since confirmation, with further matchers.
    fn increase(&self, metric: &str, further: &str) -> String {
        let Self { namespace, name, candidate, stable } = self;
        format!(
            r#"increase({metric}{{namespace="{namespace}",modeldeployment="{name}",revision=~"{candidate}|{stable}"{further}}}[{{{{window}}}}])"#
        )
    }
}

fn query(gate: &Gate, selector: &Selector<'_>) -> Queries {
    match gate.type_ {
        GateType::ErrorRate => Queries::Counts(errors(selector)),
        GateType::Latency => Queries::Buckets(format!(
            "sum by (revision, le) ({})",
            selector.increase("slipway_gateway_request_duration_seconds_bucket", "")
        )),
        GateType::Accuracy => Queries::Counts(accuracy(selector)),
        GateType::PromQl => {
            let query = gate.prom_ql.as_ref().map(|p| p.query.as_str()).unwrap_or_default();
            Queries::Value(substituted(query, selector))
        }
    }
}

/// The outcomes for which an arm is to blame are bad, its answers (a client's own mistake is answered rightly with 4xx) are good, and requests whose client
/// left before stable would have answered are neither; one that waited for longer is a `timeout`. `contract_error` is a 4xx that stable contradicted;
/// `try_timeout` is what took longer than a try may take, counted alike in both arms.
fn errors(selector: &Selector<'_>) -> String {
    let increase = selector.increase(
        "slipway_gateway_requests_total",
        r#",outcome=~"success|client_error|contract_error|server_error|timeout|try_timeout|unavailable""#,
    );
    relabelled(
        &increase,
        "outcome",
        "contract_error|server_error|timeout|try_timeout|unavailable",
        "success|client_error",
    )
}

fn accuracy(selector: &Selector<'_>) -> String {
    let increase = selector.increase("slipway_runtime_feedback_total", r#",result=~"correct|incorrect""#);
    relabelled(&increase, "result", "incorrect", "correct")
}

/// Sums by revision and by a label `result`, made from the values of `label`. Prometheus anchors the expressions of label_replace, so `correct` does not match
/// `incorrect`.
fn relabelled(vector: &str, label: &str, bad: &str, good: &str) -> String {
    let inner = format!(r#"label_replace({vector}, "result", "bad", "{label}", "{bad}")"#);
    format!(r#"sum by (revision, result) (label_replace({inner}, "result", "good", "{label}", "{good}"))"#)
}

/// A user's query with its variables, all but `{{window}}`, which only the poller knows. Names and revisions are DNS labels: nothing to quote.
fn substituted(query: &str, selector: &Selector<'_>) -> String {
    query
        .replace("{{candidate}}", selector.candidate)
        .replace("{{stable}}", selector.stable)
        .replace("{{modeldeployment}}", selector.name)
        .replace("{{namespace}}", selector.namespace)
}
