{{- /* The labels that identify the pods of one component. Arguments: the component. */ -}}
{{- define "export-worker.selector" -}}
app.kubernetes.io/name: export-worker
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{- /* The component of a trigger. Arguments: its name in the configuration. */ -}}
{{- define "export-worker.trigger" -}}
trigger-{{ . | lower | replace "_" "-" }}
{{- end -}}

{{- /* Name, namespace and labels of an object. Arguments: root, name, component (optional). */ -}}
{{- define "export-worker.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- with .component }}
  {{- include "export-worker.selector" . | nindent 2 }}
  {{- end }}
  app.kubernetes.io/part-of: export-worker
  app.kubernetes.io/instance: {{ .root.Release.Name }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- /* The address of the image. A digest takes precedence over a tag. */ -}}
{{- define "export-worker.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* Variables that are read from keys of the Secret. Arguments: secret, variables. */ -}}
{{- define "export-worker.variables" -}}
{{- range .variables }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ $.secret }}
      key: {{ .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}
{{- end -}}

{{- /* The settings of the keys of the console, as variables. Arguments: the root. */ -}}
{{- define "export-worker.console" -}}
{{- range .Values.console.keys }}
{{- $prefix := printf "EXPORT_GATEWAY__KEYS__%s" (upper .name) }}
- name: {{ $prefix }}__KEY
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.secret.name }}
      key: {{ .key }}
- name: {{ $prefix }}__ROLE
  value: {{ .role }}
{{- with .connections }}
- name: {{ $prefix }}__CONNECTIONS
  value: {{ toJson . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A probe of a health page. Arguments: path, port, and the times. */ -}}
{{- define "export-worker.probe" -}}
httpGet:
  path: {{ .path }}
  port: {{ .port }}
{{- range $name, $value := .times }}
{{ $name }}: {{ $value }}
{{- end }}
{{- end -}}

{{- /*
One Deployment. Arguments: root, component, args, settings (replicas, resources), autoscaled, port (name and number),
variables (further ones), env (further ones, as text), delay_s (before SIGTERM).
*/ -}}
{{- define "export-worker.deployment" -}}
{{- $values := .root.Values -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "export-worker.metadata" (dict "root" .root "name" .component "component" .component) | nindent 2 }}
spec:
  {{- if not .autoscaled }}
  replicas: {{ .settings.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels:
      {{- include "export-worker.selector" .component | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "export-worker.selector" .component | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # A changed configuration restarts the pods.
        checksum/config: {{ $values.config | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: export-worker
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      {{- range $name := list "imagePullSecrets" "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
      {{- with get $values $name }}
      {{ $name }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: export-worker
          matchLabelKeys: [app.kubernetes.io/component, pod-template-hash]
        {{- end }}
      containers:
        - name: export-worker
          image: {{ include "export-worker.image" .root }}
          {{- with $values.image.pullPolicy }}
          imagePullPolicy: {{ . }}
          {{- end }}
          args: {{ toJson .args }}
          {{- with .delay_s }}
          # Clients learn that the pod terminates after the pod itself does. Until then, the pod answers requests.
          lifecycle:
            preStop:
              exec:
                command: [python, -c, "import time; time.sleep({{ . }})"]
          {{- end }}
          env:
            - name: EXPORT_CONFIG
              value: /etc/export-worker/export-worker.toml
            {{- $all := concat $values.secret.variables (.variables | default list) }}
            {{- $read := dict "secret" $values.secret.name "variables" $all }}
            {{- include "export-worker.variables" $read | trim | nindent 12 }}
            {{- with .env | default "" | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $values.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: {{ .port.name }}
              containerPort: {{ .port.number }}
          # /healthz checks that the event loop runs. /readyz also checks that Redis accepts writes.
          startupProbe:
            {{- $often := dict "periodSeconds" 2 "failureThreshold" 30 }}
            {{- include "export-worker.probe" (dict "path" "/healthz" "port" .port.name "times" $often) | nindent 12 }}
          livenessProbe:
            {{- $seldom := dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 3 }}
            {{- include "export-worker.probe" (dict "path" "/healthz" "port" .port.name "times" $seldom) | nindent 12 }}
          readinessProbe:
            {{- $soon := dict "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 2 }}
            {{- include "export-worker.probe" (dict "path" "/readyz" "port" .port.name "times" $soon) | nindent 12 }}
          resources:
            {{- toYaml .settings.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: config
              mountPath: /etc/export-worker
              readOnly: true
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: config
          configMap:
            name: export-worker
        # export-worker writes no files. Some libraries require a writable /tmp.
        - name: tmp
          emptyDir:
            sizeLimit: 16Mi
{{- end -}}
