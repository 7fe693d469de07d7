//! Sockets that are made here, in the agent's network namespace, and used by the sidecar: a socket stays in the
//! namespace in which it was made.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::protocol::Report;

/// Where agents' ports are looked for on a shared loopback: below the ports that the kernel gives to callers.
const SHARED_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Opens the listeners of both proxies and settles the agent's port.
pub(super) fn prepare(agent_port: u16, alone: bool) -> io::Result<(Report, Vec<OwnedFd>)> {
    // The kernel chooses among many: on a loopback of our own the agent's port is kept out of its way first.
    let kept = alone.then(|| listen(agent_port)).transpose();
    let taken = |error| {
        io::Error::other(format!(
            "the agent's port {agent_port} (spec.agent.port) is not free in its pod: {error}"
        ))
    };
    let kept = kept.map_err(taken)?;
    let (model, egress) = (listen(0)?, listen(0)?);
    drop(kept);
    let agent_port = if alone { agent_port } else { free_port()? };
    let report = Report::Prepared {
        model_port: model.local_addr()?.port(),
        egress_port: egress.local_addr()?.port(),
        agent_port,
        alone,
    };
    Ok((report, vec![model.into(), egress.into()]))
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// A port on which nobody listens. Neighbours begin their search elsewhere, by process id.
fn free_port() -> io::Result<u16> {
    let span = u32::from(SHARED_PORTS.end - SHARED_PORTS.start);
    let first = std::process::id().wrapping_mul(7) % span;
    (0..span)
        .filter_map(|step| u16::try_from((first + step) % span).ok())
        .map(|offset| SHARED_PORTS.start + offset)
        .find(|port| listen(*port).is_ok())
        .ok_or_else(|| io::Error::other("no port is free on loopback"))
}

/// Begins to connect to a port on loopback.
pub(super) fn dial(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
