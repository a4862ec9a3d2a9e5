//! The service's address as a virtual service of IPVS, made with `ipvsadm` as its users do.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Family, Shape, tool};

/// Which packets are of the service, whatever their protocol and port: nftables marks them. "cgb" in ASCII.
const MARK: u32 = 0x0063_6762;
/// Services of this network namespace.
const SERVICES: &str = "/proc/thread-self/net/ip_vs";
const MODULE: &str = "/sys/module/ip_vs";
/// The scheduler and what it needs, in the order in which they go.
const MODULES: [&str; 2] = ["ip_vs_rr", "ip_vs"];

/// What the run needs to know to take it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ipvs {
    /// Whether the module was there before: then it stays, and with it the settings below net.ipv4.vs.
    loaded: bool,
    /// Whether the service speaks IPv6.
    ipv6: bool,
}

impl Ipvs {
    /// What there was before.
    pub fn read(shape: Shape) -> Self {
        Self { loaded: Path::new(MODULE).exists(), ipv6: shape.ip == Family::Ipv6 }
    }

    /// Deletes the service, if it is there. A module that the run loaded goes too, and with it the connections that IPVS
    /// still knows; where it was there before they end at their timeouts.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::read_to_string(SERVICES) {
            Ok(services) if services.lines().any(is_ours) => {
                tool::ipvsadm(&format!("-D -f {MARK}{}\n", self.option()))?;
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file(SERVICES, error)),
            _ => {}
        }
        if self.loaded || !Path::new(MODULE).exists() {
            return Ok(());
        }
        match tool::rmmod(&MODULES) {
            // Somebody else has taken to it since.
            Err(Error::Tool { output, .. }) if output.contains("in use") => Ok(()),
            outcome => outcome,
        }
    }

    fn option(&self) -> &'static str {
        option(self.ipv6)
    }
}

/// Loads the module, without which there are no settings to write.
pub(super) fn load() -> Result<(), Error> {
    if Path::new(MODULE).exists() { Ok(()) } else { tool::modprobe(&["-a", MODULES[1], MODULES[0]]) }
}

/// Makes the service, in the calling thread's network namespace; `table` is the run's own of nftables.
pub(super) fn serve(table: &str, shape: Shape) -> Result<(), Error> {
    tool::nft(&marking(table, shape))?;
    tool::ipvsadm(&services(shape))
}

/// A service by its mark: one for all protocols and ports, and the backends take the port that the client asked for.
fn services(shape: Shape) -> String {
    let option = option(shape.ip == Family::Ipv6);
    let mut script = format!("-A -f {MARK}{option} -s rr\n");
    for backend in shape.backends() {
        // Writing to a String cannot fail.
        let _ = writeln!(script, "-a -f {MARK}{option} -r {} -m", SocketAddr::from((backend, 0)));
    }
    script
}

fn marking(table: &str, shape: Shape) -> String {
    let (family, service) = (shape.ip.nft(), shape.target(0).ip());
    format!(
        "table inet {table} {{\n\
         chain service {{\n\
         type filter hook prerouting priority mangle; policy accept;\n\
         {family} daddr {service} meta mark set {MARK}\n\
         }}\n\
         }}\n"
    )
}

fn option(ipv6: bool) -> &'static str {
    if ipv6 { " -6" } else { "" }
}

/// A line of [`SERVICES`].
fn is_ours(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("FWM") && words.next().and_then(|mark| u32::from_str_radix(mark, 16).ok()) == Some(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Kind;

    #[test]
    fn a_service_of_either_family_has_all_backends() {
        let script = |ip| services(Shape { ip, kind: Kind::Ipvs { conntrack: true } });
        let four = script(Family::Ipv4);
        assert!(four.starts_with("-A -f 6514530 -s rr\n-a -f 6514530 -r 198.18.64.1:0 -m\n"), "{four}");
        assert_eq!(four.lines().count(), 17);
        assert!(script(Family::Ipv6).contains("-a -f 6514530 -6 -r [2001:2:0:5::10]:0 -m\n"));
    }

    #[test]
    fn only_the_services_own_mark_is_ours() {
        assert!(is_ours("FWM  00636762 rr"));
        for line in ["FWM  00000001 rr", "TCP  C6120009:1F90 rr", "  -> C6124001:0000      Masq    1      0          0"]
        {
            assert!(!is_ours(line), "{line}");
        }
    }
}
