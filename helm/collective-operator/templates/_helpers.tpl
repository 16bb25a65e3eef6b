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
{{ printf "%s:%s" .image.repository (default .appVersion .image.tag) }}
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
