//! The journal against damage, other boots and a disk that fails.

use super::*;

const BOOT: &str = "this-boot";
const STALL: Duration = Duration::from_millis(20);

fn reread(directory: &Path) -> Journal {
    match Journal::find(directory, BOOT).unwrap() {
        Found::ThisBoot(journal) => journal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_original_is_on_disk_before_the_write_and_survives_further_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), BOOT, STALL).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT).unwrap(), Found::Nothing));

    journal.intend(Setting::Max, 100, 200).unwrap();
    let entry = reread(directory.path()).entry(Setting::Max).cloned().unwrap();
    assert_eq!((entry.original, entry.wrote, entry.intended), (100, 100, Some(200)));
    assert_eq!(reread(directory.path()).max_stall(), STALL);

    journal.settle(Setting::Max, 200).unwrap();
    journal.intend(Setting::Max, 200, 400).unwrap();
    let entry = reread(directory.path()).entry(Setting::Max).cloned().unwrap();
    assert_eq!((entry.original, entry.wrote, entry.intended), (100, 200, Some(400)));
    // Killed here, the kernel has either value; both are the guard's.
    assert!(entry.is_ours(Setting::Max, 200) && entry.is_ours(Setting::Max, 400));
    assert!(!entry.is_ours(Setting::Max, 300));
}

#[test]
fn another_writers_value_becomes_the_one_to_come_back_to() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), BOOT, STALL).unwrap();
    journal.intend(Setting::Max, 100, 200).unwrap();
    journal.settle(Setting::Max, 200).unwrap();
    journal.intend(Setting::Max, 150, 300).unwrap();
    assert_eq!(journal.entry(Setting::Max).unwrap().original, 150);
}

#[test]
fn a_setting_that_is_back_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), BOOT, STALL).unwrap();
    journal.intend(Setting::Max, 100, 200).unwrap();
    journal.settle(Setting::Max, 100).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_journal_of_another_boot_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    Journal::create(directory.path(), BOOT, STALL).unwrap().intend(Setting::Max, 1, 2).unwrap();
    assert!(matches!(Journal::find(directory.path(), "next-boot").unwrap(), Found::EarlierBoot));
    Journal::remove(directory.path()).unwrap();
    Journal::remove(directory.path()).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT).unwrap(), Found::Nothing));
}

#[test]
fn damage_and_other_versions_are_refused_with_the_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    Journal::create(directory.path(), BOOT, STALL).unwrap().intend(Setting::Max, 100, 200).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = Journal::find(directory.path(), BOOT).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains(FILE), "{cut}: {error}");
    }
    fs::write(&path, whole.replace("\"original\": 100", "\"original\": 0")).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT), Err(Error::Damaged { .. })));
    fs::write(&path, r#"{"version": 2, "shape": "unknown"}"#).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT), Err(Error::Version { found: 2, .. })));
}

#[test]
fn what_could_not_be_saved_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), BOOT, STALL).unwrap();
    // Not even root writes into a directory that is gone.
    fs::remove_dir(directory.path()).unwrap();
    let error = journal.intend(Setting::Max, 100, 200).unwrap_err();
    assert!(error.to_string().contains("--state-dir"), "{error}");
    assert!(journal.entry(Setting::Max).is_none());
}

#[test]
fn an_unusable_directory_is_found_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Journal::create(&file, BOOT, STALL), Err(Error::Io { .. })));
    assert!(matches!(Journal::create(Path::new("/proc/self/state"), BOOT, STALL), Err(Error::Io { .. })));
}
