{{- /* Refuses values that files/removed.yaml names. */ -}}
{{- define "carrel.removed" -}}
{{- range $path, $instead := .Files.Get "files/removed.yaml" | fromYaml -}}
{{- $value := $.Values -}}
{{- range splitList "." $path -}}
{{- if kindIs "map" $value -}}
{{- $value = get $value . -}}
{{- else -}}
{{- $value = "" -}}
{{- end -}}
{{- end -}}
{{- if $value -}}
{{- fail (printf "%s was removed: %s" $path $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
