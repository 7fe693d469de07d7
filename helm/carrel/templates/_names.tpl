{{- /* Names and labels. */ -}}

{{- define "carrel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "carrel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "carrel.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "carrel.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Takes (list $ component). */ -}}
{{- define "carrel.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "carrel.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* Takes (list $ component). */ -}}
{{- define "carrel.labels" -}}
{{- $root := index . 0 -}}
{{ include "carrel.selector" . }}
app.kubernetes.io/part-of: carrel
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Takes (list $ component). */ -}}
{{- define "carrel.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (index $root.Values (index . 1)).serviceAccount -}}
{{- if $account.name -}}{{ $account.name }}
{{- else if $account.create -}}{{ include "carrel.fullname" $root }}-{{ index . 1 }}
{{- else -}}default
{{- end -}}
{{- end -}}

{{- define "carrel.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- $name := $image.repository -}}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- /* The namespaces of learners' pods, as a JSON list under 'names'. */ -}}
{{- define "carrel.learnerNamespaces" -}}
{{- $own := list (printf "%s-learners" (include "carrel.fullname" .)) -}}
{{- dict "names" (default $own .Values.learnerNamespaces.names) | toJson -}}
{{- end -}}

{{- define "carrel.learnerPriorityClass" -}}
{{- if .Values.priorityClasses.enabled }}{{ .Release.Namespace }}-{{ include "carrel.fullname" . }}-learners{{ end -}}
{{- end -}}

{{- define "carrel.publicUrl" -}}
{{- if .Values.config.publicUrl -}}{{ .Values.config.publicUrl }}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts -}}
{{ ternary "https" "http" (ne .Values.ingress.tlsSecret "") }}://{{ first .Values.ingress.hosts }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hostnames -}}
https://{{ first .Values.httpRoute.hostnames }}
{{- else if eq .Values.gateway.service.type "ClusterIP" -}}
http://127.0.0.1:7070
{{- end -}}
{{- end -}}
