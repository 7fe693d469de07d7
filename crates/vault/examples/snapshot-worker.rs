//! The hidden subcommand `carrel snapshot-worker` by itself, for tests.

fn main() -> std::process::ExitCode {
    carrel_sidecar::snapshot::worker_main()
}
