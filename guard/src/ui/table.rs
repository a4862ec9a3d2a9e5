//! Aligned columns, two spaces apart.

use std::fmt;

/// On which side a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// Rows of cells; printed without lines, every row ends in a line feed and has no trailing spaces.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(Align, usize)>,
    indent: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns, each at least that wide; `indent` spaces before each row.
    pub fn new(indent: usize, columns: &[(Align, usize)]) -> Self {
        Self { columns: columns.to_vec(), indent, rows: Vec::new() }
    }

    /// Adds a row. A row shorter than the columns leaves the rest empty; further cells stand left.
    pub fn row<I>(&mut self, cells: I) -> &mut Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    fn width(&self, column: usize) -> usize {
        let least = self.columns.get(column).map_or(0, |(_, least)| *least);
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(least)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|column| self.width(column)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                match self.columns.get(column).map_or(Align::Left, |(align, _)| *align) {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{:indent$}{}", "", line.trim_end(), indent = self.indent)?;
        }
        Ok(())
    }
}

/// Parts one after the other, in as few lines as the screen's width below a name allows.
pub fn folded(parts: &[String]) -> String {
    const WIDTH: usize = 90;
    let (mut text, mut width) = (String::new(), 0);
    for part in parts {
        let this = part.chars().count();
        if width > 0 {
            let fits = width + this + 2 <= WIDTH;
            text.push_str(if fits { "; " } else { "\n" });
            width = if fits { width + 2 } else { 0 };
        }
        text.push_str(part);
        width += this;
    }
    text
}

/// Two texts side by side, the right one from the same column on: 40, or further where the left one is wider.
pub fn beside(left: &str, right: &str) -> String {
    let width = left.lines().map(|line| line.chars().count() + 2).max().unwrap_or(0).max(40);
    let (mut left, mut right) = (left.lines(), right.lines());
    let mut text = String::new();
    loop {
        let (left, right) = (left.next(), right.next());
        if left.is_none() && right.is_none() {
            return text;
        }
        let line = format!("{:width$}{}", left.unwrap_or_default(), right.unwrap_or_default());
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let mut table = Table::new(2, &[(Align::Left, 0), (Align::Right, 8), (Align::Left, 0)]);
        table.row(["max", "262,144", "found"]).row(["Eimer", "512"]).row(["größe", "1", "µ"]);
        assert_eq!(table.to_string(), "  max     262,144  found\n  Eimer       512\n  größe         1  µ\n");
    }

    #[test]
    fn the_right_text_starts_where_the_widest_left_line_allows() {
        let long = "x".repeat(45);
        assert_eq!(beside("a\nb\n", "c\n"), format!("a{}c\nb\n", " ".repeat(39)));
        assert_eq!(beside(&long, "c\nd\n"), format!("{long}  c\n{}d\n", " ".repeat(47)));
        assert_eq!(beside("", ""), "");
    }

    #[test]
    fn parts_share_a_line_as_long_as_it_is_wide_enough() {
        let parts = [30, 58, 1, 200, 5].map(|length| "x".repeat(length));
        let lines: Vec<usize> = folded(&parts).lines().map(str::len).collect();
        assert_eq!(lines, [90, 1, 200, 5]);
        assert_eq!(folded(&[]), "");
    }

    #[test]
    fn no_rows_print_nothing() {
        assert_eq!(Table::new(4, &[(Align::Left, 9)]).to_string(), "");
    }
}
