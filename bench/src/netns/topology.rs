//! Makes the namespaces, links, routes and rules, and takes them away.

use std::fs;
use std::io::ErrorKind;

use super::address::{Addresses, CLIENTS, GATEWAY_TO_CLIENTS, GATEWAY_TO_SERVERS, LINK_PREFIX, SERVER, SOURCES};
use super::journal::{self, Journal, Record};
use super::{Error, Namespace, tool};

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` in the masks of `/proc/PID/status` (linux/capability.h).
const NEEDED_CAPABILITIES: u64 = 1 << 12 | 1 << 21;

/// The two namespaces around the caller's, until it is dropped.
#[derive(Debug)]
pub struct Topology {
    clients: Namespace,
    servers: Namespace,
    made: Made,
    leftovers: Vec<String>,
}

impl Topology {
    /// Makes the topology around the network namespace of the calling thread, after removing what killed runs left.
    pub fn create() -> Result<Self, Error> {
        check_permission()?;
        let (journal, record, leftovers) = Journal::open()?;
        // From here on, an error takes away what was made so far.
        let made = Made { journal, record, removed: false };
        for name in [made.record.clients(), made.record.servers()] {
            tool::ip(&["netns", "add", &name])?;
        }
        let clients = Namespace::open(&made.record.clients())?;
        let servers = Namespace::open(&made.record.servers())?;
        for namespace in [&clients, &servers] {
            namespace.run(tune)??;
        }
        connect(&made.record)?;
        tool::nft(&rules(&made.record.id))?;
        journal::set_ip_forward("1")?;
        Ok(Self { clients, servers, made, leftovers })
    }

    /// Where the connections start. It tracks nothing.
    pub fn clients(&self) -> &Namespace {
        &self.clients
    }

    /// Where they are answered. It tracks nothing.
    pub fn servers(&self) -> &Namespace {
        &self.servers
    }

    /// Who has which address.
    pub fn addresses(&self) -> Addresses {
        Addresses::new()
    }

    /// One line about each killed run whose leftovers were found: what was removed, or how to.
    pub fn leftovers(&self) -> &[String] {
        &self.leftovers
    }

    /// Takes everything away and says whether that worked. Dropping does the same and prints what did not.
    pub fn remove(mut self) -> Result<(), Error> {
        self.made.remove()
    }
}

/// What is there to be taken away.
#[derive(Debug)]
struct Made {
    record: Record,
    journal: Journal,
    removed: bool,
}

impl Made {
    fn remove(&mut self) -> Result<(), Error> {
        self.removed = true;
        self.record.remove()?;
        self.journal.close()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("{}: left behind: {error}; the next run tries again", self.record.id);
        }
    }
}

/// Many connections a second leave many `TIME_WAIT` sockets. Where a small memory limits their number, the kernel
/// closes such sockets early and answers the peer's last packets with a reset, which would end entries before their time.
fn tune() -> Result<(), Error> {
    for (path, value) in
        [("/proc/sys/net/ipv4/tcp_max_tw_buckets", "262144"), ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")]
    {
        fs::write(path, value).map_err(|error| Error::file(path, error))?;
    }
    disable_ipv6("default")
}

/// Without IPv6 there are no packets but the run's own. `interface`: a name, or "default" for those still to come.
fn disable_ipv6(interface: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    match fs::write(&path, "1") {
        // A kernel without IPv6.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|error| Error::file(path, error)),
    }
}

fn connect(record: &Record) -> Result<(), Error> {
    let (clients, servers) = (record.clients(), record.servers());
    let (to_clients, to_servers) = (record.to_clients(), record.to_servers());
    tool::ip_batch(
        &[],
        &format!(
            "link add {to_clients} type veth peer name eth0 netns {clients}\n\
             link add {to_servers} type veth peer name eth0 netns {servers}\n"
        ),
    )?;
    disable_ipv6(&to_clients)?;
    disable_ipv6(&to_servers)?;
    for (namespace, address, gateway) in
        [(&clients, CLIENTS, GATEWAY_TO_CLIENTS), (&servers, SERVER, GATEWAY_TO_SERVERS)]
    {
        let any_ip = if *namespace == clients { format!("route add local {SOURCES} dev lo\n") } else { String::new() };
        tool::ip_batch(
            &["-n", namespace],
            &format!(
                "link set lo up\n\
                 address add {address}/{LINK_PREFIX} dev eth0\n\
                 link set eth0 up\n\
                 route add default via {gateway}\n\
                 {any_ip}"
            ),
        )?;
    }
    tool::ip_batch(
        &[],
        &format!(
            "address add {GATEWAY_TO_CLIENTS}/{LINK_PREFIX} dev {to_clients}\n\
             address add {GATEWAY_TO_SERVERS}/{LINK_PREFIX} dev {to_servers}\n\
             link set {to_clients} up\n\
             link set {to_servers} up\n\
             route add {SOURCES} via {CLIENTS}\n"
        ),
    )
}

/// A rule that asks for the state is what makes the kernel track in a namespace, also what the chain does not see.
pub(super) fn rules(table: &str) -> String {
    format!(
        "table inet {table} {{\n\
         chain forward {{\n\
         type filter hook forward priority filter; policy accept;\n\
         ct state established,related accept\n\
         ct state new accept\n\
         }}\n\
         }}\n"
    )
}

/// Says it at once and in one place, before anything was made.
fn check_permission() -> Result<(), Error> {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    if effective_capabilities(&status) & NEEDED_CAPABILITIES == NEEDED_CAPABILITIES {
        return Ok(());
    }
    Err(Error::NotPermitted { what: "making network namespaces".to_owned() })
}

fn effective_capabilities(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_mask() {
        assert_eq!(effective_capabilities("CapPrm:\t0000000000000001\nCapEff:\t0000000000201000\n"), 1 << 12 | 1 << 21);
        assert_eq!(effective_capabilities("Name:\tx\n"), 0);
    }
}
