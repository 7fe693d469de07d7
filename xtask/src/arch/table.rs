//! Which crate may use which: the table of the design, and the crates from outside that the pure ones may use.

/// What a crate may use.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Of ours, in the product.
    pub(super) uses: &'static [&'static str],
    /// Of ours, in its tests besides.
    pub(super) tests_use: &'static [&'static str],
    /// From outside, if not everything.
    pub(super) only_from_outside: Option<&'static [&'static str]>,
}

/// What any crate's tests may use besides: stand-ins, and the store that needs no server.
pub(super) const ALL_TESTS_USE: &[&str] =
    &["carrel-testkit", "carrel-store-sqlite", "carrel-store"];

const fn row(name: &'static str, uses: &'static [&'static str]) -> Row {
    Row {
        name,
        uses,
        tests_use: &[],
        only_from_outside: None,
    }
}

const ALL: &[&str] = &[
    "carrel-agent",
    "carrel-controller",
    "carrel-core",
    "carrel-crd",
    "carrel-fleet-local",
    "carrel-gateway",
    "carrel-llm",
    "carrel-protocol",
    "carrel-router",
    "carrel-sidecar",
    "carrel-store",
    "carrel-store-postgres",
    "carrel-store-sqlite",
    "carrel-telemetry",
    "carrel-vault",
    "carrel-wire",
];

/// The table.
pub(super) const TABLE: &[Row] = &[
    Row {
        only_from_outside: Some(&["jiff", "serde", "serde_json", "strum", "thiserror", "uuid"]),
        ..row("carrel-core", &[])
    },
    Row {
        only_from_outside: Some(&[
            "base64",
            "flate2",
            "jiff",
            "memchr",
            "serde",
            "serde_json",
            "strum",
            "thiserror",
        ]),
        ..row("carrel-llm", &["carrel-core"])
    },
    row("carrel-protocol", &["carrel-core"]),
    row("carrel-crd", &["carrel-core"]),
    row("carrel-telemetry", &[]),
    row("carrel-wire", &["carrel-protocol"]),
    row("carrel-store", &["carrel-core"]),
    row("carrel-store-sqlite", &["carrel-core", "carrel-store"]),
    row("carrel-store-postgres", &["carrel-core", "carrel-store"]),
    Row {
        // The other end of its protocol: that the two agree is what its tests are about. Both databases: what a wrong bit in
        // either leads to.
        tests_use: &["carrel-sidecar", "carrel-store-postgres"],
        ..row(
            "carrel-vault",
            &[
                "carrel-core",
                "carrel-protocol",
                "carrel-telemetry",
                "carrel-store",
            ],
        )
    },
    row("carrel-agent", &["carrel-core", "carrel-protocol"]),
    row(
        "carrel-gateway",
        &[
            "carrel-core",
            "carrel-protocol",
            "carrel-telemetry",
            "carrel-store",
            "carrel-wire",
            "carrel-crd",
        ],
    ),
    row(
        "carrel-controller",
        &[
            "carrel-core",
            "carrel-crd",
            "carrel-protocol",
            "carrel-telemetry",
            "carrel-wire",
        ],
    ),
    row(
        "carrel-router",
        &[
            "carrel-core",
            "carrel-protocol",
            "carrel-telemetry",
            "carrel-store",
            "carrel-llm",
            "carrel-wire",
        ],
    ),
    row(
        "carrel-sidecar",
        &[
            "carrel-core",
            "carrel-protocol",
            "carrel-telemetry",
            "carrel-wire",
        ],
    ),
    row(
        "carrel-fleet-local",
        &[
            "carrel-core",
            "carrel-protocol",
            "carrel-telemetry",
            "carrel-store",
            "carrel-wire",
        ],
    ),
    row("carrel-testkit", &["carrel-core", "carrel-protocol"]),
    row("carrel", ALL),
    Row {
        tests_use: ALL,
        ..row(
            "carrel-tests",
            &[
                "carrel-cluster-tools",
                "carrel-core",
                "carrel-protocol",
                "carrel-testkit",
            ],
        )
    },
    row("carrel-cluster-tools", &[]),
    row("xtask", &["carrel-cluster-tools"]),
];
