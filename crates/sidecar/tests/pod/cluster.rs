//! A pod as a cluster makes it: sidecar and shim share a network and a folder and nothing else, as a user that has no name
//! and may do nothing, beside a root that cannot be written.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use carrel_core::PodUid;
use carrel_core::lifecycle::Ending;
use carrel_sidecar::Exit;
use reqwest::Method;
use tokio::process::Command;

use crate::on_its_own::{farewell, tell};
use crate::pod::{PROGRAM, Pod, Start, skip, talkative, wait};

const USER: u32 = 10_001;
/// Programs of that user: no capability, and none to be had.
const AS_USER: &str = "setpriv --reuid 10001 --regid 10001 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs --";
/// In namespaces of its own: what is written goes to the folder, the workspace or a folder for what is temporary.
const IN_CONTAINER: &str = r#"set -e
mount -t tmpfs none /mnt
mkdir -m 777 /mnt/workspace /mnt/tmp
mount --bind "$0/w" /mnt/workspace
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t tmpfs -o mode=777 none /mnt/tmp
mount -o remount,ro /mnt
mount -o remount,bind,ro /
exec env -i PATH=/usr/local/bin:/usr/bin:/bin TMPDIR=/mnt/tmp"#;

async fn is_possible() -> bool {
    let unshare = ["--pid", "--fork", "--mount", "--mount-proc", "--ipc"];
    let mut command = Command::new("unshare");
    command.args(unshare);
    let script = format!("mount -t tmpfs none /mnt && exec {AS_USER} true");
    let status = command.args(["/bin/sh", "-c", &script]).status().await;
    status.is_ok_and(|status| status.success())
}

/// A ready pod in two containers, as it were; `None` where these cannot be made.
async fn pod(test: &str) -> Option<Pod> {
    if !is_possible().await {
        let reason = "no namespaces can be made here (they need root, unshare and setpriv)";
        skip(test, "oci", reason);
        return None;
    }
    let mut class = talkative();
    class.agent.port = 8713;
    let sidecar = |folder: &Path, uid: PodUid, keys: &str| {
        let own = folder.join("bin/carrel");
        let install = std::process::Command::new(PROGRAM)
            .args(["shim", "--install"])
            .arg(&own)
            .status();
        assert!(install.expect("started").success());
        for path in [folder, &folder.join("w")] {
            chown(path, Some(USER), Some(USER)).expect("given");
        }
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(folder.join("vault.sock"), everybody).expect("opened");
        let mut command = Command::new("unshare");
        let script = format!("exec {AS_USER} \"$0\" \"$@\"");
        command.args(["--ipc", "/bin/sh", "-c", &script]).arg(&own);
        let port = Some(tell(&mut command, folder, uid, keys));
        command.args(["--agent-workspace", "/mnt/workspace"]);
        Start { command, port }
    };
    let shim = |folder: &Path| {
        let mut shim = Command::new("unshare");
        shim.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
        let own = "\"$0/bin/carrel\" shim --socket \"$0/run/shim.sock\"";
        let script = format!("{IN_CONTAINER} {AS_USER} {own}");
        shim.args(["--ipc", "/bin/sh", "-c", &script]).arg(folder);
        shim
    };
    let mut pod = Pod::start(class, sidecar, shim).await;
    // The program is not where that user could go.
    pod.class.agent.command = vec![
        pod.path("bin/carrel").display().to_string(),
        "agent".to_owned(),
    ];
    Some(pod.waked().await)
}

#[tokio::test]
async fn an_agent_that_may_do_nothing_is_started_frozen_saved_and_ended() {
    let Some(mut pod) = pod("an_agent_that_may_do_nothing").await else {
        return;
    };
    assert_eq!(pod.said("environment CARREL_AGENT_PORT").await, "8713");
    assert_eq!(pod.said("environment HOME").await, "/mnt/workspace/.home");
    let seen =
        "id -u; pwd; cat /proc/1/comm; grep -c '^Cap...:.0000000000000000$' /proc/self/status";
    let seen = pod.said(&format!("sh {seen}")).await;
    assert_eq!(seen, "10001\n/mnt/workspace\ncarrel\n5\n");
    let written = "touch /x /etc/x 2>&1; touch $TMPDIR/x && echo temporary; ls /mnt/tmp";
    let written = pod.said(&format!("sh {written}")).await;
    assert_eq!(written.matches("Read-only").count(), 2, "{written}");
    assert!(written.ends_with("temporary\nx\n"), "{written}");
    // It neither ends nor sees what is beside it.
    pod.said("sh kill -TERM 1; setsid sleep 600 >/dev/null 2>&1 &")
        .await;
    let others = pod.said("sh cat /proc/[0-9]*/comm").await;
    assert!(others.contains("sleep"), "{others}");
    assert!(!others.contains("systemd") && others.lines().count() < 8);
    // What it holds without a name is seen, and a model is reached through the sidecar.
    assert_eq!(
        pod.said("sh exec 3>gone; rm gone; echo held >&3; echo so")
            .await,
        "so\n"
    );
    let asked = pod.said("model /v1/messages").await;
    assert!(asked.contains("Bearer"), "{asked}");
    assert_eq!(pod.said("count").await, "1");

    let slept = pod.call(Method::POST, "/v1/sleep").send().await;
    assert_eq!(slept.expect("an answer").status(), 202);
    assert_eq!(pod.exit().await, Exit::Clean);
    assert!(wait(&mut pod.shim).await.success());
    let said = farewell(&pod);
    assert_eq!((said.ending, said.committed), (Ending::Slept, true));
}
