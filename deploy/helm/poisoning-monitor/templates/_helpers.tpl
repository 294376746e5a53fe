{{- define "monitor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* StatefulSets add a number to it, and ConfigMaps a dashboard's name. */}}
{{- define "monitor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "monitor.selector" -}}
app.kubernetes.io/name: {{ include "monitor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gate
{{- end -}}

{{- define "monitor.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "monitor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "monitor.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "monitor.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "monitor.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "monitor.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "monitor.scheme" -}}
{{- if .Values.http.tls.existingSecret -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{- define "monitor.isSasl" -}}
{{- if hasPrefix "SASL_" .Values.kafka.protocol -}}true{{- end -}}
{{- end -}}

{{- define "monitor.isTls" -}}
{{- if hasSuffix "SSL" .Values.kafka.protocol -}}true{{- end -}}
{{- end -}}

{{- define "monitor.maxReplicas" -}}
{{- .Values.autoscaling.maxReplicas | default .Values.kafka.partitions -}}
{{- end -}}

{{/* A rule over several values has no place in values.schema.json. */}}
{{- define "monitor.check" -}}
{{- $v := .Values -}}
{{- if not $v.kafka.bootstrapServers -}}
{{- fail "kafka.bootstrapServers: say where the brokers are, host:port" -}}
{{- end -}}
{{- if not $v.http.tokens.existingSecret -}}
{{- fail "http.tokens.existingSecret: the interface is reached from other pods, so people have to log in. Make a token with `poisoning-monitor token create NAME --file tokens.json` and a secret of that file" -}}
{{- end -}}
{{- if and (not $v.http.tls.existingSecret) (not $v.http.insecure) -}}
{{- fail "http.tls.existingSecret: without TLS tokens travel in the clear. Name a secret with tls.crt and tls.key, or set http.insecure: true where a mesh encrypts" -}}
{{- end -}}
{{- if and $v.http.tls.existingSecret $v.http.insecure -}}
{{- fail "http.insecure: true is for a service without http.tls.existingSecret; give one of the two" -}}
{{- end -}}
{{- if include "monitor.isSasl" . -}}
{{- if and (has $v.kafka.sasl.mechanism (list "PLAIN" "SCRAM-SHA-256" "SCRAM-SHA-512")) (not (and $v.kafka.sasl.username $v.kafka.sasl.existingSecret)) -}}
{{- fail (printf "kafka.sasl: protocol %s with %s needs username and existingSecret" $v.kafka.protocol $v.kafka.sasl.mechanism) -}}
{{- end -}}
{{- end -}}
{{- if and (or $v.kafka.tls.caSecret $v.kafka.tls.clientSecret) (not (include "monitor.isTls" .)) -}}
{{- fail (printf "kafka.tls: protocol %s does not use TLS; set kafka.protocol to SSL or SASL_SSL" $v.kafka.protocol) -}}
{{- end -}}
{{- $most := int (include "monitor.maxReplicas" .) -}}
{{- if eq $v.autoscaling.type "none" -}}{{- $most = int $v.replicas -}}{{- end -}}
{{- if and (gt $most (int $v.kafka.partitions)) (not $v.standby) -}}
{{- fail (printf "%d replicas for %d partitions (kafka.partitions): the others would never be ready and stop every rolling update; give fewer, or set standby: true" $most (int $v.kafka.partitions)) -}}
{{- end -}}
{{- if and (ne $v.autoscaling.type "none") (gt (int $v.autoscaling.minReplicas) $most) -}}
{{- fail (printf "autoscaling.minReplicas: %d is more than the most, %d" (int $v.autoscaling.minReplicas) $most) -}}
{{- end -}}
{{- if and (eq $v.autoscaling.type "keda") (include "monitor.isSasl" .) (not $v.kafka.sasl.existingSecret) (not $v.autoscaling.keda.authenticationRef) -}}
{{- fail (printf "autoscaling.keda.authenticationRef: with %s name a TriggerAuthentication of your own" $v.kafka.sasl.mechanism) -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.http.openMetrics) (not $v.metrics.serviceMonitor.tokenSecret) -}}
{{- fail "metrics.serviceMonitor.tokenSecret: with http.openMetrics: false Prometheus needs a token of role viewer" -}}
{{- end -}}
{{- $http := dig "http" dict $v.config -}}
{{- if hasKey $http "tls_client_ca_file" -}}
{{- fail "config.http.tls_client_ca_file: the kubelet has no client certificate for its probes; ask for certificates in front of the service" -}}
{{- end -}}
{{- if dig "http" "enabled" true $v.config | not -}}
{{- fail "config.http.enabled: the probes need the HTTP interface" -}}
{{- end -}}
{{- end -}}

{{/* What the chart decides of the settings; secrets and the pod's name come by the environment. */}}
{{- define "monitor.derived" -}}
{{- $v := .Values -}}
transport: kafka
kafka:
  client: {{ $v.kafka.client }}
  bootstrap_servers: {{ $v.kafka.bootstrapServers | quote }}
  group_id: {{ $v.kafka.groupId | quote }}
  transactional_id_prefix: {{ $v.kafka.transactionalIdPrefix | quote }}
  create_topics: {{ $v.kafka.createTopics }}
  partitions: {{ int $v.kafka.partitions }}
  replication_factor: {{ int $v.kafka.replicationFactor }}
  session_timeout_seconds: {{ float64 $v.kafka.sessionTimeoutSeconds }}
  {{- with $v.kafka.topics }}
  topics:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  security:
    protocol: {{ $v.kafka.protocol }}
    {{- if include "monitor.isSasl" . }}
    mechanism: {{ $v.kafka.sasl.mechanism }}
    {{- if $v.kafka.sasl.existingSecret }}
    password_file: /etc/poisoning-monitor/kafka-password/{{ $v.kafka.sasl.passwordKey }}
    {{- end }}
    {{- end }}
    {{- if $v.kafka.tls.caSecret }}
    ca_file: /etc/poisoning-monitor/kafka-ca/{{ $v.kafka.tls.caKey }}
    {{- end }}
    {{- if $v.kafka.tls.clientSecret }}
    certificate_file: /etc/poisoning-monitor/kafka-client/{{ $v.kafka.tls.clientCertKey }}
    key_file: /etc/poisoning-monitor/kafka-client/{{ $v.kafka.tls.clientKeyKey }}
    {{- end }}
http:
  host: 0.0.0.0
  port: {{ int $v.http.port }}
  tokens_file: /etc/poisoning-monitor/tokens/{{ $v.http.tokens.key }}
  open_metrics: {{ $v.http.openMetrics }}
  console: {{ $v.http.console }}
  insecure: {{ $v.http.insecure }}
  {{- if $v.http.tls.existingSecret }}
  tls_cert_file: /etc/poisoning-monitor/tls/{{ $v.http.tls.certKey }}
  tls_key_file: /etc/poisoning-monitor/tls/{{ $v.http.tls.keyKey }}
  {{- end }}
quarantine:
  dir: /data/monitor-data
blast:
  dir: /data/monitor-data
{{- end -}}

{{/* The settings file: those above and the values' own, which may not contradict. */}}
{{- define "monitor.config" -}}
{{- $derived := include "monitor.derived" . | fromYaml -}}
{{- include "monitor.disjoint" (dict "path" "config" "ours" $derived "theirs" .Values.config) -}}
{{- include "monitor.noSecrets" (dict "path" "config" "value" .Values.config) -}}
{{- mergeOverwrite (deepCopy .Values.config) $derived | toYaml -}}
{{- end -}}

{{- define "monitor.disjoint" -}}
{{- $path := .path -}}{{- $theirs := .theirs -}}
{{- range $key, $ours := .ours -}}
{{- if hasKey $theirs $key -}}
{{- $other := get $theirs $key -}}
{{- if and (kindIs "map" $ours) (kindIs "map" $other) -}}
{{- include "monitor.disjoint" (dict "path" (printf "%s.%s" $path $key) "ours" $ours "theirs" $other) -}}
{{- else -}}
{{- fail (printf "%s.%s: the chart sets this itself; see the values kafka, http and quarantine" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "monitor.noSecrets" -}}
{{- $path := .path -}}
{{- range $key, $value := .value -}}
{{- if kindIs "map" $value -}}
{{- include "monitor.noSecrets" (dict "path" (printf "%s.%s" $path $key) "value" $value) -}}
{{- else if or (regexMatch "(password|secret|hash_seed)$" $key) (and (has $path (list "config.quarantine" "config.blast")) (eq $key "url")) -}}
{{- fail (printf "%s.%s: a secret does not go into a ConfigMap; give it by extraEnv from a secret, or by the value meant for it" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "monitor.env" -}}
{{- $v := .Values -}}
- name: MONITOR_KAFKA__INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- if $v.kafka.staticMembership }}
- name: MONITOR_KAFKA__GROUP_INSTANCE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
{{- if and (include "monitor.isSasl" .) $v.kafka.sasl.username }}
- name: MONITOR_KAFKA__SECURITY__USERNAME
  value: {{ $v.kafka.sasl.username | quote }}
{{- end }}
{{- with $v.hashSeed.existingSecret }}
- name: MONITOR_GATE__HASH_SEED
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $v.hashSeed.key }}
{{- end }}
{{- with $v.quarantine.postgres.existingSecret }}
- name: MONITOR_QUARANTINE__URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $v.quarantine.postgres.key }}
- name: MONITOR_BLAST__URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $v.quarantine.postgres.key }}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, secret and place of what is mounted, one a line. */}}
{{- define "monitor.secretMounts" -}}
tokens: {{ .Values.http.tokens.existingSecret }}
{{- with .Values.http.tls.existingSecret }}
tls: {{ . }}
{{- end }}
{{- if include "monitor.isSasl" . }}
{{- with .Values.kafka.sasl.existingSecret }}
kafka-password: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.kafka.tls.caSecret }}
kafka-ca: {{ . }}
{{- end }}
{{- with .Values.kafka.tls.clientSecret }}
kafka-client: {{ . }}
{{- end }}
{{- end -}}

{{- define "monitor.secretItems" -}}
tokens: [{{ .Values.http.tokens.key }}]
tls: [{{ .Values.http.tls.certKey }}, {{ .Values.http.tls.keyKey }}]
kafka-password: [{{ .Values.kafka.sasl.passwordKey }}]
kafka-ca: [{{ .Values.kafka.tls.caKey }}]
kafka-client: [{{ .Values.kafka.tls.clientCertKey }}, {{ .Values.kafka.tls.clientKeyKey }}]
{{- end -}}
