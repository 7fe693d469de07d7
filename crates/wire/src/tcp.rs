//! What every TCP connection is told.

use std::io;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use tokio::net::TcpStream;

/// When nothing came for so long, the other end's machine is asked whether it is there.
const ASKS_AFTER: Duration = Duration::from_secs(15);
/// Until it is asked again.
const ASKS_EVERY: Duration = Duration::from_secs(5);
/// When it has not answered so often, the connection has ended.
const ASKS: u32 = 3;

/// Sends at once what is to be sent, and notices that the other end is gone though nobody said so.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_socket_keepalive(stream, true)?;
    set_tcp_keepidle(stream, ASKS_AFTER)?;
    set_tcp_keepintvl(stream, ASKS_EVERY)?;
    Ok(set_tcp_keepcnt(stream, ASKS)?)
}
