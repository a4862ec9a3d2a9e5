//! Kernel × back end × signal: what held where, one line each.

use std::fmt;

use super::libtest::Verdict;
use crate::setup::Series;

/// One line.
#[derive(Debug)]
pub struct Row {
    /// The kernel.
    pub kernel: Series,
    /// The test's name with its modules, or with its program where it has none.
    pub test: String,
    /// What came of it.
    pub result: Outcome,
}

/// What came of one test on one kernel.
#[derive(Debug)]
pub enum Outcome {
    /// It ended.
    Ended(Verdict),
    /// It was not run, or its program did not come to its end.
    NoResult,
    /// The kernel lacks what it is about, for this reason.
    NotThere(String),
}

/// All lines; shown in columns, by kernel.
#[derive(Debug, Default)]
pub struct Matrix(pub Vec<Row>);

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |series: &'static Series| self.0.iter().filter(move |row| row.kernel == *series);
        let cells: Vec<[String; 4]> = Series::all().iter().flat_map(of).map(cells).collect();
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (kernel, part, what) = (width(0), width(1), width(2));
        for row in &cells {
            writeln!(f, "{:kernel$}  {:part$}  {:what$}  {}", row[0], row[1], row[2], row[3])?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 4] {
    let (modules, name) = row.test.rsplit_once("::").unwrap_or(("", &row.test));
    let result = match &row.result {
        Outcome::Ended(Verdict::Passed) => "ok".to_owned(),
        Outcome::Ended(Verdict::Failed) => "FAILED".to_owned(),
        Outcome::Ended(Verdict::Ignored(reason)) => format!("ignored: {reason}"),
        Outcome::NoResult => "FAILED: no result".to_owned(),
        Outcome::NotThere(reason) => format!("not there: {reason}"),
    };
    [row.kernel.name().to_owned(), part(modules), name.replace('_', " "), result]
}

/// The back end, or the part that the test is about.
fn part(modules: &str) -> String {
    match modules {
        "hooks::tracing" => "fentry/fexit".to_owned(),
        "hooks::tracing_every" => "fentry/fexit, every insert walked".to_owned(),
        "hooks::kprobe" => "kprobe".to_owned(),
        other => other.replace("::", ", ").replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_stand_together_and_columns_line_up() {
        let row = |kernel, test: &str, result| Row { kernel, test: test.to_owned(), result };
        let matrix = Matrix(vec![
            row(Series::V6_12, "hooks::kprobe::drops", Outcome::Ended(Verdict::Passed)),
            row(Series::V6_12, "daemon::ends", Outcome::Ended(Verdict::Failed)),
            row(Series::V7_2, "namespaces::alone", Outcome::NoResult),
            row(Series::V5_10, "hooks::tracing::every_signal_is_on", Outcome::NotThere("no module BTF".to_owned())),
        ]);
        assert_eq!(
            matrix.to_string(),
            "5.10  fentry/fexit  every signal is on  not there: no module BTF\n\
             6.12  kprobe        drops               ok\n\
             6.12  daemon        ends                FAILED\n\
             7.2   namespaces    alone               FAILED: no result\n"
        );
    }
}
