//! Values of the status JSON as text of the page.

use serde_json::Value;
use std::fmt::{self, Display, Write};

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

pub(super) fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// A name of the JSON in words.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Text in HTML. It may come from a client: a path, for example.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number of milliseconds, to two units.
pub(super) struct Span<'a>(pub(super) &'a Value);

impl Display for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = number(self.0);
        let seconds = ms / 1000;
        match ms {
            0..1_000 => write!(f, "{ms} ms"),
            1_000..60_000 if ms.is_multiple_of(1000) => write!(f, "{seconds} s"),
            1_000..60_000 => write!(f, "{seconds}.{} s", ms % 1000 / 100),
            60_000..3_600_000 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600_000..86_400_000 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

/// A number with its thousands apart.
pub(super) struct Grouped(pub(super) u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Grouped, Span};
    use serde_json::json;

    #[test]
    fn times_have_two_units_and_numbers_groups() {
        let span = |ms: u64| Span(&json!(ms)).to_string();
        let spans =
            [span(999), span(5_000), span(5_250), span(61_000), span(3_660_000), span(90_000_000)];
        assert_eq!(spans, ["999 ms", "5 s", "5.2 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!(
            [0, 999, 1_000, 12_345_678].map(|n| Grouped(n).to_string()),
            ["0", "999", "1,000", "12,345,678"]
        );
    }
}
