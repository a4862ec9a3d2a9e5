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
    fn no_rows_print_nothing() {
        assert_eq!(Table::new(4, &[(Align::Left, 9)]).to_string(), "");
    }
}
