//! The numbers of an earlier commit, in a file of lines `name number`.

use crate::{Result, idle};
use std::{collections::BTreeMap, fs, process::Command};

pub(crate) const PATH: &str = "benches/cost/baseline.txt";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");

/// A number above its baseline by more than this is a regression.
const TOLERANCE: f64 = 0.02;
/// The same for memory, which the kernel counts in pages.
const TOLERANCE_OF_BYTES: f64 = 0.1;

pub(crate) struct Baseline {
    numbers: BTreeMap<String, f64>,
    /// Whether another compiler built what was measured. Nothing is a regression then.
    is_of_another_compiler: bool,
}

impl Baseline {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(FILE).map_err(|error| format!("{PATH}: {error}"))?;
        let number = |line: &str| {
            let (name, number) = line.rsplit_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let numbers =
            lines.map(|line| number(line).ok_or_else(|| format!("{PATH}: not a number: {line}")));
        Ok(Self {
            numbers: numbers.collect::<std::result::Result<_, _>>()?,
            is_of_another_compiler: !text.contains(&compiler()),
        })
    }

    pub(crate) fn write(&self) -> Result<()> {
        let head = format!("# Written by `lameduck-cost --save`. {}\n", compiler());
        let lines = self.numbers.iter().map(|(name, number)| format!("{name} {number:.0}\n"));
        Ok(fs::write(FILE, head + &lines.collect::<String>())?)
    }

    /// Measures until the result is no regression, at most three times. Returns the lowest: how
    /// requests meet in a poll varies a little.
    pub(crate) fn lowest(
        &self,
        name: &str,
        mut measure: impl FnMut() -> Result<f64>,
    ) -> Result<f64> {
        let mut lowest = measure()?;
        for _ in 0..2 {
            if self.is_exceeded(name, lowest) {
                lowest = lowest.min(measure()?);
            }
        }
        Ok(lowest)
    }

    /// Whether `cost` is a regression. A number without a baseline is none.
    pub(crate) fn is_exceeded(&self, name: &str, cost: f64) -> bool {
        let tolerance = if name == idle::NAME { TOLERANCE_OF_BYTES } else { TOLERANCE };
        let before = self.numbers.get(name).filter(|_| !self.is_of_another_compiler);
        before.is_some_and(|before| cost > before * (1.0 + tolerance))
    }

    /// Replaces a number. Returns the previous one.
    pub(crate) fn replace(&mut self, name: &str, cost: f64) -> Option<f64> {
        self.numbers.insert(name.to_owned(), cost)
    }
}

/// Returns the version of the compiler.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text =
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into());
    text.trim().to_owned()
}
