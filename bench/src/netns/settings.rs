//! Settings of the gateway that a run writes beside its forwarding, and what they were before.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Kind, Shape, forwarding};

/// Of the kernel's own TCP. Where a small memory limits the sockets in `TIME_WAIT`, the kernel closes them early.
const TIME_WAIT: (&str, &str) = ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "262144");
/// Of IPVS, and there only while its module is.
const VS_CONNTRACK: &str = "/proc/sys/net/ipv4/vs/conntrack";
/// What a freshly loaded module has there.
const VS_DEFAULT: &str = "0";

/// What they were, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Of those that this shape needs otherwise.
    pub fn read(shape: Shape) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        for (path, _) in wanted(shape) {
            let content = match fs::read_to_string(path) {
                Ok(content) => content.trim().to_owned(),
                Err(error) if path == VS_CONNTRACK && error.kind() == ErrorKind::NotFound => VS_DEFAULT.to_owned(),
                Err(error) => return Err(Error::file(path, error)),
            };
            found.insert(path.to_owned(), content);
        }
        Ok(Self(found))
    }

    /// Puts them back; one whose module is gone is none.
    pub fn write(&self) -> Result<(), Error> {
        for (path, content) in self.0.iter().filter(|(path, _)| Path::new(path).exists()) {
            fs::write(path, content).map_err(|error| Error::file(path, error))?;
        }
        Ok(())
    }
}

/// From now on they are as the shape needs them.
pub(super) fn set(shape: Shape) -> Result<(), Error> {
    for (path, value) in wanted(shape) {
        fs::write(path, value).map_err(|error| Error::file(path, error))?;
    }
    Ok(())
}

impl Shape {
    /// Settings of the gateway that a topology of this shape writes, by path.
    pub fn sets(self) -> Vec<&'static str> {
        let forwarding = match self.kind {
            Kind::Gateway { .. } | Kind::Ipvs { .. } => Some(forwarding::path(self.ip)),
            Kind::Host | Kind::Haproxy => None,
        };
        wanted(self).into_iter().map(|(path, _)| path).chain(forwarding).collect()
    }
}

fn wanted(shape: Shape) -> Vec<(&'static str, &'static str)> {
    match shape.kind {
        Kind::Gateway { .. } => Vec::new(),
        Kind::Host | Kind::Haproxy => vec![TIME_WAIT],
        Kind::Ipvs { conntrack } => vec![(VS_CONNTRACK, if conntrack { "1" } else { "0" })],
    }
}
