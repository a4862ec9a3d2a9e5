//! The ring's events, as the kernel half wrote them; told apart by their size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use guard_ebpf::{Refused, Resize};

use crate::observe::memory::buckets_in_a_page;
use crate::observe::{RefusedFlow, ResizeEvent};

/// A resize; `None` if it is another event.
pub fn resize(bytes: &[u8]) -> Option<ResizeEvent> {
    if bytes.len() != size_of::<Resize>() {
        return None;
    }
    // SAFETY: as long as the struct, any bytes are a valid value of it, and the read does not want alignment.
    let event = unsafe { bytes.as_ptr().cast::<Resize>().read_unaligned() };
    let known = |buckets: u32| (buckets != 0).then_some(u64::from(buckets));
    let comm = event.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(ResizeEvent {
        at: Duration::from_nanos(event.at),
        took: Duration::from_nanos(event.took),
        pid: event.pid,
        comm: String::from_utf8_lossy(comm).into_owned(),
        cgroup: event.cgroup,
        from: known(event.from),
        to: known(event.to).or(known(event.asked).map(rounded)),
        result: event.result,
    })
}

/// What the kernel makes of a size that is asked for.
fn rounded(buckets: u64) -> u64 {
    buckets.next_multiple_of(buckets_in_a_page())
}

/// A sample of refused flows; `None` if it is another event.
pub fn refused(bytes: &[u8]) -> Option<RefusedFlow> {
    if bytes.len() != size_of::<Refused>() {
        return None;
    }
    // SAFETY: as above.
    let event = unsafe { bytes.as_ptr().cast::<Refused>().read_unaligned() };
    let [a, b, c, d, ..] = event.source;
    let source = if i32::from(event.family) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(event.source))
    };
    Some(RefusedFlow {
        source,
        protocol: event.protocol,
        destination_port: u16::from_be(event.destination),
        namespace: event.inum,
        stands_for: event.stands_for,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: Copy>(value: T) -> Vec<u8> {
        // SAFETY: a plain struct without padding, read as the bytes it is made of.
        unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) }.to_vec()
    }

    fn sample(source: [u8; 16], family: i32) -> Refused {
        let family = u16::try_from(family).unwrap();
        let destination = 443_u16.to_be();
        Refused { source, stands_for: 7, inum: 4_026_531_840, destination, family, protocol: 6, unused: [0; 7] }
    }

    #[test]
    fn a_refused_flow_tells_where_it_came_from() {
        let mut source = [0; 16];
        source[..4].copy_from_slice(&[198, 19, 0, 7]);
        let flow = refused(&bytes(sample(source, libc::AF_INET))).unwrap();
        assert_eq!((flow.source.to_string().as_str(), flow.destination_port, flow.stands_for), ("198.19.0.7", 443, 7));
        source[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        let flow = refused(&bytes(sample(source, libc::AF_INET6))).unwrap();
        assert_eq!(flow.source.to_string(), "2001:db8::");
    }

    #[test]
    fn events_are_told_apart_and_what_is_neither_is_neither() {
        let flow = bytes(sample([0; 16], libc::AF_INET));
        assert!(resize(&flow).is_none());
        for length in 0..flow.len() {
            assert!(refused(&flow[..length]).is_none() && resize(&flow[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_resize_without_the_tables_address_tells_what_the_kernel_made_of_what_was_asked_for() {
        let mut comm = [0; 16];
        comm[..6].copy_from_slice(b"sysctl");
        let (at, took, cgroup) = (5_000_000_000, 20_000_000, 1);
        let event = Resize { at, took, cgroup, from: 0, to: 0, asked: 4_095, pid: 9, result: 0, unused: 0, comm };
        let event = resize(&bytes(event)).unwrap();
        assert_eq!((event.from, event.to, event.comm.as_str()), (None, Some(rounded(4_095)), "sysctl"));
        assert!(rounded(4_095) >= 4_096 && rounded(4_096).is_multiple_of(512), "pages are 4 KiB or larger");
    }
}
