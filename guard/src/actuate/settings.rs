//! The kernel's files: how a setting is read and written. The only code that opens them for writing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::observe::{Timeout, memory, table};
use crate::policy::Setting;

/// Below the root directory: the boot's identity.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
const COUNT: &str = "proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "proc/sys/net/netfilter/nf_conntrack_buckets";
/// The module's parameter of the same name and effect (`nf_conntrack_set_hashsize`); root alone may read it.
pub(super) const HASHSIZE: &str = "sys/module/nf_conntrack/parameters/hashsize";

/// Reading or writing a kernel file failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system call failed.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// "read" or "write".
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Two files lead to the setting, and neither could be written: what each said.
    #[error("{0}; and {1}")]
    Neither(Box<Error>, Box<Error>),
    /// The file holds no number.
    #[error("{path} reads {text:?}, which is no number")]
    Number {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
}

impl Error {
    /// What the operator can do about it.
    pub fn way_out(&self) -> &'static str {
        let source = match self {
            Self::Io { source, .. } => source,
            // The second may be closed for a reason of its own, and either would do.
            Self::Neither(first, _) => return first.way_out(),
            Self::Number { .. } => {
                return "this kernel's file is not what it was up to now: please report it with the kernel's version";
            }
        };
        match source.raw_os_error() {
            Some(libc::EROFS) => {
                "/proc/sys is mounted read-only here: run the guard privileged (Kubernetes: securityContext.privileged)"
            }
            Some(libc::EACCES | libc::EPERM) => {
                "run the guard as root, in the host's network namespace, with no profile (SELinux, AppArmor, a cgroup's \
                 sysctl program) that forbids the write"
            }
            Some(libc::ENOMEM) => {
                "the kernel found no memory for a hash table of this size: lower hash.buckets.ceiling"
            }
            Some(libc::ENOENT) => "nf_conntrack is not loaded any more: `modprobe nf_conntrack`",
            _ => "the kernel refuses this value: keep the bounds of this setting away from it",
        }
    }

    /// The error and the way out, as one line for people.
    pub fn with_way_out(&self) -> String {
        format!("{self}; {}", self.way_out())
    }

    /// Whether the kernel has no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether another file for the same setting may do: the file is missing or closed to us, the value is not at fault.
    fn is_about_the_file(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM | libc::ENOENT))
    }
}

/// The conntrack settings of the kernel whose proc and sysfs are mounted below a root directory.
#[derive(Clone, Debug)]
pub struct Settings {
    root: PathBuf,
}

impl Settings {
    /// `root` is `/` but in tests.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The value in force.
    pub fn read(&self, setting: Setting) -> Result<u64, Error> {
        match setting {
            Setting::Max => self.number(MAX),
            Setting::Buckets => self.number(BUCKETS).or_else(|first| self.number(HASHSIZE).map_err(|_| first)),
            Setting::Timeout(timeout) => self.number(&timeout_path(timeout)),
        }
    }

    /// Every setting that this kernel has, with its value.
    pub fn all(&self) -> Result<Vec<(Setting, u64)>, Error> {
        let mut all = vec![(Setting::Max, self.read(Setting::Max)?), (Setting::Buckets, self.read(Setting::Buckets)?)];
        for setting in Timeout::ALL.map(Setting::Timeout) {
            match self.read(setting) {
                Err(error) if error.is_missing() => {}
                read => all.push((setting, read?)),
            }
        }
        Ok(all)
    }

    /// `nf_conntrack_count`: entries of this network namespace now.
    pub fn count(&self) -> Result<u64, Error> {
        self.number(COUNT)
    }

    /// The identity of this boot.
    pub fn boot_id(&self) -> Result<String, Error> {
        self.text(BOOT_ID)
    }

    /// Writes a setting. Returns once the kernel has carried it out: for buckets after the whole rehash.
    pub(super) fn write(&self, setting: Setting, value: u64) -> Result<(), Error> {
        #[cfg(test)]
        step(Moment::Writing(setting, value))?;
        self.put_into(setting, value)?;
        #[cfg(test)]
        step(Moment::Written(setting, value))?;
        Ok(())
    }

    fn put_into(&self, setting: Setting, value: u64) -> Result<(), Error> {
        match setting {
            Setting::Max => self.put(MAX, value),
            // Containers often have /proc/sys read-only and /sys writable, or the other way round.
            Setting::Buckets => match self.put(BUCKETS, value) {
                Err(first @ Error::Io { .. }) if first.is_about_the_file() => {
                    self.put(HASHSIZE, value).map_err(|second| Error::Neither(first.into(), second.into()))
                }
                other => other,
            },
            Setting::Timeout(timeout) => self.put(&timeout_path(timeout), value),
        }
    }

    fn number(&self, path: &str) -> Result<u64, Error> {
        let text = self.text(path)?;
        text.parse().map_err(|_| Error::Number { path: self.root.join(path), text })
    }

    fn text(&self, path: &str) -> Result<String, Error> {
        let path = self.root.join(path);
        let text = fs::read_to_string(&path).map_err(|source| Error::Io { verb: "read", path, source })?;
        Ok(text.trim().into())
    }

    fn put(&self, path: &str, value: u64) -> Result<(), Error> {
        let path = self.root.join(path);
        // One write call: the kernel takes a sysctl's value from the first.
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.to_string().as_bytes()))
            .map_err(|source| Error::Io { verb: "write", path, source })
    }
}

fn timeout_path(timeout: Timeout) -> String {
    format!("{}/{}", table::DIRECTORY, timeout.sysctl())
}

/// Whether `read` is what the kernel makes of `written`: buckets are rounded up to a whole page of list heads.
pub(super) fn takes(setting: Setting, written: u64, read: u64) -> bool {
    match setting {
        Setting::Max | Setting::Timeout(_) => read == written,
        Setting::Buckets => read >= written && read - written < memory::buckets_in_a_page(),
    }
}

#[cfg(test)]
use super::testing::{Moment, moment};

#[cfg(test)]
fn step(step: Moment) -> Result<(), Error> {
    moment(step).map_err(|source| Error::Io { verb: "write", path: "(a test's doing)".into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actuate::testing::FakeKernel;

    #[test]
    fn buckets_fall_back_to_the_module_parameter() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        fs::remove_file(kernel.path(BUCKETS)).unwrap();
        let settings = kernel.settings();
        assert_eq!(settings.read(Setting::Buckets).unwrap(), 16384);
        settings.write(Setting::Buckets, 32768).unwrap();
        assert_eq!(fs::read_to_string(kernel.path(HASHSIZE)).unwrap(), "32768");
        assert!(!kernel.path(BUCKETS).exists(), "a missing kernel file must not be made");
    }

    #[test]
    fn a_refusal_names_file_and_way_out() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        kernel.make_read_only(MAX);
        let error = kernel.settings().write(Setting::Max, 1).unwrap_err();
        assert!(error.to_string().contains("nf_conntrack_max"), "{error}");
        assert!(error.way_out().contains("as root"), "{}", error.way_out());
    }

    #[test]
    fn what_is_no_number_is_named() {
        let kernel = FakeKernel::new(65536, 16384, 10);
        fs::write(kernel.path(COUNT), "many\n").unwrap();
        assert!(kernel.settings().count().unwrap_err().to_string().ends_with("reads \"many\", which is no number"));
    }

    #[test]
    fn rounding_up_to_a_page_is_taken_rounding_down_is_not() {
        assert!(takes(Setting::Buckets, 1000, 1024));
        assert!(!takes(Setting::Buckets, 1024, 1000));
        assert!(!takes(Setting::Buckets, 1000, 1000 + memory::buckets_in_a_page()));
        assert!(!takes(Setting::Max, 1000, 1024));
    }
}
