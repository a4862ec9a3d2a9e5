//! Every way in which a policy file is replaced.

use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

/// Runs on a clock that stands still while anything is left to do: what takes how long does not depend on the machine.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(work)
}

/// Whether a watch of `file` notices `change`, sooner than a poll would.
fn noticed(file: &Path, change: impl FnOnce()) -> bool {
    block_on(async {
        let changed = Arc::new(Notify::new());
        let watching = tokio::spawn(watch(file.to_path_buf(), fingerprint(file), Arc::clone(&changed)));
        // The watches are in place when the task first waits.
        sleep(Duration::from_millis(50)).await;
        change();
        let noticed = timeout(RESTLESS + QUIET, changed.notified()).await.is_ok();
        watching.abort();
        noticed
    })
}

#[test]
fn a_file_saved_in_place_renamed_into_place_gone_or_come() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    fs::write(&file, "").unwrap();
    assert!(noticed(&file, || fs::write(&file, "mode = \"off\"").unwrap()));
    // From elsewhere: written beside it, the new file would be noticed before it is renamed.
    let fresh = tempfile::tempdir_in(directory.path()).unwrap();
    fs::write(fresh.path().join("policy.toml"), "mode = \"advise\"").unwrap();
    assert!(noticed(&file, || fs::rename(fresh.path().join("policy.toml"), &file).unwrap()));
    assert!(noticed(&file, || fs::remove_file(&file).unwrap()));
    assert!(noticed(&file, || fs::write(&file, "").unwrap()));
}

#[test]
fn a_neighbour_is_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    fs::write(&file, "").unwrap();
    assert!(!noticed(&file, || fs::write(directory.path().join("other.toml"), "").unwrap()));
}

#[test]
fn a_file_that_is_still_being_written_is_told_once_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    fs::write(&file, "").unwrap();
    block_on(async {
        let changed = Arc::new(Notify::new());
        let watching = tokio::spawn(watch(file.clone(), fingerprint(&file), Arc::clone(&changed)));
        sleep(Duration::from_millis(50)).await;
        for step in 0..10 {
            fs::write(&file, "#".repeat(step)).unwrap();
            assert!(timeout(QUIET / 3, changed.notified()).await.is_err(), "told in step {step}");
        }
        timeout(2 * QUIET, changed.notified()).await.unwrap();
        assert!(timeout(2 * QUIET, changed.notified()).await.is_err(), "told twice");
        watching.abort();
    });
}

/// A ConfigMap as the kubelet mounts it: `policy.toml` → `..data/policy.toml`, `..data` → `..FIRST`.
#[test]
fn a_config_map_whose_data_are_swapped() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path();
    let put = |version: &str, text: &str| {
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("policy.toml"), text).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    put("..first", "mode = \"enforce\"");
    symlink("..data/policy.toml", mount.join("policy.toml")).unwrap();
    let file = mount.join("policy.toml");
    assert!(noticed(&file, || {
        put("..second", "mode = \"advise\"");
        fs::remove_dir_all(mount.join("..first")).unwrap();
    }));
    assert!(noticed(&file, || put("..third", "mode = \"off\"")), "the watches are on the new way");
}

#[test]
fn a_chain_of_links_is_followed_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(root.path()).unwrap();
    for directory in ["etc", "real/deep"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("real/deep/policy.toml"), "").unwrap();
    symlink("../real", root.join("etc/guard")).unwrap();
    symlink(root.join("real/deep/policy.toml"), root.join("real/policy.toml")).unwrap();
    let file = root.join("etc/guard/policy.toml");
    assert_eq!(directories(&file), ["etc", "real", "real/deep"].map(|directory| root.join(directory)).into());
    assert!(noticed(&file, || fs::write(root.join("real/deep/policy.toml"), "#").unwrap()));

    symlink("round", root.join("round")).unwrap();
    assert_eq!(directories(&root.join("round")), [root.clone()].into(), "a ring has an end");
    assert_eq!(directories(&root.join("etc/none/policy.toml")), [root.join("etc")].into());
}
