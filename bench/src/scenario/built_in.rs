//! The scenarios that come with the program: files of bench/scenarios, which are examples too.

/// Name and text.
const ALL: &[(&str, &str)] = &[
    ("burst", include_str!("../../scenarios/burst.toml")),
    ("daily-wave", include_str!("../../scenarios/daily-wave.toml")),
    ("dns-storm", include_str!("../../scenarios/dns-storm.toml")),
    ("haproxy", include_str!("../../scenarios/haproxy.toml")),
    ("host", include_str!("../../scenarios/host.toml")),
    ("idle-pile-up", include_str!("../../scenarios/idle-pile-up.toml")),
    ("ipvs", include_str!("../../scenarios/ipvs.toml")),
    ("steady", include_str!("../../scenarios/steady.toml")),
    ("syn-flood", include_str!("../../scenarios/syn-flood.toml")),
    ("time-wait-storm", include_str!("../../scenarios/time-wait-storm.toml")),
    ("udp-scan", include_str!("../../scenarios/udp-scan.toml")),
];

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The text of one.
pub(super) fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
