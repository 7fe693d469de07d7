{{- /* What the components have in common. */ -}}

{{- /* Files of Secrets for one component, in one folder, as a projected volume: (dict "root" $ "component" … "keys" (list …)
"database" bool "objects" bool). Each component has those that it reads, and no other. */ -}}
{{- define "carrel.secretsVolume" -}}
{{- $values := .root.Values -}}
- name: secrets
  projected:
    # Of root and the group of the pod.
    defaultMode: 0440
    sources:
      {{- with .keys }}
      - secret:
          name: {{ $values.keys.existingSecret }}
          items:
            {{- range . }}
            - {key: {{ index $values.keys.secretKeys . | quote }}, path: {{ include "carrel.keyFile" . }}}
            {{- end }}
      {{- end }}
      {{- if and .database $values.database.existingSecret }}
      - secret:
          name: {{ $values.database.existingSecret }}
          items:
            - {key: {{ default $values.database.passwordKey (index $values.database.passwordKeys .component) | quote }}, path: database.password}
      {{- end }}
      {{- if and .objects $values.objects.existingSecret }}
      - secret:
          name: {{ $values.objects.existingSecret }}
          items:
            - {key: {{ $values.objects.credentialsKey | quote }}, path: s3.credentials}
      {{- end }}
{{- end -}}

{{- /* Whether there are any: as above. */ -}}
{{- define "carrel.hasSecrets" -}}
{{- if or .keys (and .database .root.Values.database.existingSecret) (and .objects .root.Values.objects.existingSecret) -}}
true
{{- end -}}
{{- end -}}

{{- /* The file of a key in that folder. */ -}}
{{- define "carrel.keyFile" -}}
{{- get (dict
  "signingKey" "signing.key" "signingPublicKeys" "signing.pub"
  "gatewayKey" "gateway.key" "gatewayPublicKeys" "gateway.pub"
  "kek" "kek" "adminToken" "admin.token") . -}}
{{- end -}}

{{- /* A pod's volumes: as above. */ -}}
{{- define "carrel.volumes" -}}
- name: data
  emptyDir: {sizeLimit: 64Mi}
{{- if include "carrel.hasSecrets" . }}
{{ include "carrel.secretsVolume" . }}
{{- end }}
{{- if .configured }}
- name: config
  configMap: {name: {{ include "carrel.fullname" .root }}}
{{- end }}
{{- with .root.Values.certificateAuthorities.existingConfigMap }}
- name: authorities
  configMap: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- define "carrel.volumeMounts" -}}
- {name: data, mountPath: /var/lib/carrel}
{{- if include "carrel.hasSecrets" . }}
- {name: secrets, mountPath: /etc/carrel/secrets, readOnly: true}
{{- end }}
{{- if .configured }}
- {name: config, mountPath: /etc/carrel/config, readOnly: true}
{{- end }}
{{- if .root.Values.certificateAuthorities.existingConfigMap }}
- {name: authorities, mountPath: /etc/carrel/authorities, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Variables that say which database and which authorities. */ -}}
{{- define "carrel.environment" -}}
- {name: CARREL_DATA_DIR, value: /var/lib/carrel}
{{- $values := .root.Values }}
{{- if .database }}
- name: CARREL_STORE_URL
  value: {{ default (required "database.url must be set, as in postgres://carrel@db.example/carrel" $values.database.url) (index $values.database.urls .component) | quote }}
{{- if $values.database.existingSecret }}
- {name: CARREL_STORE_PASSWORD_FILE, value: /etc/carrel/secrets/database.password}
{{- end }}
{{- end }}
{{- if $values.certificateAuthorities.existingConfigMap }}
- name: SSL_CERT_FILE
  value: /etc/carrel/authorities/{{ $values.certificateAuthorities.key }}
{{- end }}
{{- end -}}

{{- define "carrel.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* A component's Deployment: (dict "root" $ "component" … "keys" (list …) "database" bool "objects" bool "token" bool
"ports" (dict name number) "environment" (list …)). */ -}}
{{- define "carrel.deployment" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $values := index $root.Values $component -}}
{{- $data := merge (dict "configured" true) . -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "carrel.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "carrel.labels" (list $root $component) | nindent 4 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false $values) }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "carrel.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "carrel.labels" (list $root $component) | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # What only a start takes over.
        carrel.dev/config: {{ include "carrel.configAtStart" $root | sha256sum | trunc 16 | quote }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "carrel.serviceAccount" (list $root $component) }}
      automountServiceAccountToken: {{ .token }}
      # Its variables would be taken for configuration.
      enableServiceLinks: false
      {{- with include "carrel.pullSecrets" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- if $values.priorityClassName }}
      priorityClassName: {{ $values.priorityClassName }}
      {{- else if $root.Values.priorityClasses.enabled }}
      priorityClassName: {{ $root.Release.Namespace }}-{{ include "carrel.fullname" $root }}
      {{- end }}
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      securityContext:
        {{- toYaml $root.Values.podSecurityContext | nindent 8 }}
      containers:
        - name: {{ $component }}
          image: {{ include "carrel.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            - {{ $component }}
            - --config=/etc/carrel/config/carrel.yaml
            {{- with .listen }}
            - --listen={{ . }}
            {{- end }}
            - --health-listen=0.0.0.0:7079
          env:
            {{- include "carrel.environment" $data | nindent 12 }}
            {{- with .environment }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- range $name, $number := .ports }}
            - {name: {{ $name }}, containerPort: {{ $number }}}
            {{- end }}
            - {name: health, containerPort: 7079}
          startupProbe:
            httpGet: {path: /healthz, port: health}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /healthz, port: health}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: health}
            periodSeconds: 2
            timeoutSeconds: 2
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- toYaml $root.Values.securityContext | nindent 12 }}
          volumeMounts:
            {{- include "carrel.volumeMounts" $data | nindent 12 }}
            {{- with $values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        {{- include "carrel.volumes" $data | nindent 8 }}
        {{- with $values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- if $values.topologySpreadConstraints }}
        {{- toYaml $values.topologySpreadConstraints | nindent 8 }}
        {{- else }}
        # On nodes of their own as far as there are any.
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "carrel.selector" (list $root $component) | nindent 14 }}
        {{- end }}
{{- end -}}

{{- /* What belongs to a Deployment: (dict "root" $ "component" … "ports" (dict name number)). */ -}}
{{- define "carrel.around" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $values := index $root.Values $component -}}
{{- $name := printf "%s-%s" (include "carrel.fullname" $root) $component -}}
{{- if $values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "carrel.serviceAccount" (list $root $component) }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "carrel.labels" (list $root $component) | nindent 4 }}
  {{- with $values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- if .ports }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "carrel.labels" (list $root $component) | nindent 4 }}
  {{- with $values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $values.service.type }}
  selector:
    {{- include "carrel.selector" (list $root $component) | nindent 4 }}
  ports:
    {{- range $port, $number := .ports }}
    - {name: {{ $port }}, port: {{ $number }}, targetPort: {{ $port }}}
    {{- end }}
{{- end }}
{{- if $values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "carrel.labels" (list $root $component) | nindent 4 }}
spec:
  maxUnavailable: {{ $values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "carrel.selector" (list $root $component) | nindent 6 }}
{{- end }}
{{- if dig "autoscaling" "enabled" false $values }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "carrel.labels" (list $root $component) | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ $values.autoscaling.minReplicas }}
  maxReplicas: {{ $values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $values.autoscaling.targetCPUUtilizationPercentage }}}
{{- end }}
{{- end -}}
