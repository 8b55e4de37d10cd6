{{- define "lambent.labels" -}}
app.kubernetes.io/name: lambent
app.kubernetes.io/part-of: lambent
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "lambent.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "lambent.namespaced" -}}
{{- if eq .Values.scope "namespaced" }}{{ required "watchedNamespace is needed with scope: namespaced" .Values.watchedNamespace }}{{ end }}
{{- end }}

{{/* Kind of the roles that reach Functions: in all namespaces or in one. */}}
{{- define "lambent.roleKind" -}}
{{- if include "lambent.namespaced" . }}Role{{ else }}ClusterRole{{ end }}
{{- end }}

{{/* Where the node agents are. */}}
{{- define "lambent.nodeNamespace" -}}
{{ .Values.node.namespace | default (printf "%s-node" .Release.Namespace) }}
{{- end }}

{{/* A Deployment. Takes root, role, settings, grace, env and ports. */}}
{{- define "lambent.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: lambent-{{ .role }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "lambent.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
spec:
  replicas: {{ .settings.replicas }}
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      app.kubernetes.io/name: lambent
      app.kubernetes.io/component: {{ .role }}
  template:
    metadata:
      labels:
        {{- include "lambent.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .role }}
      {{- with .settings.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: lambent-{{ .role }}
      enableServiceLinks: false
      {{- if $root.Values.priorityClass.create }}
      priorityClassName: {{ $root.Release.Namespace }}-platform
      {{- end }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: {{ .grace }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      {{- with .settings.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .settings.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .settings.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {app.kubernetes.io/name: lambent, app.kubernetes.io/component: {{ .role }}}
          matchLabelKeys: [pod-template-hash] # an update spreads by itself, not around the old pods
      containers:
        - name: {{ .role }}
          image: {{ include "lambent.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ .role }}]
          env:
            - name: LAMBENT_SYSTEM_NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
            - name: LAMBENT_POD
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            {{- with include "lambent.namespaced" $root }}
            - {name: LAMBENT_NAMESPACE, value: {{ . | quote }}}
            {{- end }}
            - {name: LAMBENT_LOG_LEVEL, value: {{ $root.Values.logLevel | quote }}}
            {{- range $name, $value := .env }}
            {{- if $value }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
            {{- end }}
          ports:
            - {name: admin, containerPort: 9090}
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}}
            {{- end }}
          livenessProbe:
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 10
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            periodSeconds: 2
          resources: {{- toYaml .settings.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: gateway-token, mountPath: /var/run/secrets/lambent, readOnly: true}
      volumes:
        - name: gateway-token
          projected:
            sources:
              - serviceAccountToken: {path: token, audience: lambent-gateway, expirationSeconds: 3600}
{{- end }}

{{/* A role in the scope of Functions, bound to its account. Takes root, role and rules. */}}
{{- define "lambent.role" -}}
{{- $kind := include "lambent.roleKind" .root -}}
{{- $namespace := include "lambent.namespaced" .root -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ .root.Release.Namespace }}-{{ .role }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "lambent.labels" .root | nindent 4 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ .root.Release.Namespace }}-{{ .role }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "lambent.labels" .root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ $kind }}, name: {{ .root.Release.Namespace }}-{{ .role }}}
subjects:
  - {kind: ServiceAccount, name: lambent-{{ .role }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}

{{/* What a leader needs in its own namespace: its Lease, and to find the gateways. */}}
{{- define "lambent.leaderRole" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: lambent-{{ .role }}-leader
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "lambent.labels" .root | nindent 4 }}
rules:
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: [lambent-{{ .role }}]
    verbs: [get, update]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  - apiGroups: [""]
    resources: [pods]
    verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: lambent-{{ .role }}-leader
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "lambent.labels" .root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lambent-{{ .role }}-leader}
subjects:
  - {kind: ServiceAccount, name: lambent-{{ .role }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
