//! What the demo prints, for a terminal of 80 columns, and what it keeps for the summary.

use std::time::Duration;

use ringfence_testkit::{Look, Matrix};

/// Prints, and remembers times and disappointments.
pub(crate) struct Report {
    pub(crate) look: Look,
    step: usize,
    times: Vec<(String, Duration)>,
    checks: usize,
    wrong: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            look: Look::detect(),
            step: 0,
            times: Vec::new(),
            checks: 0,
            wrong: Vec::new(),
        }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        let line = format!("── {}. {title} ", self.step);
        let rule = "─".repeat(self.look.width.saturating_sub(line.chars().count()));
        println!("\n{}", self.look.paint("1;36", &format!("{line}{rule}")));
    }

    /// A paragraph, broken into lines.
    pub(crate) fn text(&self, text: &str) {
        for line in wrap(text, self.look.width) {
            println!("{line}");
        }
    }

    /// A file's content or a program's output, indented; long lines go on below, further in.
    pub(crate) fn listing(&self, title: &str, text: &str) {
        println!("\n{}", self.look.paint("1", title));
        for line in text.lines() {
            for part in fold(&format!("  {}", line.replace('\t', "  ")), self.look.width) {
                println!("{}", self.look.paint("2", &part));
            }
        }
    }

    /// A table, and whether it is as expected.
    pub(crate) fn table(&mut self, matrix: &Matrix, expected: &str) {
        print!("\n{}", matrix.render(self.look));
        let asked = matrix.cells.iter().flatten().flatten().count();
        self.check(&format!("{asked} probes as expected"), matrix.expect(expected));
    }

    /// A check that is not a table.
    pub(crate) fn check(&mut self, what: &str, result: anyhow::Result<()>) {
        self.checks += 1;
        match result {
            Ok(()) => println!("  {} {what}", self.look.paint("32", "✓")),
            Err(error) => {
                println!("  {} {what}: {error:#}", self.look.paint("1;31", "✗ NOT AS EXPECTED:"));
                self.wrong.push(format!("step {}: {what}: {error:#}", self.step));
            }
        }
    }

    /// A measured time, or that it never came.
    pub(crate) fn time(&mut self, what: &str, measured: anyhow::Result<Duration>) {
        match measured {
            Ok(time) => {
                println!(
                    "  {} {what}: {}",
                    self.look.paint("33", "⏱"),
                    self.look.paint("1", &milliseconds(time))
                );
                self.times.push((what.to_owned(), time));
            }
            Err(error) => self.check(what, Err(error)),
        }
    }

    /// The end of the story; true if all went well.
    pub(crate) fn summary(&self) -> bool {
        for (what, time) in &self.times {
            println!("  {what:<62} {:>12}", milliseconds(*time));
        }
        println!();
        if self.wrong.is_empty() {
            let line = format!("All {} checks came out as expected.", self.checks);
            println!("{}", self.look.paint("1;32", &line));
        } else {
            let line = format!(
                "{} of {} checks did NOT come out as expected:",
                self.wrong.len(),
                self.checks
            );
            println!("{}", self.look.paint("1;31", &line));
            for wrong in &self.wrong {
                println!("  {wrong}");
            }
        }
        self.wrong.is_empty()
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// One line with its indentation, as several if it is too long.
fn fold(line: &str, width: usize) -> Vec<String> {
    let indent = line.chars().take_while(|c| *c == ' ').count();
    let mut parts = wrap(line, width.saturating_sub(indent + 4));
    for (position, part) in parts.iter_mut().enumerate() {
        let further = if position == 0 { 0 } else { 4 };
        *part = format!("{}{part}", " ".repeat(indent + further));
    }
    if line.chars().count() <= width {
        vec![line.to_owned()]
    } else {
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_inside_the_terminal() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
        assert_eq!(fold("  one  two", 10), ["  one  two"]);
        assert_eq!(fold("  one two three", 14), ["  one two", "      three"]);
    }
}
