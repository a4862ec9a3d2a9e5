//! What was measured, as a table and as JSON.

use serde::Serialize;

use super::figures::{Spread, slope};
use super::share::Share;
use super::sweep::{BATCHES, CONNECTIONS, Cost, ENTRIES, FLOWS, LOADS, Load};
use super::variants::Variant;
use crate::table::{Table, grouped};

/// One variant's sweep in one round, and the one with nothing watching just before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// Index of the variant.
    pub variant: usize,
    pub alone: [Cost; LOADS.len()],
    pub watched: [Cost; LOADS.len()],
}

/// Everything, in the shape of the JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// `uname -r`
    pub kernel: String,
    /// Each variant was measured so often.
    pub rounds: u32,
    /// Entries that fill the table.
    pub entries: u64,
    /// How full it is then.
    pub loads: [Load; LOADS.len()],
    pub batches: usize,
    pub udp_flows_a_batch: u16,
    pub tcp_connections_a_batch: u16,
    pub rows: Vec<Row>,
    /// What the idle guard adds to a TCP connection.
    pub idle_guard: Option<Share>,
}

/// What one variant costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What is counted.
    pub quantity: &'static str,
    /// Who watches.
    pub variant: &'static str,
    /// Nothing watching: instructions of the whole thing. Else: what comes on top of that. One for each load.
    pub instructions: [Spread; LOADS.len()],
    /// What each further entry in the two chains adds.
    pub a_further_node: f64,
}

/// What is counted: its name and its place in a cost.
type Quantity = (&'static str, fn(&Cost) -> f64);

const QUANTITIES: [Quantity; 4] = [
    ("a new UDP flow's life", |cost| cost.life),
    ("its insert", |cost| cost.insert),
    ("its destroy", |cost| cost.destroy),
    ("a whole TCP connection", |cost| cost.connection),
];

const ALONE: &str = "nothing watching";

impl Report {
    /// Puts the sweeps together.
    pub fn new(kernel: String, rounds: u32, variants: &[Variant], pairs: &[Pair], idle_guard: Option<Share>) -> Self {
        let mut rows = Vec::new();
        for quantity in QUANTITIES {
            rows.push(row(quantity.0, ALONE, |load| {
                Spread::of(pairs.iter().map(move |pair| quantity.1(&pair.alone[load])))
            }));
            for (index, variant) in variants.iter().enumerate() {
                let mine = pairs.iter().filter(move |pair| pair.variant == index);
                let added = |load: usize| {
                    Spread::of(
                        mine.clone().map(move |pair| quantity.1(&pair.watched[load]) - quantity.1(&pair.alone[load])),
                    )
                };
                rows.push(row(quantity.0, variant.name, added));
            }
        }
        Self {
            kernel,
            rounds,
            entries: ENTRIES,
            loads: LOADS,
            batches: BATCHES,
            udp_flows_a_batch: FLOWS,
            tcp_connections_a_batch: CONNECTIONS,
            rows,
            idle_guard,
        }
    }

    /// For people.
    pub fn words(&self) -> String {
        let share = self.idle_guard.as_ref().map(Share::words).unwrap_or_default();
        format!("{}\n{}\n{share}", self.setup(), self.table())
    }

    fn setup(&self) -> String {
        let loads = self.loads.map(|load| format!("{} ({} buckets)", load.factor, grouped(load.buckets)));
        format!(
            "Instructions for one flow, Linux {}, one CPU, counted by the guest's clock. Median of {} rounds of {} batches\n\
             ± half of what lies between the lowest and the highest round; whoever watches: what comes on top of nothing watching, measured\n\
             just before.\n\
             \x20 table     {} one-way UDP entries of another network namespace; load {}\n\
             \x20 UDP flow  insert: sendto of 4 bytes on 127.0.0.1, from a socket bound to a port without an entry; {} a batch.\n\
             \x20           destroy: a dump of the namespace's table, which removes entries that have timed out; all have\n\
             \x20 TCP       connect on 127.0.0.1, accept, a request of {} bytes, a reply of {}, both ends shut down, one\n\
             \x20           thread; {} a batch; the entry's end is not in it\n",
            self.kernel,
            self.rounds,
            self.batches,
            grouped(self.entries),
            loads.join(", "),
            self.udp_flows_a_batch,
            bench::churn::REQUEST_BYTES,
            bench::churn::REPLY_BYTES,
            self.tcp_connections_a_batch,
        )
    }

    fn table(&self) -> String {
        let mut table = Table::default();
        let heads = self.loads.map(|load| format!("load {}", load.factor));
        let mut quantity = "";
        for row in &self.rows {
            if row.quantity != quantity {
                quantity = row.quantity;
                table.row(quantity, heads.iter().cloned().chain(["a further node".to_owned()]));
            }
            let alone = row.variant == ALONE;
            let cells = row.instructions.map(|spread| if alone { whole(spread) } else { added(spread) });
            let node = format!("{:.1}", row.a_further_node);
            table.row(&format!("    {}", row.variant), cells.into_iter().chain([node]));
        }
        table.render()
    }
}

fn row(quantity: &'static str, variant: &'static str, instructions: impl Fn(usize) -> Spread) -> Row {
    let mut load = 0..;
    let instructions = LOADS.map(|_| instructions(load.next().unwrap_or(0)));
    let points: Vec<_> = LOADS.iter().zip(instructions).map(|(load, spread)| (load.nodes(), spread.median)).collect();
    Row { quantity, variant, instructions, a_further_node: slope(&points) }
}

/// `18,340 ±35`
fn whole(spread: Spread) -> String {
    format!("{} ±{}", number(spread.median), number((spread.highest - spread.lowest) / 2.0))
}

/// `+285 ±15`
fn added(spread: Spread) -> String {
    let sign = if spread.median <= -0.5 { '-' } else { '+' };
    format!("{sign}{}", whole(Spread { median: spread.median.abs(), ..spread }))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and nothing below zero comes here"
)]
pub(super) fn number(value: f64) -> String {
    grouped(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::variants::VARIANTS;

    /// Nothing watching costs 1,000 in one round and 3,000 in the next; the variant 300 more, and 20 for each node.
    #[test]
    fn a_variant_is_compared_with_what_was_measured_beside_it() {
        let costs = |base: f64, fixed: f64, node: f64| {
            LOADS.map(|load| Cost { insert: base + fixed + node * load.nodes(), ..Cost::default() })
        };
        let pair = |base| Pair { variant: 0, alone: costs(base, 0.0, 0.0), watched: costs(base, 300.0, 20.0) };
        let report = Report::new("6.12".to_owned(), 2, &VARIANTS[..1], &[pair(1000.0), pair(3000.0)], None);
        let row = |variant| report.rows.iter().find(|row| row.quantity == "its insert" && row.variant == variant);
        let (alone, variant) = (row(ALONE).unwrap(), row(VARIANTS[0].name).unwrap());
        assert_eq!(alone.instructions[0], Spread { median: 2000.0, lowest: 1000.0, highest: 3000.0 });
        assert_eq!(variant.instructions[1], Spread { median: 380.0, lowest: 380.0, highest: 380.0 });
        assert!((variant.a_further_node - 20.0).abs() < 1e-9);
        let table = report.table();
        assert!(table.contains("2,000 ±1,000") && table.contains("+380 ±0"), "{table}");
    }

    #[test]
    fn signs_are_those_of_rounded_figures() {
        let of = |median| added(Spread { median, lowest: median, highest: median + 3.0 });
        assert_eq!([-12.0, -0.4, 0.4, 1250.0].map(of), ["-12 ±2", "+0 ±2", "+0 ±2", "+1,250 ±2"]);
    }
}
