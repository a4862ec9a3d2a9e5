//! The table's settings and count, from the sysctls under net.netfilter (Documentation/networking/nf_conntrack-sysctl).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Error, TableReading};

/// Where the sysctls are below the root.
pub const DIRECTORY: &str = "proc/sys/net/netfilter";

/// Whether the kernel below `root` tracks connections.
pub fn is_there(root: &Path) -> bool {
    root.join(DIRECTORY).join("nf_conntrack_max").exists()
}

/// Which table it is: after nf_conntrack was unloaded and loaded, another one (sysfs numbers its folders anew). `None`: not
/// known.
pub fn number_of(root: &Path) -> Option<u64> {
    fs::metadata(root.join("sys/module/nf_conntrack")).ok().map(|meta| meta.ino())
}

/// Reads max, buckets and count below `root`.
pub fn read(root: &Path) -> Result<TableReading, Error> {
    let sysctl = |name: &str| number(root.join(DIRECTORY).join(name));
    Ok(TableReading {
        max: sysctl("nf_conntrack_max")?,
        buckets: sysctl("nf_conntrack_buckets")?,
        count: sysctl("nf_conntrack_count")?,
    })
}

/// A file that holds one unsigned number.
pub(super) fn number(path: PathBuf) -> Result<u64, Error> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(Error::Read { path, source }),
    };
    text.trim().parse().map_err(|_| Error::Content { path, item: format!("not a number: {:?}", text.trim()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(max: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(DIRECTORY)).unwrap();
        for (name, value) in [("max", max), ("buckets", "512\n"), ("count", "7\n")] {
            fs::write(root.path().join(DIRECTORY).join(format!("nf_conntrack_{name}")), value).unwrap();
        }
        root
    }

    #[test]
    fn the_three_sysctls_are_read() {
        let table = read(root("1024\n").path()).unwrap();
        assert_eq!(table, TableReading { max: 1024, buckets: 512, count: 7 });
    }

    #[test]
    fn errors_name_the_file_and_what_it_held() {
        let error = read(root("many\n").path()).unwrap_err().to_string();
        assert!(error.contains("nf_conntrack_max") && error.contains("many"), "{error}");
        let missing = read(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(missing.contains("nf_conntrack_max"), "{missing}");
    }
}
