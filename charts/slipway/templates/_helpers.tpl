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
{{- required "prometheus.url is not set: rollouts are judged by what Prometheus measured. Set it to an address that the operator's pod can reach, for example --set prometheus.url=http://prometheus.monitoring:9090" .Values.prometheus.url }}
{{- end }}
