//! Who reaches whom: measured by probes, printed as a table, compared with what is expected.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_model::Family;

use crate::path::Path;
use crate::pod::Pod;
use crate::probe::{Outcome, Probe, Protocol, probe_all};

/// A table of outcomes; rows ask, columns are asked. `None`: not asked, or (in an expected one) of no interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// What was asked.
    pub title: String,
    /// Names of the rows.
    pub rows: Vec<String>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// One list per row.
    pub cells: Vec<Vec<Option<Outcome>>>,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// With colours of the terminal.
    pub colour: bool,
    /// Longest line; columns that do not fit go into a further block.
    pub width: usize,
}

impl Look {
    /// Without colours, 80 columns.
    pub const PLAIN: Self = Self {
        colour: false,
        width: 80,
    };

    /// 80 columns, coloured if standard output is a terminal.
    pub fn detect() -> Self {
        Self {
            colour: std::io::stdout().is_terminal(),
            width: 80,
        }
    }

    /// A text in a colour (an SGR parameter such as `32` for green or `1` for bold).
    pub fn paint(self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Matrix {
    /// Asks all probes at once. `question` makes the probe of a row and a column, or none.
    pub fn measure(
        title: impl Into<String>,
        rows: &[String],
        columns: &[String],
        timeout: Duration,
        mut question: impl FnMut(usize, usize) -> Result<Option<Probe>>,
    ) -> Result<Self> {
        let mut probes = Vec::new();
        let mut places = Vec::new();
        for row in 0..rows.len() {
            for column in 0..columns.len() {
                if let Some(probe) = question(row, column)? {
                    probes.push(probe);
                    places.push((row, column));
                }
            }
        }
        let mut cells = vec![vec![None; columns.len()]; rows.len()];
        for ((row, column), answer) in places.into_iter().zip(probe_all(&probes, timeout)?) {
            cells[row][column] = Some(answer.outcome);
        }
        Ok(Self {
            title: title.into(),
            rows: rows.to_vec(),
            columns: columns.to_vec(),
            cells,
        })
    }

    /// Every pod to every pod on one network, itself included. Rows and columns have the pods' names.
    pub fn of_pods(
        title: impl Into<String>,
        pods: &[&Pod],
        network: &str,
        family: Family,
        protocol: Protocol,
        port: u16,
        timeout: Duration,
    ) -> Result<Self> {
        let names: Vec<String> = pods.iter().map(|pod| pod.name().to_owned()).collect();
        Self::measure(title, &names, &names, timeout, |from, to| {
            let path = Path::new(pods[from], pods[to], network, family, port)?;
            Ok(Some(path.probe(protocol)))
        })
    }

    /// Reads an expected table: a line of column names, then one line per row, cells as `yes`, `no`, `rst`, `unr`, and
    /// `.` for what does not matter.
    ///
    /// ```
    /// let expected = ringfence_testkit::Matrix::parse("
    ///              httpd  friend
    ///     friend   yes    .
    ///     other    no     yes
    /// ").unwrap();
    /// assert_eq!(expected.rows, ["friend", "other"]);
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let columns: Vec<String> = lines
            .next()
            .context("an expected table without columns")?
            .split_whitespace()
            .map(Into::into)
            .collect();
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        for line in lines {
            let mut words = line.split_whitespace();
            rows.push(words.next().unwrap_or_default().to_owned());
            let row: Vec<Option<Outcome>> = words
                .map(|word| match word {
                    "." => Ok(None),
                    _ => Outcome::from_word(word)
                        .map(Some)
                        .with_context(|| format!("{word:?} is no outcome")),
                })
                .collect::<Result<_>>()?;
            ensure!(row.len() == columns.len(), "{line:?} has not {} cells", columns.len());
            cells.push(row);
        }
        Ok(Self {
            title: String::new(),
            rows,
            columns,
            cells,
        })
    }

    /// Fails with a readable difference where an expected cell is not what was measured.
    pub fn expect(&self, expected: &str) -> Result<()> {
        self.compare(&Self::parse(expected)?)
    }

    /// The same with an expected table that was made otherwise.
    pub fn compare(&self, expected: &Self) -> Result<()> {
        ensure!(
            self.rows == expected.rows && self.columns == expected.columns,
            "{}: measured {:?} × {:?}, but {:?} × {:?} are expected",
            self.title,
            self.rows,
            self.columns,
            expected.rows,
            expected.columns
        );
        let mut wrong = String::new();
        for (row, name) in self.rows.iter().enumerate() {
            for (column, target) in self.columns.iter().enumerate() {
                let (Some(wanted), found) = (expected.cells[row][column], self.cells[row][column]) else {
                    continue;
                };
                if found != Some(wanted) {
                    let found = found.map_or("not asked", Outcome::word);
                    let _ = writeln!(wrong, "  {name} → {target}: {found}, expected {wanted}");
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!(
            "{} is not as expected:\n{wrong}measured:\n{}",
            self.title,
            self.render(Look::PLAIN)
        );
    }

    /// The table as text.
    pub fn render(&self, look: Look) -> String {
        let first = self
            .rows
            .iter()
            .map(|row| row.chars().count())
            .max()
            .unwrap_or(0)
            .max(7)
            + 2;
        let widths: Vec<usize> = self.columns.iter().map(|it| it.chars().count().max(3) + 2).collect();
        let mut out = String::new();
        let _ = writeln!(out, "{}", look.paint("1", &self.title));
        let mut start = 0;
        while start < self.columns.len() {
            let mut end = start + 1;
            let mut used = 2 + first + widths[start];
            while end < self.columns.len() && used + widths[end] <= look.width {
                used += widths[end];
                end += 1;
            }
            let mut header = format!("  {:<first$}", "from\\to");
            for (column, width) in self.columns[start..end].iter().zip(&widths[start..end]) {
                let _ = write!(header, "{column:<width$}");
            }
            let _ = writeln!(out, "{}", look.paint("2", header.trim_end()));
            for (row, cells) in self.rows.iter().zip(&self.cells) {
                let mut line = format!("  {row:<first$}");
                for (cell, width) in cells[start..end].iter().zip(&widths[start..end]) {
                    let (word, colour) = match cell {
                        None => ("·", "2"),
                        Some(Outcome::Reached) => ("yes", "32"),
                        Some(Outcome::Dropped) => ("no", "31"),
                        Some(other) => (other.word(), "33"),
                    };
                    line.push_str(&look.paint(colour, word));
                    // Padding outside of the colour codes, which have no width.
                    line.push_str(&" ".repeat(width.saturating_sub(word.chars().count())));
                }
                let _ = writeln!(out, "{}", line.trim_end());
            }
            start = end;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Matrix {
        let mut matrix = Matrix::parse("a b\n x yes no\n y . rst").expect("a table");
        matrix.title = "tcp 80".into();
        matrix
    }

    #[test]
    fn a_table_reads_like_this() {
        let expected = "tcp 80\n  from\\to  a    b\n  x        yes  no\n  y        ·    rst\n";
        assert_eq!(example().render(Look::PLAIN), expected);
    }

    #[test]
    fn wide_tables_continue_below() {
        let narrow = Look {
            colour: false,
            width: 18,
        };
        let text = example().render(narrow);
        assert_eq!(text.matches("from\\to").count(), 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 18), "{text}");
    }

    #[test]
    fn differences_name_the_cells_that_differ_and_only_those() {
        example()
            .expect("a b\n x yes .\n y . rst")
            .expect("equal where it matters");
        let error = example()
            .expect("a b\n x no no\n y yes rst")
            .expect_err("two differ")
            .to_string();
        assert!(
            error.contains("  x → a: yes, expected no\n  y → a: not asked, expected yes\nmeasured"),
            "{error}"
        );
        let error = example().expect("a\n x yes").expect_err("another shape").to_string();
        assert!(error.contains("are expected"), "{error}");
        for bad in ["", "a\n x maybe", "a\n x yes no"] {
            assert!(Matrix::parse(bad).is_err(), "{bad:?}");
        }
    }
}
