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
app.kubernetes.io/name: {{ include "collective.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "collective.peers" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace | quote }}}}
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

{{- define "collective.milliseconds" -}}
{{- $sum := 0 }}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" (toString .) -1 }}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int64) (get $units (regexFind "[a-z]+" .))) }}
{{- end }}
{{- $sum }}
{{- end }}

{{- /* How often is scraped, and how long it may take.  The Prometheus Operator passes over a monitor that may take longer
than until the next scrape, and says so in its own log alone. */}}
{{- define "collective.pace" -}}
{{- $milliseconds := dict }}
{{- range $name := list "interval" "scrapeTimeout" }}
{{- $_ := set $milliseconds $name (include "collective.milliseconds" (get $.monitor $name) | int64) }}
{{- end }}
{{- if gt $milliseconds.scrapeTimeout $milliseconds.interval }}
{{- fail (printf "%s.scrapeTimeout: %s is longer than its interval, %s" .path .monitor.scrapeTimeout .monitor.interval) }}
{{- end -}}
interval: {{ .monitor.interval }}
{{- with .monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- end }}
