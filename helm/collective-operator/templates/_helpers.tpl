{{- define "collective.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "collective.fullname" -}}
{{- $name := include "collective.name" . }}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "collective.serviceAccount" -}}
{{ default (include "collective.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "collective.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (default .appVersion .image.tag) }}
{{- end }}
{{- end }}

{{- define "collective.selector" -}}
app.kubernetes.io/name: {{ include "collective.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "collective.peers" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
  podSelector:
    matchLabels: {{- include "collective.selector" . | nindent 6 }}
{{- end }}

{{- define "collective.labels" -}}
{{ include "collective.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The labels of series, beside those that Prometheus gives by itself (namespace, pod): what dashboards and alerts go by. */}}
{{- define "collective.relabelings" -}}
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
  targetLabel: component
- sourceLabels: [__meta_kubernetes_pod_label_collectivelearning_dev_task]
  targetLabel: task
- sourceLabels: [__meta_kubernetes_pod_label_collectivelearning_dev_site]
  targetLabel: site
- sourceLabels: [__meta_kubernetes_pod_label_collectivelearning_dev_learner_index]
  regex: (.+)
  replacement: learner-$1
  targetLabel: learner
{{- end }}
