//! Whether the gateway forwards: the kernel's own switches, and what they were before.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Family};

/// Reads and writes the caller's network namespace, as all of /proc/sys/net does.
const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
/// A folder an interface, and two that stand for all of them and for those still to come.
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// What the switches were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forwarding {
    /// `net.ipv4.ip_forward`.
    ip_forward: String,
    /// `net.ipv6.conf.NAME.forwarding` by name; empty without IPv6.
    #[serde(default)]
    ipv6: BTreeMap<String, String>,
}

impl Forwarding {
    /// What they are.
    pub fn read() -> Result<Self, Error> {
        let mut ipv6 = BTreeMap::new();
        let folders = match fs::read_dir(IPV6) {
            Ok(folders) => Some(folders),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file(IPV6, error)),
        };
        for folder in folders.into_iter().flatten() {
            let folder = folder.map_err(|error| Error::file(IPV6, error))?;
            let name = folder.file_name().to_string_lossy().into_owned();
            ipv6.insert(name.clone(), read(&switch(&name))?);
        }
        Ok(Self { ip_forward: read(IPV4)?, ipv6 })
    }

    /// Puts them back. That of all interfaces goes first, since it sets the others; an interface that is gone is none.
    pub fn write(&self) -> Result<(), Error> {
        put(IPV4, &self.ip_forward)?;
        let all = self.ipv6.iter().filter(|(name, _)| *name == "all");
        let others = self.ipv6.iter().filter(|(name, _)| *name != "all");
        for (path, value) in all.chain(others).map(|(name, value)| (switch(name), value)) {
            if Path::new(&path).exists() {
                put(&path, value)?;
            }
        }
        Ok(())
    }
}

/// From now on packets of this family are forwarded.
pub(super) fn on(ip: Family) -> Result<(), Error> {
    put(path(ip), "1")
}

/// The switch of a family; that of IPv6 sets those of all interfaces.
pub(super) fn path(ip: Family) -> &'static str {
    match ip {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

fn switch(name: &str) -> String {
    format!("{IPV6}/{name}/forwarding")
}

fn read(path: &str) -> Result<String, Error> {
    Ok(fs::read_to_string(path).map_err(|error| Error::file(path, error))?.trim().to_owned())
}

/// Writes where that changes something: a write alone can have effects (a new `forwarding` flushes routes).
fn put(path: &str, value: &str) -> Result<(), Error> {
    if read(path)? == value { Ok(()) } else { fs::write(path, value).map_err(|error| Error::file(path, error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_an_older_program_is_still_read() {
        let old: Forwarding = serde_json::from_str(r#"{"ip_forward":"0"}"#).unwrap();
        assert_eq!(old, Forwarding { ip_forward: "0".to_owned(), ipv6: BTreeMap::new() });
    }
}
