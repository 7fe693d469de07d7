//! Both ways of a tunnel, until they end or nothing moves.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How many bytes went each way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From here to there.
    pub sent: u64,
    /// From there to here.
    pub received: u64,
}

/// Copies both ways until both have ended or one is broken, or nothing has moved for so long.
pub async fn tunnel<H, T>(here: H, there: T, silent_within: Duration) -> Moved
where
    H: AsyncRead + AsyncWrite,
    T: AsyncRead + AsyncWrite,
{
    let (mut moved, moves) = (Moved::default(), Notify::new());
    let ((from_here, to_here), (from_there, to_there)) = (split(here), split(there));
    let both = async {
        tokio::try_join!(
            copy_one_way(from_here, to_there, &mut moved.sent, &moves),
            copy_one_way(from_there, to_here, &mut moved.received, &moves),
        )
    };
    let silence = async { while timeout(silent_within, moves.notified()).await.is_ok() {} };
    tokio::select! {
        // What is broken is broken for both.
        _ = both => {}
        () = silence => tracing::info!("a way out was closed: nothing moved on it"),
    }
    moved
}

async fn copy_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &mut u64,
    moves: &Notify,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        *moved += length as u64;
        moves.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep};

    use super::*;

    const SILENT_WITHIN: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_on_which_nothing_moves_is_closed_and_a_slow_one_is_not() {
        let ((mut agent, here), (mut host, there)) = (duplex(64), duplex(64));
        let both_ends = async {
            for _ in 0..3 {
                sleep(SILENT_WITHIN / 10 * 9).await;
                host.write_all(b"slow").await.unwrap();
                let mut came = [0; 4];
                agent.read_exact(&mut came).await.unwrap();
            }
            let last = Instant::now();
            // Both are held, and silent.
            assert_eq!(agent.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(host.read(&mut [0; 1]).await.unwrap(), 0);
            last.elapsed()
        };
        let all = async { tokio::join!(tunnel(here, there, SILENT_WITHIN), both_ends) };
        let all = timeout(SILENT_WITHIN * 10, all).await;
        let (moved, silent) = all.expect("it is closed");
        let expected = Moved {
            sent: 0,
            received: 12,
        };
        assert_eq!(moved, expected);
        assert!(
            silent >= SILENT_WITHIN && silent < SILENT_WITHIN * 2,
            "{silent:?}"
        );
    }

    #[tokio::test]
    async fn a_way_that_has_ended_leaves_the_other_open() {
        let ((mut agent, here), (mut host, there)) = (duplex(64), duplex(64));
        let both_ends = async {
            agent.write_all(b"asked").await.unwrap();
            agent.shutdown().await.unwrap();
            let mut asked = String::new();
            host.read_to_string(&mut asked).await.unwrap();
            host.write_all(b"answered").await.unwrap();
            drop(host);
            let mut answered = String::new();
            agent.read_to_string(&mut answered).await.unwrap();
            (asked, answered)
        };
        let (moved, said) = tokio::join!(tunnel(here, there, SILENT_WITHIN), both_ends);
        assert_eq!(said, ("asked".to_owned(), "answered".to_owned()));
        let expected = Moved {
            sent: 5,
            received: 8,
        };
        assert_eq!(moved, expected);
    }
}
