//! Kinds of flows: what their packets do to their entries.

use conntrack_guard::observe::Timeout;

/// One kind of flow, as a way through states.
#[derive(Clone, Debug)]
pub struct Flow {
    /// For messages.
    pub name: &'static str,
    /// The states; a new flow enters the first.
    pub phases: Vec<Phase>,
    /// Addresses that such flows come from.
    pub sources: f64,
    /// The share of these flows whose first two packets meet in `nf_ct_resolve_clash`.
    pub clashes: f64,
}

/// The time that an entry spends in one state.
#[derive(Clone, Debug)]
pub struct Phase {
    /// The timeout that its packets set.
    pub state: Timeout,
    /// `IPS_SEEN_REPLY`
    pub replied: bool,
    /// `IPS_ASSURED`
    pub assured: bool,
    /// Seconds between the packets that keep it here; `None`: no packet comes until it goes on.
    pub every: Option<f64>,
    /// How it goes on; the shares sum to 1.
    pub exits: Vec<Exit>,
}

/// One way on.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The share of the entries that take it.
    pub share: f64,
    /// Seconds after it came here; infinite: never.
    pub after: f64,
    /// Where to.
    pub to: To,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Another phase of this flow, by its place.
    Phase(usize),
    /// No more packets: the entry expires.
    Silence,
    /// The kernel kills the entry at once (`nf_ct_kill`).
    Freed,
}

impl Phase {
    fn new(state: Timeout, exits: Vec<Exit>) -> Self {
        Self { state, replied: true, assured: false, every: None, exits }
    }

    fn unreplied(self) -> Self {
        Self { replied: false, ..self }
    }

    fn assured(self) -> Self {
        Self { assured: true, ..self }
    }

    fn every(self, seconds: f64) -> Self {
        Self { every: Some(seconds), ..self }
    }
}

/// All go the same way.
fn all(after: f64, to: To) -> Vec<Exit> {
    vec![Exit { share: 1.0, after, to }]
}

fn silent() -> Vec<Exit> {
    all(f64::INFINITY, To::Silence)
}

/// After exponentially distributed times: the middles of four equal parts, scaled so that the mean is kept.
fn exponential(mean: f64, to: To) -> Vec<Exit> {
    [0.1457, 0.5131, 1.0708, 2.2704].map(|part| Exit { share: 0.25, after: mean * part, to }).to_vec()
}

/// A TCP connection from SYN to TIME_WAIT: open for `open` seconds on average, with a packet every `every` seconds. The
/// share `reset` ends in a RST.
pub fn tcp(open: f64, every: f64, reset: f64) -> Flow {
    let round_trip = 0.02;
    let mut ends = exponential(open, To::Phase(3));
    if reset > 0.0 {
        for end in &mut ends {
            end.share *= 1.0 - reset;
        }
        ends.push(Exit { share: reset, after: open, to: To::Phase(7) });
    }
    Flow {
        name: "tcp",
        phases: vec![
            Phase::new(Timeout::TcpSynSent, all(round_trip / 2.0, To::Phase(1))).unreplied(),
            Phase::new(Timeout::TcpSynRecv, all(round_trip / 2.0, To::Phase(2))),
            Phase::new(Timeout::TcpEstablished, ends).assured().every(every),
            Phase::new(Timeout::TcpFinWait, all(round_trip, To::Phase(4))).assured(),
            Phase::new(Timeout::TcpCloseWait, all(round_trip, To::Phase(5))).assured(),
            Phase::new(Timeout::TcpLastAck, all(round_trip, To::Phase(6))).assured(),
            Phase::new(Timeout::TcpTimeWait, silent()).assured(),
            Phase::new(Timeout::TcpClose, silent()).assured(),
        ],
        sources: 5_000.0,
        clashes: 0.0,
    }
}

/// A connection whose client goes away without a word: ESTABLISHED until it expires, five days as the kernel has it.
pub fn abandoned() -> Flow {
    let mut flow = tcp(1.0, 1.0, 0.0);
    flow.name = "abandoned";
    flow.phases.truncate(3);
    flow.phases[2].exits = silent();
    flow.phases[2].every = None;
    flow
}

/// A SYN to a closed port: the RST that answers it takes the entry away.
pub fn refused_tcp() -> Flow {
    Flow {
        name: "refused-tcp",
        phases: vec![Phase::new(Timeout::TcpSynSent, all(0.02, To::Freed)).unreplied()],
        sources: 500.0,
        clashes: 0.0,
    }
}

/// A SYN to where nobody answers, from any address.
pub fn syn_flood() -> Flow {
    Flow {
        name: "syn-flood",
        phases: vec![Phase::new(Timeout::TcpSynSent, silent()).unreplied()],
        sources: 1e9,
        clashes: 0.0,
    }
}

/// A SYN from an address that is not the sender's to a server that answers: SYN_RECV, refreshed by the server's tries.
pub fn answered_syn_flood() -> Flow {
    Flow {
        name: "answered-syn-flood",
        phases: vec![
            Phase::new(Timeout::TcpSynSent, all(0.01, To::Phase(1))).unreplied(),
            Phase::new(Timeout::TcpSynRecv, all(31.0, To::Silence)).every(8.0),
        ],
        sources: 1e9,
        clashes: 0.0,
    }
}

/// A datagram to one port after the other, from few addresses.
pub fn udp_scan() -> Flow {
    Flow { name: "udp-scan", phases: vec![Phase::new(Timeout::Udp, silent()).unreplied()], sources: 3.0, clashes: 0.0 }
}

/// A question and its answer; two questions (A and AAAA) of one socket meet now and then.
pub fn dns() -> Flow {
    Flow {
        name: "dns",
        phases: vec![Phase::new(Timeout::Udp, all(0.02, To::Phase(1))).unreplied(), Phase::new(Timeout::Udp, silent())],
        sources: 2_000.0,
        clashes: 0.002,
    }
}

/// Datagrams both ways: a call, a game, QUIC.
pub fn udp_stream(open: f64) -> Flow {
    Flow {
        name: "udp-stream",
        phases: vec![
            Phase::new(Timeout::Udp, all(0.05, To::Phase(1))).unreplied(),
            Phase::new(Timeout::Udp, all(2.0, To::Phase(2))).every(0.5),
            Phase::new(Timeout::UdpStream, exponential(open, To::Phase(3))).assured().every(1.0),
            Phase::new(Timeout::UdpStream, silent()).assured(),
        ],
        sources: 1_000.0,
        clashes: 0.0,
    }
}

/// Echo requests and their replies.
pub fn ping() -> Flow {
    Flow {
        name: "ping",
        phases: vec![
            Phase::new(Timeout::Icmp, all(0.02, To::Phase(1))).unreplied(),
            Phase::new(Timeout::Icmp, silent()),
        ],
        sources: 100.0,
        clashes: 0.0,
    }
}

/// What a host sees of datagrams whose answers take another way: alive, refreshed, and never a reply.
pub fn one_way_udp(open: f64) -> Flow {
    Flow {
        name: "one-way-udp",
        phases: vec![
            Phase::new(Timeout::Udp, exponential(open, To::Phase(1))).unreplied().every(2.0),
            Phase::new(Timeout::Udp, silent()).unreplied(),
        ],
        sources: 4_000.0,
        clashes: 0.0,
    }
}

/// What a host sees of TCP whose answers take another way: picked up in mid-stream (`nf_conntrack_tcp_loose`), with the
/// timeout of data that nobody acknowledged.
pub fn one_way_tcp(open: f64) -> Flow {
    Flow {
        name: "one-way-tcp",
        phases: vec![
            Phase::new(Timeout::TcpUnacknowledged, exponential(open, To::Phase(1))).unreplied().every(5.0),
            Phase::new(Timeout::TcpUnacknowledged, silent()).unreplied(),
        ],
        sources: 4_000.0,
        clashes: 0.0,
    }
}

/// A flow whose last packet leaves its entry in this state, to end by this timeout.
pub fn left_in(state: Timeout) -> Flow {
    match state {
        Timeout::Udp => dns(),
        Timeout::UdpStream => udp_stream(2.0),
        Timeout::TcpClose => tcp(0.5, 0.5, 1.0),
        Timeout::Icmp | Timeout::Icmpv6 | Timeout::Generic => {
            let mut flow = ping();
            flow.phases.iter_mut().for_each(|phase| phase.state = state);
            flow
        }
        _ => {
            let mut flow = tcp(0.5, 0.5, 0.0);
            if let Some(last) = flow.phases.iter().position(|phase| phase.state == state) {
                flow.phases.truncate(last + 1);
                (flow.phases[last].exits, flow.phases[last].every) = (silent(), None);
            }
            flow
        }
    }
}
