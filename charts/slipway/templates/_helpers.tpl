{{- define "slipway.fullname" -}}
{{- if contains "slipway" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-slipway" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "slipway.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "slipway.fullname" .) }}
{{- end }}

{{- define "slipway.selectorLabels" -}}
app.kubernetes.io/name: slipway-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Not managed-by=slipway: that marks what the operator itself makes. */}}
{{- define "slipway.labels" -}}
{{ include "slipway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* dict "image" (the values) "chart" (.Chart) */}}
{{- define "slipway.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag | default .chart.AppVersion }}{{ end }}
{{- end }}

{{- define "slipway.prometheusUrl" -}}
{{- if not .Values.prometheus.install }}
{{- required "prometheus.url is not set: rollouts are judged by what Prometheus measured. Set it to an address that the operator's pod can reach, for example --set prometheus.url=http://prometheus.monitoring:9090; or, for trying Slipway out, let this chart bring a small Prometheus: --set prometheus.install=true" .Values.prometheus.url }}
{{- else if .Values.prometheus.url }}
{{- fail (printf "prometheus.install is true and prometheus.url is %s: the operator asks one Prometheus. Where you have one, --set prometheus.install=false; for trying Slipway out with the chart's own, --set prometheus.url=''" .Values.prometheus.url) }}
{{- else }}
{{- printf "http://%s.%s:9090" (include "slipway.prometheus.fullname" .) .Release.Namespace }}
{{- end }}
{{- end }}

{{- define "slipway.prometheus.fullname" -}}
{{ include "slipway.fullname" . }}-prometheus
{{- end }}

{{- /* A name of its own: whatever selects the operator's pods must not select this one. */}}
{{- define "slipway.prometheus.selectorLabels" -}}
app.kubernetes.io/name: slipway-prometheus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slipway.prometheus.labels" -}}
{{ include "slipway.prometheus.selectorLabels" . }}
app.kubernetes.io/component: prometheus
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Who may reach ports of metrics, as a JSON list: everybody where it is empty, else also the chart's own Prometheus. */}}
{{- define "slipway.metricsFrom" -}}
{{- $peers := .Values.networkPolicies.metricsFrom }}
{{- if and $peers .Values.prometheus.install }}
{{- $own := dict "namespaceSelector" (include "slipway.ownNamespace" . | fromJson) "podSelector" (dict "matchLabels" (include "slipway.prometheus.selectorLabels" . | fromYaml)) }}
{{- $peers = append $peers $own }}
{{- end }}
{{- toJson $peers }}
{{- end }}

{{- /* The operator's own pods, as a JSON list of peers. */}}
{{- define "slipway.operatorPeers" -}}
{{- $pods := dict "matchLabels" (include "slipway.selectorLabels" . | fromYaml) }}
{{- list (dict "namespaceSelector" (include "slipway.ownNamespace" . | fromJson) "podSelector" $pods) | toJson }}
{{- end }}

{{- define "slipway.ownNamespace" -}}
{{- dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) | toJson }}
{{- end }}

{{- /* The namespaces with pods to scrape, as a JSON list; an empty list is all of them. The operator's own pods are in the release's. */}}
{{- define "slipway.prometheus.namespaces" -}}
{{- with .Values.watchNamespace }}{{ list . $.Release.Namespace | uniq | toJson }}{{ else }}[]{{ end }}
{{- end }}

{{- /* What the operator reads about gateways; a namespace's annotation has the same shape. */}}
{{- define "slipway.gatewaySettings" -}}
{{- pick .Values.gateway "replicas" "autoscaling" "template" | toYaml }}
{{- end }}
