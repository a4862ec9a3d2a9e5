//! Makes the namespaces, links, routes and rules, and takes them away.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Child, Command};

use super::address::{BACKENDS, Link};
use super::journal::{Journal, Record};
use super::{Error, Family, Kind, Namespace, Shape, forwarding, haproxy, ipvs, settings, tool};

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` in the masks of `/proc/PID/status` (linux/capability.h).
const NEEDED_CAPABILITIES: u64 = 1 << 12 | 1 << 21;

/// The two namespaces around the caller's, until it is dropped.
#[derive(Debug)]
pub struct Topology {
    clients: Namespace,
    servers: Namespace,
    shape: Shape,
    made: Made,
    leftovers: Vec<String>,
}

impl Topology {
    /// Makes the topology over IPv4 without NAT.
    pub fn create() -> Result<Self, Error> {
        Self::shaped(Shape::default())
    }

    /// Makes the topology around the network namespace of the calling thread, after removing what killed runs left.
    pub fn shaped(shape: Shape) -> Result<Self, Error> {
        check_permission()?;
        let (journal, record, leftovers) = Journal::open(shape)?;
        // From here on, an error takes away what was made so far.
        let made = Made { journal, record, haproxy: None, removed: false };
        let clients = apart(&made.record.clients(), shape.ip)?;
        attach(&clients, &made.record.to_clients(), &shape.to_clients(), shape.ip)?;
        let servers = if shape.kind.serves_itself() {
            Namespace::own("the gateway")?
        } else {
            let servers = apart(&made.record.servers(), shape.ip)?;
            attach(&servers, &made.record.to_servers(), &shape.to_servers(), shape.ip)?;
            servers
        };
        tool::nft(&rules(&made.record.id))?;
        let mut topology = Self { clients, servers, shape, made, leftovers };
        topology.arrange()?;
        Ok(topology)
    }

    /// What the gateway does with what the clients send.
    fn arrange(&mut self) -> Result<(), Error> {
        let Self { shape, made: Made { record, haproxy, .. }, .. } = self;
        if matches!(shape.kind, Kind::Ipvs { .. }) {
            ipvs::load()?;
        }
        settings::set(*shape)?;
        match shape.kind {
            // What is taken in is not forwarded.
            Kind::Host => return Ok(()),
            Kind::Haproxy => {
                take_in_service(record, *shape)?;
                *haproxy = Some(haproxy::start(*shape, &record.folder()?, |command| record.mark(command))?);
                return Ok(());
            }
            Kind::Gateway { nat: false } => {}
            Kind::Gateway { nat: true } => tool::nft(&translation(record, *shape))?,
            Kind::Ipvs { .. } => {
                take_in_service(record, *shape)?;
                ipvs::serve(&record.id, *shape)?;
            }
        }
        forwarding::on(shape.ip)
    }

    /// Where the connections start. It tracks nothing.
    pub fn clients(&self) -> &Namespace {
        &self.clients
    }

    /// Where they are answered. It tracks nothing.
    pub fn servers(&self) -> &Namespace {
        &self.servers
    }

    /// What it is like, and who has which address.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A folder for files of programs that are part of the run. It goes with it.
    pub(crate) fn folder(&self) -> Result<PathBuf, Error> {
        self.made.record.folder()
    }

    /// Makes what `command` starts known as part of the run, which does not survive it.
    pub(crate) fn mark(&self, command: &mut Command) {
        self.made.record.mark(command);
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
    /// Where it balances; ended by its mark like all programs of the run.
    haproxy: Option<Child>,
    removed: bool,
}

impl Made {
    fn remove(&mut self) -> Result<(), Error> {
        self.removed = true;
        self.record.remove()?;
        if let Some(haproxy) = &mut self.haproxy {
            haproxy.wait().map_err(|error| Error::file("haproxy", error))?;
        }
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
fn tune(ip: Family) -> Result<(), Error> {
    let tcp = [("tcp_max_tw_buckets", "262144"), ("ip_local_port_range", "1024 65535")];
    for (name, value) in tcp.map(|(name, value)| (format!("/proc/sys/net/ipv4/{name}"), value)) {
        write(&name, value)?;
    }
    if ip == Family::Ipv6 {
        // As AnyIP needs it: sockets are bound to addresses that no interface has.
        write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1")?;
    }
    quiet("default", ip)
}

/// There are no packets but the run's own. `interface`: a name, or "default" for those still to come.
fn quiet(interface: &str, ip: Family) -> Result<(), Error> {
    let setting = |name: &str, value: &str| write(&format!("/proc/sys/net/ipv6/conf/{interface}/{name}"), value);
    match ip {
        // No router is asked, and no address looked for on the link before it is used: nothing could be sent meanwhile.
        Family::Ipv6 => {
            for (name, value) in [("accept_ra", "0"), ("router_solicitations", "0"), ("accept_dad", "0")] {
                setting(name, value)?;
            }
            Ok(())
        }
        Family::Ipv4 => match setting("disable_ipv6", "1") {
            // A kernel without IPv6.
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        },
    }
}

fn write(path: &str, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(|error| Error::file(path, error))
}

/// A namespace of this name, made as `ip netns` makes them.
fn apart(name: &str, ip: Family) -> Result<Namespace, Error> {
    tool::ip(&["netns", "add", name])?;
    let namespace = Namespace::open(name)?;
    namespace.run(|| tune(ip))??;
    Ok(namespace)
}

/// Joins a namespace to the gateway, in which the link has this name.
fn attach(namespace: &Namespace, name: &str, link: &Link, ip: Family) -> Result<(), Error> {
    let there = namespace.name();
    let (version, nodad) = version(ip);
    let Link { gateway, other, prefix, behind } = link;
    tool::ip(&["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", there])?;
    quiet(name, ip)?;
    tool::ip_batch(
        &["-n", there, version],
        &format!(
            "link set lo up\n\
             address add {other}/{prefix} dev eth0{nodad}\n\
             link set eth0 up\n\
             route add default via {gateway}\n\
             route add local {behind} dev lo\n"
        ),
    )?;
    tool::ip_batch(
        &[version],
        &format!(
            "address add {gateway}/{prefix} dev {name}{nodad}\n\
             link set {name} up\n\
             route add {behind} via {other}\n"
        ),
    )
}

/// The option of `ip` for a family, and what an address is added with: no other host is asked whether it has it.
fn version(ip: Family) -> (&'static str, &'static str) {
    match ip {
        Family::Ipv4 => ("-4", ""),
        Family::Ipv6 => ("-6", " nodad"),
    }
}

/// Gives the gateway the service's address: what comes to it is taken in. It goes with its link.
fn take_in_service(record: &Record, shape: Shape) -> Result<(), Error> {
    let (version, nodad) = version(shape.ip);
    let (service, to_clients) = (shape.target(0).ip(), record.to_clients());
    tool::ip_batch(&[version], &format!("address add {service} dev {to_clients}{nodad}\n"))
}

/// What is sent to the service goes to a backend that the kernel picks by source, and comes from the gateway.
fn translation(record: &Record, shape: Shape) -> String {
    let (table, to_servers) = (&record.id, record.to_servers());
    let (family, service, (first, last)) =
        (shape.ip.nft(), shape.target(0).ip(), (shape.backend(1), shape.backend(BACKENDS)));
    format!(
        "table inet {table} {{\n\
         chain prerouting {{\n\
         type nat hook prerouting priority dstnat; policy accept;\n\
         {family} daddr {service} dnat {family} to {first}-{last}\n\
         }}\n\
         chain postrouting {{\n\
         type nat hook postrouting priority srcnat; policy accept;\n\
         oifname \"{to_servers}\" masquerade\n\
         }}\n\
         }}\n"
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

/// Whether namespaces, links and rules may be made here: says it at once and in one place, before anything was made.
pub fn check_permission() -> Result<(), Error> {
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
