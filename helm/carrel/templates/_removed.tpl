{{- /* Values that were, and what stands in their place: a line each, (list "old.path" "what to say instead"). A release that
still says one is refused with that. The schema must know the old path for so long. */ -}}
{{- define "carrel.removed" -}}
{{- $removed := list -}}
{{- range $removed -}}
{{- $value := $.Values -}}
{{- range splitList "." (index . 0) -}}
{{- $value = ternary (get (default dict $value) .) nil (kindIs "map" $value) -}}
{{- end -}}
{{- if $value -}}
{{- fail (printf "%s was removed: %s" (index . 0) (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
