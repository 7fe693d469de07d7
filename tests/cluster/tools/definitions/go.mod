// Definitions of resources that charts use and the API server does not have by itself, pinned: files of these modules.
module local/definitions

go 1.26

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.4.1
)
