use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::layout::{Host, Piece, arguments, layout};
use super::spec::{ContainerId, ContainerSpec, HostIds, Limits, RootKind};

fn spec(root: RootKind) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId::try_from("one".to_owned()).unwrap(),
        root,
        shared_dir: "/srv/shared".into(),
        workspace_dir: "/srv/work".into(),
        argv: vec!["/carrel".into(), "shim".into()],
        env: BTreeMap::new(),
        host: HostIds { uid: 3, gid: 4 },
        limits: Limits {
            cpu_millis: 5,
            memory_bytes: 6,
            pids: 7,
            tmp_bytes: 8,
        },
        hostname: "h".into(),
    }
}

fn host() -> Host {
    Host {
        links: BTreeMap::from([(PathBuf::from("/bin"), PathBuf::from("usr/bin"))]),
        folders: vec!["/etc/ssl/certs".into()],
        files: vec!["/etc/ssl/openssl.cnf".into()],
        executable: "/opt/carrel".into(),
        libraries: vec![
            "/lib64/ld-linux-x86-64.so.2".into(),
            "/usr/lib/libc.so.6".into(),
        ],
    }
}

#[test]
fn only_the_workspace_and_the_devices_of_the_host_can_be_written() {
    let image = RootKind::Image {
        rootfs: "/images/a".into(),
    };
    for root in [RootKind::HostUsr, image] {
        let writable: Vec<_> = layout(&spec(root), &host())
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Bind(bind) if bind.writable => Some(bind.from),
                _ => None,
            })
            .filter(|from| !from.starts_with("/dev"))
            .collect();
        assert_eq!(writable, [Path::new("/srv/work")]);
    }
}

#[test]
fn a_learners_own_paths_are_never_followed_through_a_link() {
    for piece in layout(&spec(RootKind::HostUsr), &host()) {
        if let Piece::Bind(bind) = piece {
            assert_eq!(bind.follow, !bind.from.starts_with("/srv"), "{bind:?}");
        }
    }
}

#[test]
fn in_an_image_carrel_brings_its_own_loader_and_other_programs_do_not() {
    let image = RootKind::Image {
        rootfs: "/images/a".into(),
    };
    let mut spec = spec(image);
    assert_eq!(
        arguments(&spec, &host()),
        [
            "/.carrel/lib/ld-linux-x86-64.so.2",
            "--library-path",
            "/.carrel/lib",
            "/carrel",
            "shim"
        ]
    );
    spec.argv = vec!["/bin/agent".into()];
    assert_eq!(arguments(&spec, &host()), ["/bin/agent"]);
}
