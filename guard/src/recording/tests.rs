use std::fs;
use std::io::Write as _;
use std::time::Duration;

use super::*;
use crate::observe::{HookTotals, TableReading, Timeouts};

fn header() -> Header {
    let table = TableReading { max: 65_536, buckets: 16_384, count: 10 };
    let timeouts = Timeouts::from([(crate::observe::Timeout::TcpTimeWait, 120)]);
    let host = Host { table, memory_total: 4 << 30, entry_bytes: 320, page_bytes: 4096, timeouts };
    Header::now("1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned(), host)
}

fn sample(second: u64) -> Sample {
    let hooks = Some(HookTotals { inserts: Some(second * 1_000), ..HookTotals::default() });
    Sample { at: Duration::from_secs(second), hooks, ..Sample::default() }
}

fn seconds(path: &std::path::Path) -> (Vec<u64>, usize, usize) {
    let (mut at, mut begun, mut cut) = (Vec::new(), 0, 0);
    for step in Reader::open(path).unwrap() {
        match step.unwrap() {
            Recorded::Begins(_) => begun += 1,
            Recorded::Sample(sample) => at.push(sample.at.as_secs()),
            Recorded::Cut(_) => cut += 1,
        }
    }
    (at, begun, cut)
}

#[test]
fn what_is_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json.gz");
    let mut writer = Writer::create(&path, &header()).unwrap();
    for second in 0..50 {
        writer.add(&sample(second)).unwrap();
    }
    writer.finish().unwrap();
    let all: Vec<Recorded> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
    let Recorded::Begins(head) = &all[0] else { panic!("{:?}", all[0]) };
    assert_eq!(head.host, header().host);
    assert_eq!(all[7], Recorded::Sample(Box::new(sample(6))));
    assert_eq!(all.len(), 51);
}

#[test]
fn a_guard_that_was_killed_leaves_all_but_the_last_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json.gz");
    let mut writer = Writer::create(&path, &header()).unwrap();
    for second in 1..=45 {
        writer.add(&sample(second)).unwrap();
    }
    // As after kill -9: nothing of what is in the process is written out.
    std::mem::forget(writer);
    let (at, _, cut) = seconds(&path);
    assert!(at.len() >= 40 && cut == 1, "{at:?} {cut}");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 7]).unwrap();
    assert_eq!(seconds(&path).2, 1);
}

#[test]
fn an_hour_is_kept_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join(FOLDER);
    let mut hour = Hour::keep(&folder, header()).unwrap();
    for second in (0..3 * 3_600).step_by(10) {
        hour.add(&sample(second)).unwrap();
    }
    drop(hour);
    let (at, begun, cut) = seconds(&folder);
    assert!((at[0]..=10_790 - 3_600).contains(&at[0]) && at[0] >= 10_790 - 4_200, "from {}", at[0]);
    assert_eq!((*at.last().unwrap(), begun, cut), (10_790, 7, 0));
    // The next guard goes on after it.
    let mut next = Hour::keep(&folder, header()).unwrap();
    next.add(&sample(20_000)).unwrap();
    drop(next);
    let (at, begun, _) = seconds(&folder);
    assert_eq!((*at.last().unwrap(), begun), (20_000, 7));
}

#[test]
fn a_file_that_is_none_of_ours_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &std::path::Path| {
        let opened = Reader::open(path).and_then(|mut reader| reader.next().transpose());
        opened.unwrap_err().to_string()
    };
    assert!(error(folder.path()).contains("holds no recording"));
    let path = folder.path().join("x.json.gz");
    assert!(error(&path).contains("cannot read"));
    fs::write(&path, "no gzip").unwrap();
    assert!(error(&path).contains("is no recording of conntrack-guard"), "{}", error(&path));
    let write = |line: &str| {
        let mut file = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
        file.write_all(line.as_bytes()).unwrap();
        file.finish().unwrap();
    };
    write("{\"format\":\"conntrack-guard recording\",\"version\":9}\n");
    assert!(error(&path).contains("format version 9"), "{}", error(&path));
    write("{\"format\":\"holiday photos\",\"version\":1}\n");
    assert!(error(&path).contains("holiday photos"));
    write(&(serde_json::to_string(&header()).unwrap() + "\n{\"at\":1}\n"));
    let last = Reader::open(&path).unwrap().last().unwrap().unwrap_err().to_string();
    assert!(last.contains("x.json.gz:2: no sample"), "{last}");
}

#[test]
fn a_recorder_writes_all_it_was_given_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.json.gz");
    let hour = Hour::keep(&folder.path().join(FOLDER), header()).unwrap();
    let mut recorder = Recorder::start(Some(hour), Some(Writer::create(&path, &header()).unwrap()));
    for second in 0..100 {
        recorder.add(sample(second));
    }
    drop(recorder);
    assert_eq!(seconds(&path), ((0..100).collect(), 1, 0));
    assert_eq!(seconds(&folder.path().join(FOLDER)).0.len(), 100);
}

#[test]
fn samples_of_ten_seconds_are_handed_over_together_and_a_surge_of_them_sooner() {
    let (samples, arriving) = sync_channel(8);
    let (_end, ended) = sync_channel(1);
    let mut recorder = Recorder { samples: Some(samples), together: Vec::new(), ended };
    let mut handed_over = |times: &[u64]| {
        for millis in times {
            recorder.add(Sample { at: Duration::from_millis(*millis), ..Sample::default() });
        }
        arriving.try_iter().map(|together: Vec<Sample>| together.len()).collect::<Vec<_>>()
    };
    assert_eq!(handed_over(&[0, 2_000, 4_000, 6_000, 8_000, 9_999]), [0; 0]);
    assert_eq!(handed_over(&[10_000, 12_000, 21_999]), [7]);
    assert_eq!(handed_over(&[22_000]), [3]);
    let surge: Vec<u64> = (0..40).map(|tick| 30_000 + 50 * tick).collect();
    assert_eq!(handed_over(&surge), [16, 16]);
    assert_eq!(handed_over(&[20_000; 8]), [16], "a clock that went back keeps nothing");
}
