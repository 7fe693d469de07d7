use std::os::unix::fs::symlink;

use super::*;

fn workspace() -> (tempfile::TempDir, Workspace) {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("workspace");
    std::fs::create_dir(&inside).unwrap();
    let workspace = Workspace::open(&inside).unwrap();
    (folder, workspace)
}

fn path(written: &str) -> RelativePath {
    RelativePath::parse(written).unwrap()
}

#[test]
fn what_was_written_is_read_back_in_pieces() {
    let (_folder, workspace) = workspace();
    workspace
        .replace(&path("a/b/c.txt"), b"0123456789")
        .unwrap();
    let piece = workspace.read(&path("a/b/c.txt"), 3, 4).unwrap();
    assert_eq!(piece.bytes, b"3456");
    assert_eq!(piece.total_bytes, 10);
    assert_eq!(
        workspace.read_end(&path("a/b/c.txt"), 2).unwrap().bytes,
        b"89"
    );
    workspace.append(&path("a/b/c.txt"), b"!").unwrap();
    assert_eq!(
        workspace.read(&path("a/b/c.txt"), 8, 9).unwrap().bytes,
        b"89!"
    );
}

#[test]
fn no_link_is_followed_in_any_place_of_a_path() {
    let (folder, workspace) = workspace();
    let outside = folder.path().join("secret");
    std::fs::write(&outside, "theirs").unwrap();
    let inside = folder.path().join("workspace");
    symlink(&outside, inside.join("file-link")).unwrap();
    symlink(folder.path(), inside.join("folder-link")).unwrap();

    for reached in ["file-link", "folder-link/secret"] {
        let refused = workspace.read(&path(reached), 0, 10);
        assert!(matches!(refused, Err(Error::NotPlain)), "{refused:?}");
        let refused = workspace.append(&path(reached), b"ours");
        assert!(matches!(refused, Err(Error::NotPlain)), "{refused:?}");
    }
    assert!(matches!(
        workspace.replace(&path("folder-link/new"), b"ours"),
        Err(Error::NotPlain)
    ));
    assert!(matches!(
        workspace.list(&path("folder-link"), 9),
        Err(Error::NotPlain)
    ));
    // Replacing takes the link's place; what it pointed to is untouched.
    workspace.replace(&path("file-link"), b"ours").unwrap();
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "theirs");
    assert!(!folder.path().join("new").exists());
}

#[test]
fn a_named_pipe_is_refused_and_does_not_hold_the_reader() {
    let (folder, workspace) = workspace();
    let fifo = folder.path().join("workspace/pipe");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for refused in [
        workspace.read(&path("pipe"), 0, 10).map(drop),
        workspace.append(&path("pipe"), b"x"),
    ] {
        assert!(matches!(refused, Err(Error::NotPlain)), "{refused:?}");
    }
}

#[test]
fn a_listing_is_sorted_bounded_and_says_what_is_what() {
    let (folder, workspace) = workspace();
    let inside = folder.path().join("workspace");
    std::fs::create_dir(inside.join("folder")).unwrap();
    std::fs::write(inside.join("file"), "four").unwrap();
    symlink("/etc", inside.join("link")).unwrap();

    let (listed, more) = workspace.list(&path(""), 10).unwrap();
    let shown: Vec<_> = listed.iter().map(|l| (l.name.as_str(), l.kind)).collect();
    let expected = [
        ("file", Kind::File),
        ("folder", Kind::Folder),
        ("link", Kind::Other),
    ];
    assert_eq!(shown, expected);
    assert_eq!(listed[0].bytes, 4);
    assert!(!more);
    let (listed, more) = workspace.list(&path(""), 2).unwrap();
    assert_eq!((listed.len(), more), (2, true));
}

#[test]
fn a_folder_is_not_a_file_and_absence_is_named() {
    let (_folder, workspace) = workspace();
    workspace.replace(&path("d/f"), b"x").unwrap();
    assert!(matches!(
        workspace.read(&path("d"), 0, 1),
        Err(Error::IsFolder)
    ));
    assert!(matches!(
        workspace.read(&path("nothing"), 0, 1),
        Err(Error::NotFound)
    ));
    assert!(matches!(
        workspace.replace(&path(""), b"x"),
        Err(Error::IsFolder)
    ));
}
