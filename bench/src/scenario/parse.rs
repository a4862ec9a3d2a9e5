//! The text of a scenario file → [`Scenario`].

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::Errors;
use super::keys::{HIGHEST_RATE, find};
use super::reader::{Reader, Section, found, number};
use super::{MOST_LOADS, MOST_STARTS, Prefill, Scenario};
use crate::churn::{Connections, End, Pace};
use crate::load::{Course, Load, Protocol, Rate, SplitMix64, Traffic};
use crate::netns::{Family, Kind, Shape};

/// Reads a scenario; `file` stands for it in messages.
pub(super) fn parse(file: &str, text: &str) -> Result<Scenario, Errors> {
    let mut reader = Reader::new(file, text);
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // What stands beside a syntax error may be misread: judge no values before the syntax is right.
        for error in syntax_errors {
            let offset = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            reader.refuse(String::new(), offset, format!("not TOML: {message}"));
        }
        return reader.finish(None);
    }
    let mut top = Section::new("", String::new(), 0, table.into_inner());
    let name = reader.text(&mut top, "name").unwrap_or_else(|| stem(file).to_owned());
    let about = reader.text(&mut top, "about").unwrap_or_default();
    let seed = reader.integer(&mut top, "seed").unwrap_or_default();
    let duration = reader.time(&mut top, "duration");
    let shape = topology(&mut reader, &mut top);
    let prefill = before(&mut reader, &mut top);
    let loads = loads(&mut reader, &mut top, seed, (duration, shape));
    reader.end(&top, "");
    let scenario = duration.zip(shape).zip(prefill.zip(loads));
    let scenario = scenario.map(|((duration, shape), (prefill, loads))| Scenario {
        name,
        about,
        seed,
        duration,
        shape,
        prefill,
        loads,
    });
    reader.finish(scenario)
}

/// `scenarios/burst.toml` → `burst`.
fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".toml").unwrap_or(name)
}

fn topology<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> Option<Shape> {
    let mut section = reader.table(top, "topology")?;
    let ip = reader.word(&mut section, "ip");
    // Without it nothing can be said about the other keys.
    let word = reader.word(&mut section, "kind")?;
    let kind = match word {
        "host" => Some(Kind::Host),
        "haproxy" => Some(Kind::Haproxy),
        "ipvs" => reader.switch(&mut section, "conntrack").map(|conntrack| Kind::Ipvs { conntrack }),
        _ => reader.switch(&mut section, "nat").map(|nat| Kind::Gateway { nat }),
    };
    reader.end(&section, word);
    let ip = if ip? == "ipv6" { Family::Ipv6 } else { Family::Ipv4 };
    Some(Shape { ip, kind: kind? })
}

fn before<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> Option<Prefill> {
    let mut section = reader.table(top, "table")?;
    let entries = reader.integer(&mut section, "entries");
    reader.end(&section, "");
    Some(Prefill { entries: entries? })
}

/// `None` where something was refused.
fn loads<'t>(
    reader: &mut Reader<'t>,
    top: &mut Section<'t>,
    seed: u64,
    terms: (Option<Duration>, Option<Shape>),
) -> Option<Vec<Load>> {
    let tables = top.take("load");
    let at = tables.as_ref().map_or(top.at(), |tables| tables.span().start);
    let tables = match tables.map(Spanned::into_inner) {
        Some(DeValue::Array(tables)) if (1..=MOST_LOADS).contains(&tables.len()) => tables,
        _ => {
            let message = format!("give 1 to {MOST_LOADS} loads, each a table under its own [[load]]");
            reader.refuse("load".to_owned(), at, message);
            return None;
        }
    };
    let mut seeds = SplitMix64(seed);
    let mut loads = Vec::new();
    let mut whole = true;
    for (number, value) in (0_u16..).zip(tables) {
        let (shown, at) = (format!("load[{}]", number + 1), value.span().start);
        let seed = seeds.bits();
        let DeValue::Table(table) = value.into_inner() else {
            reader.refuse(shown, at, "give a table under its own [[load]]".to_owned());
            whole = false;
            continue;
        };
        let section = Section::new("load", shown, at, table);
        match load(reader, section, number, seed, terms) {
            Some(load) => loads.push(load),
            None => whole = false,
        }
    }
    whole.then_some(loads)
}

fn load<'t>(
    reader: &mut Reader<'t>,
    mut section: Section<'t>,
    number: u16,
    seed: u64,
    (whole, shape): (Option<Duration>, Option<Shape>),
) -> Option<Load> {
    let (shown, at) = (section.shown().to_owned(), section.at());
    // Without its kind nothing can be said about the other keys.
    let kind = reader.word(&mut section, "kind")?;
    let name = reader.text(&mut section, "name").unwrap_or_else(|| kind.to_owned());
    let start = reader.time(&mut section, "start").unwrap_or_default();
    let asked = reader.time(&mut section, "duration");
    // wrk has the one address that the kernel picks for it.
    let sources = if kind == "wrk" { Some(1) } else { reader.integer(&mut section, "sources") };
    let sources = sources.and_then(|sources| u32::try_from(sources).ok());
    let left = whole.map(|whole| whole.saturating_sub(start));
    if let Some((left, whole)) = left.zip(whole)
        && (left.is_zero() || asked.is_some_and(|asked| asked > left))
    {
        let message = format!(
            "it would go on after the end of the scenario; start it earlier, or make the scenario longer than {}",
            humantime::format_duration(whole)
        );
        reader.refuse(section.name("start"), at, message);
    }
    let duration = asked.or(left).unwrap_or_default();
    let traffic = match kind {
        "tcp" => tcp(reader, &mut section, duration).map(Traffic::Tcp),
        "wrk" => wrk(reader, &mut section, duration),
        other => {
            let rate = rate(reader, &mut section, duration);
            packets(reader, &mut section, other, rate)
        }
    };
    if let Some((traffic, shape)) = traffic.as_ref().zip(shape)
        && let Err(why) = traffic.goes_with(shape.kind)
    {
        reader.refuse(shown.clone(), at, why.to_owned());
    }
    if let Some(total) = traffic.as_ref().and_then(Traffic::rate).map(|rate| rate.total(duration)) {
        if total > MOST_STARTS {
            let message = format!("it would start {total:.0}; give a rate and a time with {MOST_STARTS} at most");
            reader.refuse(shown, at, message);
        } else if total <= 0.0 {
            reader.refuse(shown, at, "it would start nothing; give a higher rate or more time".to_owned());
        }
    }
    reader.end(&section, kind);
    let course = Course { duration, sources: sources?, seed, number };
    Some(Load { name, start, course, traffic: traffic? })
}

fn tcp<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>, duration: Duration) -> Option<Connections> {
    let pace = if section.has("clients") && !section.has("rate") {
        let clients = reader.integer(section, "clients").and_then(|clients| u32::try_from(clients).ok());
        clients.map(Pace::Clients)
    } else {
        rate(reader, section, duration).map(Pace::Open)
    };
    let end = reader.word(section, "end");
    let hold = reader.time(section, "hold");
    let every_at = section.place("every");
    let every = reader.time(section, "every");
    let most = reader.integer(section, "most");
    let end = match end? {
        "close" => End::Close,
        "reset" => End::Reset,
        _ => End::HalfClosed,
    };
    let hold = hold?;
    if let Some(why) = every.and_then(|every| no_further_request(end, hold.min(duration), every)) {
        reader.refuse(section.name("every"), every_at, why);
    }
    Some(Connections { pace: pace?, end, hold, every, most: most? })
}

/// Why connections that are kept for so long do not ask again, and the way out.
fn no_further_request(end: End, kept: Duration, every: Duration) -> Option<String> {
    if end == End::HalfClosed {
        Some("a client that has sent its FIN asks nothing more; remove it, or let `end` be another".to_owned())
    } else if kept <= every {
        let kept = humantime::format_duration(kept);
        Some(format!(
            "connections are held for {kept}, too short for a further request; give a longer `hold`, or less here"
        ))
    } else {
        None
    }
}

fn wrk<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>, duration: Duration) -> Option<Traffic> {
    if duration.subsec_nanos() > 0 {
        let message = "wrk runs for whole seconds; give a start and a duration that leave it such".to_owned();
        reader.refuse(section.name("duration"), section.at(), message);
    }
    if !section.has("clients") {
        let wanted = find("load.clients").map(|key| key.value.wanted()).unwrap_or_default();
        reader.refuse(section.name("clients"), section.at(), format!("is missing; {wanted}"));
    }
    let clients = reader.integer(section, "clients").and_then(|clients| u32::try_from(clients).ok())?;
    Some(Traffic::Wrk { clients })
}

fn packets<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>, kind: &str, rate: Option<Rate>) -> Option<Traffic> {
    match kind {
        "dns" => {
            let sockets = reader.integer(section, "sockets").and_then(|sockets| u16::try_from(sockets).ok());
            Some(Traffic::Dns { rate: rate?, sockets: sockets? })
        }
        "scan" => {
            let protocol = match reader.word(section, "protocol")? {
                "tcp" => Protocol::Tcp,
                _ => Protocol::Udp,
            };
            Some(Traffic::Scan { rate: rate?, protocol })
        }
        _ => {
            let answered = reader.switch(section, "answered");
            let (rate, answered) = (rate?, answered?);
            Some(if kind == "udp" { Traffic::Udp { rate, answered } } else { Traffic::Syn { rate, answered } })
        }
    }
}

/// A number, or a table that is a ramp, a burst or points.
fn rate<'t>(reader: &mut Reader<'t>, section: &mut Section<'t>, duration: Duration) -> Option<Rate> {
    let wanted = find("load.rate").map(|key| key.value.wanted()).unwrap_or_default();
    let shown = section.name("rate");
    let Some(value) = section.take("rate") else {
        reader.refuse(shown, section.at(), format!("is missing; {wanted}"));
        return None;
    };
    let at = value.span().start;
    let table = match value.into_inner() {
        DeValue::Table(table) => table,
        other => {
            let constant = number(&other).filter(|rate| *rate > 0.0 && *rate <= HIGHEST_RATE);
            if constant.is_none() {
                reader.refuse(shown, at, format!("{wanted}; found {}", found(&other)));
            }
            return constant.map(Rate::constant);
        }
    };
    let mut section = Section::new("load.rate", shown.clone(), at, table);
    let rate = if section.has("points") {
        let points = reader.points(&mut section, "points");
        points.and_then(|points| {
            let rate = Rate::through(points);
            if rate.is_none() {
                reader.refuse(section.name("points"), at, "the times go back; give them in order".to_owned());
            }
            rate
        })
    } else if section.has("from") || section.has("to") {
        let (from, to) = (reader.number(&mut section, "from"), reader.number(&mut section, "to"));
        from.zip(to).map(|(from, to)| Rate::ramp(from, to, duration))
    } else {
        let (base, peak) = (reader.number(&mut section, "base"), reader.number(&mut section, "peak"));
        let (after, lasts) = (reader.time(&mut section, "after"), reader.time(&mut section, "for"));
        base.zip(peak).zip(after.zip(lasts)).map(|((base, peak), (after, lasts))| Rate::burst(base, peak, after, lasts))
    };
    reader.end(&section, "");
    if rate.as_ref().is_some_and(|rate| rate.highest() <= 0.0) {
        reader.refuse(shown, at, "is never above 0; give one that is".to_owned());
    }
    rate
}
