//! What a container must not be able to see or touch, and what it must.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use crate::fixture::{Bed, Outcome, ended, value};

crate::tests![
    the_agent_has_its_own_identity_and_no_rights,
    only_the_workspace_and_temporary_folders_can_be_written,
    files_of_the_host_and_of_other_learners_are_not_there,
    a_port_of_the_host_cannot_be_reached,
    loopback_is_up_inside,
    the_sidecars_socket_is_reached_through_the_read_only_folder,
    the_kernel_refuses_the_usual_ways_out_even_without_a_filter,
];

async fn the_agent_has_its_own_identity_and_no_rights(bed: Bed) -> Outcome {
    let careless = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    let said = bed.run(&["whoami"]).await;
    drop(careless);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(&said, set), "0000000000000000", "{set}");
    }
    assert_eq!(value(&said, "NoNewPrivs"), "1");
    assert_eq!(
        (value(&said, "uid"), value(&said, "gid")),
        ("10001", "10001")
    );
    assert_eq!((value(&said, "pid"), value(&said, "processes")), ("1", "1"));
    assert_eq!(value(&said, "hostname"), "desk-1");
    assert_eq!(
        (value(&said, "cwd"), value(&said, "owner")),
        ("/workspace", "10001")
    );
    assert_eq!(
        value(&said, "env"),
        "GREETING:hello",
        "nothing of our own environment"
    );
    assert_eq!(
        value(&said, "descriptors"),
        "3",
        "nothing but its standard streams"
    );
    assert_eq!(value(&said, "shell"), "true");
    let allowed = [
        "bin", "carrel", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run",
    ];
    for name in value(&said, "root").split(',') {
        let allowed =
            allowed.contains(&name) || ["sbin", "tmp", "usr", "workspace"].contains(&name);
        assert!(allowed, "/{name} is there");
    }
    Outcome::Passed
}

async fn only_the_workspace_and_temporary_folders_can_be_written(bed: Bed) -> Outcome {
    let closed = [
        "/",
        "/usr",
        "/usr/bin",
        "/etc",
        "/etc/passwd",
        "/carrel",
        "/run",
        "/run/carrel",
        "/dev",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj_",
    ];
    let open = ["/workspace", "/tmp", "/dev/shm", "/dev/null"];
    let said = bed
        .run(&[&["write"], &closed[..], &open[..]].concat())
        .await;
    for path in closed {
        assert_eq!(value(&said, path), "false", "{path}");
    }
    for path in open {
        assert_eq!(value(&said, path), "true", "{path}");
    }
    let written = bed.folder.path().join("learner-1/workspace/written");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(written).unwrap());
    let expected = carrel_fleet_local::container::Runtime::host_ids(1).uid;
    assert_eq!(
        owner, expected,
        "the sidecar's user owns what the agent writes"
    );
    Outcome::Passed
}

async fn files_of_the_host_and_of_other_learners_are_not_there(bed: Bed) -> Outcome {
    let other = bed.spec(2, &[]);
    let secret = other.workspace_dir.join("diary");
    std::fs::write(&secret, "mine").unwrap();
    let around = ["/proc/1/root/../..", "/proc/self/cwd/../.."]
        .map(|way| format!("{way}{}", bed.folder.path().display()));
    let paths = [
        secret.to_str().unwrap(),
        other.workspace_dir.to_str().unwrap(),
        &around[0],
        &around[1],
        "/root",
        "/home",
        "/var",
        "/sys",
        "/etc/shadow",
        "/etc/hostname",
        "/dev/mem",
        "/dev/vda",
        "/dev/kmsg",
        "/proc/1/root/etc/shadow",
        "/boot",
        "/mnt",
        "/opt",
        "/srv",
    ];
    let said = bed.run(&[&["read"], &paths[..]].concat()).await;
    for path in paths {
        assert_eq!(value(&said, path), "nothing", "{path}");
    }
    if rustix::process::geteuid().is_root() {
        let ids = |slot| carrel_fleet_local::container::Runtime::host_ids(slot).uid;
        assert_ne!(ids(1), ids(2), "strangers on the host too");
    }
    Outcome::Passed
}

async fn a_port_of_the_host_cannot_be_reached(bed: Bed) -> Outcome {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    assert!(
        std::net::TcpStream::connect(&address).is_ok(),
        "the host itself can"
    );
    let said = bed.run(&["connect", &address]).await;
    assert_eq!(value(&said, "connected"), "false");
    assert_eq!(
        (value(&said, "interfaces"), value(&said, "routes")),
        ("lo", "0")
    );
    Outcome::Passed
}

async fn loopback_is_up_inside(bed: Bed) -> Outcome {
    assert_eq!(value(&bed.run(&["loopback"]).await, "heard"), "true");
    Outcome::Passed
}

async fn the_sidecars_socket_is_reached_through_the_read_only_folder(bed: Bed) -> Outcome {
    let spec = bed.spec(1, &["socket"]);
    let path = spec.shared_dir.join("sidecar");
    let listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(spec.host.uid), Some(spec.host.gid)).unwrap();
    let sidecar = tokio::task::spawn_blocking(move || {
        let (mut shim, _) = listener.accept().unwrap();
        shim.read_exact(&mut [0]).unwrap();
        shim.write_all(b"assigned").unwrap();
    });
    let container = bed.runtime.start(spec).await.unwrap();
    ended(&container).await;
    sidecar.await.unwrap();
    assert_eq!(value(&container.last_output(), "answer"), "assigned");
    container.remove().await.unwrap();
    Outcome::Passed
}

async fn the_kernel_refuses_the_usual_ways_out_even_without_a_filter(bed: Bed) -> Outcome {
    let said = bed.run(&["escape"]).await;
    for way in [
        "namespace",
        "mount",
        "unmount",
        "remount",
        "hostname",
        "device",
        "root",
        "memory",
    ] {
        assert_eq!(value(&said, way), "false", "{way}");
    }
    assert_eq!(value(&said, "cgroup"), "false");
    for path in [
        "/",
        "/usr",
        "/run/carrel",
        "/proc/sys",
        "/proc/bus",
        "/proc/irq",
    ] {
        assert_eq!(value(&said, &format!("sealed {path}")), "true", "{path}");
    }
    let masked = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/interrupts",
        "/proc/acpi",
        "/proc/scsi",
    ];
    let said = bed.run(&[&["read"], &masked[..]].concat()).await;
    for path in masked {
        assert!(
            ["0", "nothing"].contains(&value(&said, path)),
            "{path}: {said}"
        );
    }
    Outcome::Passed
}
