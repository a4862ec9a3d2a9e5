//! haproxy as the balancer: one process in the gateway's namespace, in front of all backends.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{Error, Family, Shape, Tool};
use crate::ports;

/// What it is, and where it comes from.
pub(super) const HAPROXY: Tool = Tool { program: "haproxy", package: "haproxy" };
/// Until it listens: so many looks.
const LOOKS: u32 = 600;
const LOOK: Duration = Duration::from_millis(50);
/// Connections at a time, as many as the largest load keeps.
const MOST: u32 = 100_000;
/// A connection's state in the kernel's lists (`TCP_LISTEN`, net/tcp_states.h).
const LISTEN: &str = "0A";

/// Starts it in the calling thread's network namespace and returns once it listens. `folder` gets its files, `mark` makes it
/// known as the run's.
pub(super) fn start(shape: Shape, folder: &Path, mark: impl Fn(&mut Command)) -> Result<Child, Error> {
    let (file, log) = (folder.join("haproxy.cfg"), folder.join("haproxy.log"));
    fs::write(&file, configuration(shape)).map_err(|error| Error::file(&file, error))?;
    let to_log = File::create(&log).map_err(|error| Error::file(&log, error))?;
    let mut command = Command::new(HAPROXY.program);
    // In the foreground, so that it is this process's child.
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(to_log);
    mark(&mut command);
    let failed = |output: String| Error::Tool { command: format!("haproxy -db -f {}", file.display()), output };
    let mut child =
        command.spawn().map_err(|error| HAPROXY.missing(&error).unwrap_or_else(|| failed(error.to_string())))?;
    for _ in 0..LOOKS {
        match child.try_wait() {
            Ok(None) if listens(shape.ip)? => return Ok(child),
            Ok(None) => thread::sleep(LOOK),
            Ok(Some(status)) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(failed(format!("{status}: {}", said.trim())));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    // Found by its mark, it is ended with all the rest.
    Err(failed(format!("it does not listen after {LOOKS} looks")))
}

/// What comes in at a port goes to the same port of a backend. It ends no connection by itself: that is the scenario's part.
fn configuration(shape: Shape) -> String {
    let bind = |port: u16| shape.target(port).to_string();
    let range = |first: u16| format!("{}-{}", bind(first), first + ports::LOADS - 1);
    let syns: Vec<String> = (0..ports::LOADS).map(|load| bind(ports::syn(load))).collect();
    let server = |(number, address): (u32, IpAddr)| match address {
        IpAddr::V4(address) => format!("  server s{number} {address}\n"),
        // Its last group would be a port.
        IpAddr::V6(address) => format!("  server s{number} [{address}]\n"),
    };
    let servers: String = (1..).zip(shape.backends()).map(server).collect();
    format!(
        "global\n  maxconn {MOST}\n\
         defaults\n  mode tcp\n  balance roundrobin\n  timeout connect 3s\n  timeout client 1d\n  timeout server 1d\n\
         frontend connections\n  bind {}\n  bind {}\n  default_backend connections\n\
         backend connections\n{servers}\
         frontend requests\n  mode http\n  bind {}\n  default_backend requests\n\
         backend requests\n  mode http\n{servers}",
        range(ports::TCP),
        syns.join(","),
        range(ports::HTTP)
    )
}

/// It binds all ports before it takes in the first connection; these are the last of either frontend.
fn listens(ip: Family) -> Result<bool, Error> {
    let list = match ip {
        Family::Ipv4 => "/proc/thread-self/net/tcp",
        Family::Ipv6 => "/proc/thread-self/net/tcp6",
    };
    let text = fs::read_to_string(list).map_err(|error| Error::file(list, error))?;
    Ok([ports::TCP, ports::HTTP].iter().all(|first| is_listened_to(&text, first + ports::LOADS - 1)))
}

fn is_listened_to(list: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    list.lines().map(str::split_whitespace).any(|mut words| {
        // Number, own address, other's address, state.
        words.nth(1).is_some_and(|own| own.ends_with(&end)) && words.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Kind;

    #[test]
    fn every_port_of_a_load_is_bound_and_every_backend_a_server() {
        let text = configuration(Shape { kind: Kind::Haproxy, ..Shape::default() });
        for line in ["  bind 198.18.0.9:8080-8111\n", "  bind 198.18.0.9:8000-8031\n", "198.18.0.9:8,198.18.0.9:10,"] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(text.matches("  server s16 198.18.64.16\n").count(), 2);
        let six = configuration(Shape { kind: Kind::Haproxy, ip: Family::Ipv6 });
        assert!(
            six.contains("  bind [2001:2:0:4::1]:8080-8111\n") && six.contains("server s1 [2001:2:0:5::1]\n"),
            "{six}"
        );
    }

    #[test]
    fn a_port_is_listened_to_where_a_socket_says_so() {
        let list = "  sl  local_address rem_address   st tx_queue\n   0: 090012C6:1FAF 00000000:0000 0A 00000000\n   \
                    1: 090012C6:1F5F 0200 13C6:1F5F 01 0\n";
        assert!(is_listened_to(list, 8111) && !is_listened_to(list, 8031) && !is_listened_to(list, 8110));
    }
}
