//! Balancers in the gateway's place.

use std::collections::BTreeSet;

use super::{in_state, ipvs, near, run};

/// How many of the servers took part.
fn servers(entries: &[String]) -> usize {
    let servers = entries.iter().filter_map(|entry| entry.split(" src=").nth(2)?.split(' ').next());
    let ours = |server: &&str| server.starts_with("198.18.64.") || server.starts_with("2001:2:0:5:");
    servers.filter(ours).collect::<BTreeSet<_>>().len()
}

#[test]
fn ipvs_balances_over_all_servers_and_its_connections_are_entries_only_where_it_is_asked() {
    for (ip, conntrack, service) in
        [("ipv4", true, "dst=198.18.0.9 "), ("ipv4", false, ""), ("ipv6", true, "dst=2001:2:0:4::1 ")]
    {
        let text = format!(
            "duration = \"3s\"\ntopology = {{ ip = \"{ip}\", kind = \"ipvs\", conntrack = {conntrack} }}\n\
             [[load]]\nkind = \"tcp\"\nrate = 50\n[[load]]\nkind = \"udp\"\nrate = 50\n\
             [[load]]\nkind = \"syn\"\nanswered = false\nrate = 20"
        );
        run(&text, |_, outcome, entries| {
            assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
            near(outcome.all.made, 3.0 * 120.0);
            assert_eq!(ipvs(), (true, 1));
            if conntrack {
                assert_eq!(entries.len() as u64, outcome.all.made, "{entries:?}");
                assert!(entries.iter().all(|entry| entry.contains(service)), "{entries:?}");
                assert_eq!(servers(entries), 16, "{entries:?}");
            } else {
                assert_eq!(entries, [""; 0]);
            }
        });
    }
}

#[test]
fn through_haproxy_a_connection_is_two_entries_and_wrk_is_answered() {
    for ip in ["ipv4", "ipv6"] {
        let text = format!(
            "duration = \"3s\"\ntopology = {{ ip = \"{ip}\", kind = \"haproxy\" }}\n[[load]]\nkind = \"tcp\"\nrate = 30\n\
             [[load]]\nkind = \"tcp\"\nrate = 10\nend = \"half-closed\"\nhold = \"1s\"\n\
             [[load]]\nkind = \"syn\"\nrate = 20\n[[load]]\nkind = \"wrk\"\nclients = 2\nduration = \"2s\""
        );
        run(&text, |_, outcome, entries| {
            assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
            let [first, half, syns, wrk] = [0, 1, 2, 3].map(|number: usize| outcome.loads[number].outcome.made);
            near(first + half + syns, 3.0 * 60.0);
            // A closed loop: how many depends on the machine.
            assert!(wrk > 0, "{outcome:?}");
            assert!(outcome.loads[3].outcome.request.count() >= wrk);
            assert_eq!(in_state(entries, "SYN_RECV"), syns);
            assert_eq!(servers(entries), 16, "{entries:?}");
            let of = |ports: &[&str]| {
                entries.iter().filter(|entry| ports.iter().any(|port| entry.contains(port))).count() as u64
            };
            assert_eq!(of(&[" dport=8080 ", " dport=8081 "]), 2 * (first + half), "{entries:?}");
            assert!(of(&[" dport=8003 "]) >= 2 * wrk, "{entries:?}");
        });
    }
}
