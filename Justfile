# Short names for the everyday commands; each also works as it stands here.

# What there is.
default:
    @just --list

# Run everything on this machine.
up *arguments:
    cargo run --release -- up {{arguments}}

# All tests; installs what they need.
test:
    cargo xtask test

# Alerts, checked and played by promtool.
alerts:
    cargo xtask test alerts

# The chart, judged by checkov.
checkov:
    cargo xtask test checkov

# Network policies, where Cilium enforces them.
cilium:
    cargo xtask test cilium

# Formatting, clippy with warnings as errors, arrows and sizes.
lint:
    cargo xtask lint

# The figures of docs/BENCHMARKS.md.
bench *names:
    cargo xtask bench {{names}}

# Schedules of faults: --minutes N, --seed S.
chaos *arguments:
    cargo xtask chaos {{arguments}}

# The container image, as an archive: --out FILE, --tag REFERENCE.
image *arguments:
    cargo xtask image {{arguments}}

# What is made from the chart and the definitions of resources.
manifests *arguments:
    cargo xtask manifests {{arguments}}

# Format everything.
fmt:
    cargo fmt --all
