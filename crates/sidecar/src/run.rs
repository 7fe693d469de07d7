//! Starts a sidecar's parts and ends them in order.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use carrel_protocol::sidecar::Phase;
use rustix::process::{
    DumpableBehavior, Pid, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
};
use tokio::signal::unix::{Signal as Listening, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::farewell;
use crate::life::live;
use crate::link::{Link, ShimListener};
use crate::options::SidecarOptions;
use crate::pod::Pod;
use crate::self_test;
use crate::serve::{Listener, serve};
use crate::upstream::chain;

/// How long the last answers may take to reach whoever asked.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Runs a sidecar until its pod has ended.
pub fn sidecar_main(options: SidecarOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_millis(100))
        .thread_stack_size(512 * 1024)
        .build();
    let farewell = options.farewell.clone();
    let ended = runtime.and_then(|runtime| {
        bind_to_parent(options.parent)?;
        let ended = runtime.block_on(run(options));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(exit) => {
            tracing::info!(%exit, "the sidecar ends");
            exit.into()
        }
        Err(error) => {
            let error = chain(&error);
            tracing::error!(error, "the sidecar could not start");
            farewell::leave(farewell.as_deref(), &farewell::unborn(&error));
            Exit::Internal.into()
        }
    }
}

/// Ends with the parent; leaves no core file and no door for a tracer of the same user: tokens and keys are in memory.
fn bind_to_parent(parent: Option<u32>) -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let Some(parent) = parent else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    // It may have ended before we asked.
    if getppid() == parent {
        Ok(())
    } else {
        Err(io::Error::other("the parent is gone"))
    }
}

async fn run(options: SidecarOptions) -> io::Result<Exit> {
    // Heard before anybody can know that we are here.
    let signals = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shim = ShimListener::bind(&options.shim_socket)?;
    let listener = Listener::bind(&options.listen).await?;
    let fleet = options.verifier()?;
    let (pod, turns) = Pod::blank(options, fleet);
    let (linked, link) = watch::channel(None);
    let server = pod.tasks.spawn(serve(listener, Arc::clone(&pod)));
    let accepting = Arc::clone(&pod);
    pod.tasks.spawn(async move {
        let ended = accepting.end.clone();
        let accept = accept_shim(&accepting, shim, &linked);
        if let Some(Err(error)) = ended.run_until_cancelled(accept).await {
            tracing::error!(%error, "the shim cannot connect");
        }
        ended.cancelled().await;
    });
    let abort = watch_signals(&pod, signals);
    let exit = tokio::select! {
        exit = live(&pod, turns, link) => exit,
        exit = stay_kept_in(&pod) => exit,
        () = abort.cancelled() => Exit::Interrupted,
    };
    pod.over(exit);
    pod.abandon_turn("the sidecar had to end");
    farewell::leave(pod.options.farewell.as_deref(), &farewell::of(&pod, exit));
    pod.end.cancel();
    let _ = tokio::time::timeout(LAST_ANSWERS, server).await;
    Ok(exit)
}

/// Lets the pod be assigned when the self-test has passed; returns only when it has failed.
async fn stay_kept_in(pod: &Pod) -> Exit {
    let tell = |why| pod.enter(Phase::Blank, why);
    match self_test::pass(&pod.options, tell).await {
        Ok(()) => {
            if !pod.hello().detail.is_empty() {
                pod.enter(Phase::Blank, "");
            }
            pod.set_kept_in();
            std::future::pending().await
        }
        Err(why) => {
            tracing::error!(why, "the pod takes nobody in");
            pod.fail(why);
            Exit::NotIsolated
        }
    }
}

async fn accept_shim(
    pod: &Pod,
    shim: ShimListener,
    linked: &watch::Sender<Option<Link>>,
) -> io::Result<()> {
    let connection = shim.accept(&pod.options.shim_socket).await?;
    let (link, work) = Link::over(connection);
    pod.tasks.spawn(work);
    pod.note(|hello| hello.agent_connected = true);
    linked.send_replace(Some(link));
    Ok(())
}

/// The first SIGTERM or SIGINT asks for sleep; when the grace is over, the returned token is cancelled.
fn watch_signals(
    pod: &Arc<Pod>,
    (mut terminate, mut interrupt): (Listening, Listening),
) -> CancellationToken {
    let abort = CancellationToken::new();
    let (watcher, expired) = (Arc::clone(pod), abort.clone());
    pod.tasks.spawn(async move {
        let wait = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            watcher.set_told_to_end();
            watcher.drain();
            let grace = Duration::from_secs(watcher.options.grace_seconds.into());
            tokio::time::sleep(grace).await;
            expired.cancel();
        };
        watcher.end.run_until_cancelled(wait).await;
    });
    abort
}
