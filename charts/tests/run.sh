#!/usr/bin/env bash
# Tests of the charts, without a cluster; `make charts` runs them. The golden files are what `helm template` makes of values/: a stale one
# is rewritten, and the test fails once.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
helm=${HELM:-$(find "$cache" -path '*/helm-*/bin/helm' 2>/dev/null | sort -V | tail -n 1)}
helm=${helm:-$(command -v helm || true)}
[ -n "$helm" ] || { echo "helm is missing: 'make up' builds it once" >&2; exit 1; }

failures=0
fail() { echo "FAIL: $*" >&2; failures=$((failures + 1)); }
# The newest Kubernetes that the e2e cluster runs; a helm built from source knows no version of its own.
render() { "$helm" template --kube-version 1.36.0 slipway charts/slipway --namespace slipway-system "$@"; }

echo "- lint"
"$helm" lint --quiet --strict charts/slipway-crds
"$helm" lint --quiet --strict charts/slipway --values charts/tests/values/default.yaml

echo "- golden files"
for values in charts/tests/values/*.yaml; do
  golden=charts/tests/golden/$(basename "$values")
  rendered=$(render --values "$values")
  if [ "$rendered" != "$(cat "$golden" 2>/dev/null)" ]; then
    printf '%s\n' "$rendered" >"$golden"
    fail "$golden was stale and has been rewritten; look at the change and commit it"
  fi
done

echo "- the CRD chart ships the committed bytes"
diff <("$helm" template --kube-version 1.36.0 x charts/slipway-crds | sed -n '/^# Generated from/,$p' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}') \
  crds/modeldeployments.yaml >/dev/null || fail "charts/slipway-crds does not render crds/modeldeployments.yaml; run 'make crds'"

echo "- values that cannot work are refused with a reason"
refused() { # what the message says, then arguments
  local message
  message=$(render "${@:2}" 2>&1 >/dev/null) && fail "accepted: ${*:2}"
  grep -qF -- "$1" <<<"$message" || fail "${*:2}: expected '$1', not: $message"
}
refused 'prometheus.url is not set'
refused '--set prometheus.install=true'
refused 'prometheus.install is true and prometheus.url is http://p' --set prometheus.url=http://p,prometheus.install=true
refused '/prometheus/retention' --set prometheus.install=true,prometheus.retention=forever
refused '/prometheus/scrapeInterval' --set prometheus.install=true,prometheus.scrapeInterval=5m
refused '/prometheus/storage/sizeLimit' --set prometheus.install=true,prometheus.storage.sizeLimit=2GB
refused '/prometheus/image/tag' --set prometheus.install=true,prometheus.image.tag=
refused "additional properties 'operater' not allowed" --set prometheus.url=http://p,operater.replicas=2
refused '/prometheus/url' --set prometheus.url=p:9090
refused '/imagePullPolicy' --set prometheus.url=http://p,imagePullPolicy=Sometimes
refused '/operator/image/digest' --set prometheus.url=http://p,operator.image.digest=sha256:1
refused '/networkPolicies/mode' --set prometheus.url=http://p,networkPolicies.mode=on
refused "additional properties 'podSelecter' not allowed" --set prometheus.url=http://p --set-json 'networkPolicies.dataFrom=[{"podSelecter":{}}]'
refused '/networkPolicies/metricsFrom/0' --set prometheus.url=http://p --set-json 'networkPolicies.metricsFrom=[{}]'
refused '/gateway/replicas' --set prometheus.url=http://p,gateway.replicas=0

echo "- dashboard and alerts name metrics that docs/metrics.md lists"
used=$(grep -ohE 'slipway_[a-z0-9_]+' charts/slipway/files/* | sed -E 's/_(bucket|sum|count)$//' | sort -u)
for metric in $used; do
  grep -qE "\`${metric}[\`{]" docs/metrics.md || fail "$metric is not in docs/metrics.md"
done
render --values charts/tests/values/default.yaml --set dashboard.enabled=true --show-only templates/dashboard.yaml >/dev/null
python3 -m json.tool charts/slipway/files/rollout.json >/dev/null || fail "rollout.json is not JSON"
if command -v promtool >/dev/null; then
  promtool check rules charts/slipway/files/alerts.yaml >/dev/null || fail "alerts.yaml"
  promtool test rules charts/tests/alerts_test.yaml >/dev/null || fail "alerts_test.yaml"
else
  echo "  (alert rules not evaluated: promtool is missing)"
fi

echo "- the Prometheus for newcomers reads its configuration"
file_of() { awk -v key="  $1: |" '$0 == key { on = 1; next } on && /^ ? ? ?[^ ]/ { exit } on { print substr($0, 5) }'; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# A promtool before 3, and Debian's, know too little to read any such configuration.
cat >"$scratch/probe.yml" <<'END'
scrape_configs: [{ job_name: probe, fallback_scrape_protocol: PrometheusText0.0.4, kubernetes_sd_configs: [{ role: pod }] }]
END
check_config=(promtool check config)
if ! "${check_config[@]}" "$scratch/probe.yml" >/dev/null 2>&1; then
  echo "  (prometheus.yml not checked: a promtool 3 that can discover pods is missing)"
  check_config=(true)
fi
for values in charts/tests/values/newcomer*.yaml; do
  rendered=$(render --values "$values" --show-only templates/prometheus.yaml)
  for file in prometheus.yml alerts.yaml; do file_of "$file" <<<"$rendered" >"$scratch/$file"; done
  [ "$(<"$scratch/alerts.yaml")" = "$(<charts/slipway/files/alerts.yaml)" ] || fail "$values: other alert rules than files/alerts.yaml"
  grep -q '^scrape_configs:' "$scratch/prometheus.yml" || fail "$values: no prometheus.yml"
  "${check_config[@]}" "$scratch/prometheus.yml" >/dev/null || fail "$values: prometheus.yml"
done

echo "- Argo CD's scripts"
diff <(charts/slipway/argocd/render.sh) charts/slipway/argocd/argocd-cm.yaml >/dev/null ||
  fail "argocd-cm.yaml is stale: run charts/slipway/argocd/render.sh"
if command -v lua5.1 >/dev/null; then
  (cd charts/slipway/argocd && lua5.1 test.lua) || fail "argocd/test.lua"
else
  echo "  (scripts not run: lua5.1 is missing)"
fi

[ "$failures" -eq 0 ] || exit 1
echo "charts: ok"
