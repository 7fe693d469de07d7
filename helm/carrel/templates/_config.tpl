{{- /* carrel.yaml, the same for all components; each reads its part. Of what a running component takes over by itself, apart. */ -}}
{{- define "carrel.config" -}}
{{ include "carrel.configAtStart" . }}
providers: {{ toJson .Values.config.providers }}
routes: {{ toJson .Values.config.routes }}
router:
  keys: {{ toJson ((.Values.config.router).keys | default list) }}
{{- if (.Values.config.prices).models }}
prices:
  overlayFile: /etc/carrel/config/prices.json
{{- end }}
{{- end -}}

{{- define "carrel.configAtStart" -}}
{{- $name := include "carrel.fullname" . -}}
{{- $service := printf "%s.svc" .Release.Namespace -}}
{{- $config := .Values.config -}}
{{- $secrets := "/etc/carrel/secrets" -}}
store:
  url: {{ required "database.url must be set, as in postgres://carrel@db.example/carrel" .Values.database.url | quote }}
objects:
  url: {{ required "objects.url must be set, as in s3://BUCKET/PREFIX" .Values.objects.url | quote }}
  endpoint: {{ .Values.objects.endpoint | quote }}
  region: {{ .Values.objects.region | quote }}
  pathStyle: {{ .Values.objects.pathStyle }}
  {{- if .Values.objects.existingSecret }}
  credentialsFile: {{ $secrets }}/s3.credentials
  {{- end }}
keys:
  kekFile: {{ $secrets }}/kek
  signingKeyFile: {{ $secrets }}/signing.key
  verifyingKeysFile: {{ $secrets }}/signing.pub
  gatewayKeyFile: {{ $secrets }}/gateway.key
  gatewayVerifyingKeysFile: {{ $secrets }}/gateway.pub
  adminTokenFile: {{ $secrets }}/admin.token
gateway:
  fleet: Kubernetes
  publicUrl: {{ include "carrel.publicUrl" . | quote }}
  trustedProxies: {{ toJson $config.trustedProxies }}
  routerUrl: http://{{ $name }}-router.{{ $service }}:7071
  vaultUrl: http://{{ $name }}-vault.{{ $service }}:7072
  egressUrl: http://{{ $name }}-router.{{ $service }}:7074
kubernetes:
  namespace: {{ .Release.Namespace }}
  learnerNamespaces: {{ (include "carrel.learnerNamespaces" . | fromJson).names | toJson }}
  image: {{ include "carrel.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  imagePullSecrets: {{ toJson .Values.global.imagePullSecrets }}
  priorityClass: {{ include "carrel.learnerPriorityClass" . | quote }}
  podsPerNamespace: {{ .Values.learnerNamespaces.podsPerNamespace }}
  startingAtOnce: {{ .Values.learners.startingAtOnce }}
  refillsPerSecond: {{ .Values.learners.refillsPerSecond }}
  graceSeconds: {{ .Values.learners.terminationGracePeriodSeconds }}
  {{- $shut := list }}
  {{- range .Values.learners.mustNotReach }}
  {{- if ne . "gateway" }}
  {{- $shut = append $shut . }}
  {{- else if $.Values.networkPolicy.enabled }}
  {{- $shut = append $shut (printf "%s-gateway.%s:7070" $name $service) }}
  {{- end }}
  {{- end }}
  mustNotReach: {{ toJson $shut }}
  nodeSelector: {{ toJson .Values.learners.nodeSelector }}
  tolerations: {{ toJson .Values.learners.tolerations }}
  topologySpreadConstraints: {{ toJson .Values.learners.topologySpreadConstraints }}
fleet: {{ toJson $config.fleet }}
limits: {{ toJson $config.limits }}
health:
  drainSeconds: {{ $config.drainSeconds }}
telemetry: {{ toJson $config.telemetry }}
{{- end -}}
