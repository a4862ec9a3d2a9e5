//! Text tables, and figures as people write them.

use std::time::Duration;

/// Rows of cells, the first column to the left, the others to the right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Adds a row.
    pub fn row(&mut self, name: &str, cells: impl Iterator<Item = String>) {
        self.rows.push([name.to_owned()].into_iter().chain(cells).collect());
    }

    /// The table as text; each line ends with a newline.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            let line: String = cells.collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// 1234567 → 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", grouped(number / 1000), number % 1000) }
}

/// A duration to three digits: 870 µs, 1.25 ms, 3.00 s.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        below if below < 1e-3 => (seconds * 1e6, "µs"),
        below if below < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let digits = match value {
        _ if unit == "µs" => 0,
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let mut table = Table::default();
        for (name, stock, guarded) in
            [("", "stock", "with conntrack-guard"), ("made", "9,123", "18,000"), ("µ", "1", "")]
        {
            table.row(name, [stock, guarded].map(str::to_owned).into_iter());
        }
        assert_eq!(
            table.render(),
            "      stock  with conntrack-guard\nmade  9,123                18,000\nµ         1\n"
        );
    }

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let of = |micros| short(Duration::from_micros(micros));
        assert_eq!(
            [0, 870, 1_254, 12_540, 125_400, 3_000_000].map(of),
            ["0 µs", "870 µs", "1.25 ms", "12.5 ms", "125 ms", "3.00 s"]
        );
    }
}
