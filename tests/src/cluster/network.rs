//! The networks of a cluster with real nodes: a bridge of this machine, and addresses that nobody here uses.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use rand::seq::SliceRandom as _;

use crate::wait::output;

/// The second bytes of private networks (10.N.0.0/16) from which a cluster draws its own.
const NETWORKS: std::ops::Range<u8> = 160..224;
/// The third byte of the first node's pods.
const PODS: u8 = 16;

/// One cluster's part of 10.0.0.0/8, held by a bridge of that number.
#[derive(Debug, Clone)]
pub(super) struct Network {
    number: u8,
}

impl Network {
    /// How many nodes have room in it.
    pub(super) const NODES: std::ops::Range<u8> = 0..16;

    /// Takes one that is free. Whoever makes the bridge has it.
    pub(super) fn claim() -> anyhow::Result<Self> {
        let mut numbers: Vec<u8> = NETWORKS.collect();
        numbers.shuffle(&mut rand::rng());
        for number in numbers {
            let network = Self { number };
            let taken = ip(&format!("route show table all root 10.{number}.0.0/16"))?;
            let bridge = network.bridge();
            if taken.is_empty() && ip(&format!("link add {bridge} type bridge")).is_ok() {
                ip(&format!("address add {}/24 dev {bridge}", network.host()))?;
                ip(&format!("link set {bridge} up"))?;
                return Ok(network);
            }
        }
        bail!("no network of 10.{NETWORKS:?} is free, or no bridge can be made");
    }

    /// The bridge's name.
    pub(super) fn bridge(&self) -> String {
        format!("carrel{}", self.number)
    }

    /// This machine's address.
    pub(super) fn host(&self) -> String {
        format!("10.{}.0.1", self.number)
    }

    /// A node's address.
    pub(super) fn node(&self, index: u8) -> String {
        format!("10.{}.0.{}", self.number, 10 + index)
    }

    /// The network of services.
    pub(super) fn services(&self) -> String {
        format!("10.{}.1.0/24", self.number)
    }

    /// The network of all pods.
    pub(super) fn pods(&self) -> String {
        format!("10.{}.{PODS}.0/20", self.number)
    }

    /// The network of a node's pods.
    pub(super) fn pods_of(&self, index: u8) -> String {
        format!("10.{}.{}.0/24", self.number, PODS + index)
    }
}

/// Runs `ip` with these words: what it says.
pub(super) fn ip(words: &str) -> anyhow::Result<String> {
    let mut command = Command::new("ip");
    let output = output(command.args(words.split_whitespace())).context("running ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {words}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
