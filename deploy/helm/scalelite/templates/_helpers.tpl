{{/* The release's name, which all objects begin with. */}}
{{- define "scalelite.name" -}}
{{- if contains "scalelite" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-scalelite" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What selects the pods of a part: a dict of "root" and "part". */}}
{{- define "scalelite.selector" -}}
app.kubernetes.io/name: scalelite
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* Labels of an object: a dict of "root" and "part". */}}
{{- define "scalelite.labels" -}}
{{ include "scalelite.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "scalelite.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* An ordinary user, and nothing that a pod does not need. */}}
{{- define "scalelite.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What each container has. */}}
{{- define "scalelite.container" -}}
image: {{ include "scalelite.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "scalelite.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "scalelite.name" . }}}
  - secretRef: {name: {{ .Values.existingSecret }}}
{{- end }}

{{/* Pods of one part are apart from each other, where there are nodes for it: a dict of "root" and "part". */}}
{{- define "scalelite.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "scalelite.selector" . | nindent 8 }}
{{- end }}

{{/* Labels and annotations of pods; settings that change start them anew. */}}
{{- define "scalelite.pod-metadata" -}}
labels:
  {{- include "scalelite.labels" . | nindent 2 }}
  {{- with .root.Values.podLabels }}{{ toYaml . | nindent 2 }}{{ end }}
annotations:
  checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
  {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}

{{- define "scalelite.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.recordings.enabled }}
- {name: recordings, mountPath: /var/bigbluebutton}
{{- end }}
{{- end }}

{{- define "scalelite.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if .Values.recordings.enabled }}
- name: recordings
  persistentVolumeClaim: {claimName: {{ .Values.recordings.existingClaim }}}
{{- end }}
{{- end }}
