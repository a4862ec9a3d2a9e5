//! The journal against damage, other boots, other versions and a disk that fails.

use std::os::unix::fs::symlink;

use super::*;
use crate::observe::Timeout;

const BOOT: &str = "this-boot";
const STALL: Duration = Duration::from_millis(20);
const FOUND: [(Setting, u64); 2] = [(Setting::Max, 100), (Setting::Timeout(Timeout::Udp), 30)];

/// As version 1 wrote it: two settings changed, one write under way.
const VERSION_1: &str = r#"{
  "version": 1,
  "boot_id": "this-boot",
  "max_stall_ms": 35,
  "settings": {
    "max": {
      "original": 100,
      "found_at_unix_ms": 1763640000000,
      "wrote": 200,
      "intended": 400
    },
    "buckets": {
      "original": 512,
      "found_at_unix_ms": 1763640000001,
      "wrote": 1024,
      "intended": null
    }
  }
}"#;

fn begun(directory: &Path) -> Journal {
    let mut journal = Journal::create(directory, BOOT).unwrap();
    journal.begin(&FOUND, STALL).unwrap();
    journal
}

fn reread(directory: &Path) -> Journal {
    match Journal::find(directory, BOOT).unwrap() {
        Found::ThisBoot(journal) => journal,
        other => panic!("{other:?}"),
    }
}

fn of(journal: &Journal, setting: Setting) -> (u64, u64, Option<u64>) {
    let entry = journal.entry(setting).unwrap();
    (entry.original, entry.wrote, entry.intended)
}

#[test]
fn every_original_is_on_disk_before_anything_changes_and_survives_further_changes() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT).unwrap(), Found::Nothing));
    let mut journal = begun(directory.path());
    let saved = Content::parse(Path::new(FILE), &fs::read_to_string(directory.path().join(FILE)).unwrap()).unwrap();
    assert_eq!(saved.settings.iter().map(|(setting, entry)| (*setting, entry.original)).collect::<Vec<_>>(), FOUND);
    assert_eq!(reread(directory.path()).touched(), []);

    journal.intend(Setting::Max, 100, 200).unwrap();
    assert_eq!(of(&reread(directory.path()), Setting::Max), (100, 100, Some(200)));
    assert_eq!(reread(directory.path()).max_stall(), STALL);

    journal.settle(Setting::Max, 200).unwrap();
    journal.intend(Setting::Max, 200, 400).unwrap();
    let now = reread(directory.path());
    assert_eq!((now.touched(), of(&now, Setting::Max)), (vec![Setting::Max], (100, 200, Some(400))));
    // Killed here, the kernel has either value; both are the guard's.
    let entry = now.entry(Setting::Max).unwrap();
    assert!(entry.is_ours(Setting::Max, 200) && entry.is_ours(Setting::Max, 400));
    assert!(!entry.is_ours(Setting::Max, 300));
}

#[test]
fn the_journal_itself_follows_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    journal.intend(Setting::Max, 100, 200).unwrap();
    journal.settle(Setting::Max, 200).unwrap();
    drop(journal);
    // As after a power cut, which no process outlives: the page is anything.
    fs::write(Page::path(directory.path()), "{\"vers").unwrap();
    assert_eq!(of(&reread(directory.path()), Setting::Max), (100, 200, None));
}

#[test]
fn the_later_one_of_journal_and_page_holds() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    let early = fs::read(Page::path(directory.path())).unwrap();
    journal.intend(Setting::Max, 100, 200).unwrap();
    assert_eq!(of(&reread(directory.path()), Setting::Max), (100, 100, Some(200)), "the page is later");
    journal.settle(Setting::Max, 200).unwrap();
    journal.save().unwrap();
    fs::write(Page::path(directory.path()), early).unwrap();
    assert_eq!(of(&reread(directory.path()), Setting::Max), (100, 200, None), "the journal is later");
}

#[test]
fn a_page_without_its_journal_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    journal.intend(Setting::Max, 100, 200).unwrap();
    drop(journal);
    fs::remove_file(directory.path().join(FILE)).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT).unwrap(), Found::Nothing));
    begun(directory.path());
    assert_eq!(reread(directory.path()).touched(), []);
}

#[test]
fn another_writers_value_becomes_the_one_to_come_back_to() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    journal.intend(Setting::Max, 100, 200).unwrap();
    journal.settle(Setting::Max, 200).unwrap();
    journal.intend(Setting::Max, 150, 300).unwrap();
    assert_eq!(of(&reread(directory.path()), Setting::Max), (150, 150, Some(300)));
}

#[test]
fn a_setting_that_came_after_the_start_is_on_disk_before_it_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    let gre = Setting::Timeout(Timeout::Gre);
    journal.intend(gre, 30, 20).unwrap();
    fs::remove_file(Page::path(directory.path())).unwrap();
    assert_eq!(of(&reread(directory.path()), gre), (30, 30, Some(20)));
}

#[test]
fn what_is_forgotten_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    journal.intend(Setting::Max, 100, 200).unwrap();
    journal.settle(Setting::Max, 200).unwrap();
    journal.forget(&[Setting::Max]).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_journal_of_another_boot_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    begun(directory.path()).intend(Setting::Max, 100, 200).unwrap();
    assert!(matches!(Journal::find(directory.path(), "next-boot").unwrap(), Found::EarlierBoot));
    Journal::remove(directory.path()).unwrap();
    Journal::remove(directory.path()).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT).unwrap(), Found::Nothing));
}

#[test]
fn a_page_of_another_boot_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    journal.intend(Setting::Max, 100, 200).unwrap();
    let page = fs::read_to_string(Page::path(directory.path())).unwrap();
    fs::write(Page::path(directory.path()), page.replace(BOOT, "last-boot")).unwrap();
    assert_eq!(of(&reread(directory.path()), Setting::Max), (100, 100, None));
}

#[test]
fn version_1_is_taken_over_and_becomes_this_version() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), VERSION_1).unwrap();
    let mut journal = reread(directory.path());
    assert_eq!(journal.touched(), [Setting::Max, Setting::Buckets]);
    assert_eq!((of(&journal, Setting::Max), journal.max_stall()), ((100, 200, Some(400)), Duration::from_millis(35)));
    // The kernel has what was intended; somebody else has set the buckets since.
    let found = [(Setting::Max, 400), (Setting::Buckets, 2048), (Setting::Timeout(Timeout::Udp), 30)];
    journal.begin(&found, STALL).unwrap();
    drop(journal);
    let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
    assert!(text.contains("\"version\": 2"), "{text}");
    let journal = reread(directory.path());
    assert_eq!(journal.touched(), [Setting::Max]);
    assert_eq!(of(&journal, Setting::Max), (100, 200, Some(400)));
    assert_eq!(of(&journal, Setting::Buckets), (2048, 2048, None));
}

#[test]
fn a_later_version_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    for later in [r#"{"version": 3, "shape": "unknown"}"#, r#"{"version": 0}"#] {
        fs::write(&path, later).unwrap();
        let error = Journal::find(directory.path(), BOOT).unwrap_err();
        assert!(matches!(error, Error::Version { .. }), "{error}");
        assert!(error.to_string().contains("a later one"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), later);
    }
}

#[test]
fn damage_is_refused_with_the_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    begun(directory.path()).intend(Setting::Max, 100, 200).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = Journal::find(directory.path(), BOOT).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains(FILE), "{cut}: {error}");
    }
    fs::write(&path, VERSION_1.replace("\"original\": 100", "\"original\": 0")).unwrap();
    assert!(matches!(Journal::find(directory.path(), BOOT), Err(Error::Damaged { .. })));
}

#[test]
fn what_could_not_be_recorded_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = begun(directory.path());
    journal.break_page();
    let error = journal.intend(Setting::Max, 100, 200).unwrap_err();
    assert!(error.to_string().contains("--state-dir"), "{error}");
    assert_eq!(of(&journal, Setting::Max), (100, 100, None));
    // A setting that came after the start, and the disk is full.
    symlink("/dev/full", directory.path().join("journal.json.new")).unwrap();
    let error = journal.intend(Setting::Buckets, 512, 1024).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(journal.entry(Setting::Buckets).is_none());
}

#[test]
fn an_unusable_directory_is_found_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Journal::create(&file, BOOT), Err(Error::Io { .. })));
    assert!(matches!(Journal::create(Path::new("/proc/self/state"), BOOT), Err(Error::Io { .. })));
    let full = tempfile::tempdir().unwrap();
    symlink("/dev/full", full.path().join("journal.json.new")).unwrap();
    let mut journal = Journal::create(full.path(), BOOT).unwrap();
    assert!(journal.begin(&FOUND, STALL).unwrap_err().to_string().contains("No space left"));
    assert!(!full.path().join(FILE).exists());
}
