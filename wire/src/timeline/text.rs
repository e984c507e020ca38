//! Draws a picture as text, for a terminal.

use super::{Bar, Kind, Mark, Picture, Sign, seconds};
use std::{fmt, time::Duration};

/// Columns for the time axis.
const WIDTH: usize = 96;
/// Columns for the names of the rows.
const LABEL: usize = 18;

/// Symbols: `─` open, `█` response complete, `▒` 503 or 408, `░` incomplete; `G` GOAWAY, `c`
/// `Connection: close`, `|` closed, `x` reset.
impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.title, self.outcome)?;
        writeln!(f, "{:LABEL$} {}", "", self.axis())?;
        writeln!(f, "{:LABEL$} {}", "phase", self.phases())?;
        if !self.stops.is_empty() {
            writeln!(f, "{:LABEL$} {}", "stops", self.marks(&self.stops))?;
        }
        for row in &self.rows {
            let mut line = Line::new(' ');
            for bar in row.bars.iter().filter(|bar| bar.to >= self.from) {
                line.fill(self.column(bar.from), self.column(bar.to), shade(bar));
            }
            for (at, sign) in row.marks.iter().filter(|(at, _)| *at >= self.from) {
                line.put(self.column(*at), letter(*sign));
            }
            let label: String = row.label.chars().take(LABEL).collect();
            writeln!(f, "{label:LABEL$} {line}")?;
        }
        Ok(())
    }
}

impl Picture {
    fn column(&self, at: Duration) -> usize {
        // The product of a number from 0 to 1 and a small number cannot overflow.
        (self.place(at) * (WIDTH - 1) as f64) as usize
    }

    fn axis(&self) -> Line {
        let mut line = Line::new(' ');
        let mut free_from = 0;
        for at in self.ticks() {
            let column = self.column(at);
            if column >= free_from {
                free_from = line.write(column, &seconds(at)) + 1;
            }
        }
        line
    }

    fn phases(&self) -> Line {
        let mut line = Line::new(' ');
        for band in self.bands.iter().filter(|band| band.to >= self.from) {
            line.fill(self.column(band.from), self.column(band.to), band.letter);
        }
        line
    }

    fn marks(&self, marks: &[Mark]) -> Line {
        let mut line = Line::new(' ');
        let mut free_from = 0;
        for mark in marks.iter().filter(|mark| mark.at >= self.from) {
            let column = self.column(mark.at).max(free_from);
            free_from =
                line.write(column, &format!("^{}", mark.what.trim_start_matches("SIG"))) + 1;
        }
        line
    }
}

const fn shade(bar: &Bar) -> char {
    match bar.kind {
        Kind::Open => '─',
        Kind::Completed | Kind::Hook => '█',
        Kind::Refused => '▒',
        Kind::Broken | Kind::HookBroken => '░',
    }
}

const fn letter(sign: Sign) -> char {
    match sign {
        Sign::Goaway => 'G',
        Sign::Close => 'c',
        Sign::Fin => '|',
        Sign::Reset => 'x',
    }
}

struct Line([char; WIDTH]);

impl Line {
    const fn new(blank: char) -> Self {
        Self([blank; WIDTH])
    }

    fn put(&mut self, column: usize, letter: char) {
        if let Some(place) = self.0.get_mut(column) {
            *place = letter;
        }
    }

    fn fill(&mut self, from: usize, to: usize, shade: char) {
        (from..=to).for_each(|column| self.put(column, shade));
    }

    /// Writes words and returns the column after them.
    fn write(&mut self, column: usize, words: &str) -> usize {
        words.chars().zip(column..).for_each(|(letter, column)| self.put(column, letter));
        column + words.chars().count()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iter().collect::<String>().trim_end())
    }
}
