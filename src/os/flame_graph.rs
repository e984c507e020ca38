//! Draws a flame graph as SVG: a box per function below its caller, as wide as its share of the
//! samples. It has no script; the title of a box, which browsers show, has the whole name.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
/// Narrower boxes are left out.
const BOX_MIN: f64 = 0.5;
/// Width of a character of the names, roughly.
const CHARACTER: f64 = 6.6;

/// Samples by stack.
#[derive(Debug, Default)]
pub(super) struct FlameGraph {
    samples: usize,
    callees: BTreeMap<String, Self>,
}

impl FlameGraph {
    /// Adds samples of a stack, whose outermost function comes first.
    pub(super) fn add(&mut self, stack: impl IntoIterator<Item = String>, samples: usize) {
        let mut graph = self;
        graph.samples += samples;
        for function in stack {
            graph = graph.callees.entry(function).or_default();
            graph.samples += samples;
        }
    }

    /// Returns the picture. Without samples it says so.
    ///
    /// # Errors
    /// None: text is written into memory.
    pub(super) fn to_svg(&self) -> Result<String, fmt::Error> {
        let height = ROW * f64::from(u32::try_from(self.depth() + 2).unwrap_or(u32::MAX));
        let mut svg = String::new();
        write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"monospace\" font-size=\"11\">\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
        )?;
        let name = if self.samples == 0 { "no samples: no CPU time was used" } else { "all" };
        self.draw(&mut svg, name, 0.0, WIDTH, 0, self.samples)?;
        svg.push_str("</svg>\n");
        Ok(svg)
    }

    fn depth(&self) -> usize {
        1 + self.callees.values().map(Self::depth).max().unwrap_or(0)
    }

    fn draw(
        &self,
        svg: &mut String,
        name: &str,
        x: f64,
        width: f64,
        row: u32,
        all: usize,
    ) -> fmt::Result {
        let (y, samples) = (ROW * f64::from(row), self.samples);
        let percent = 100.0 * samples as f64 / all.max(1) as f64;
        let hue = 20 + name.bytes().fold(0_u32, |hash, byte| hash * 31 % 41 + u32::from(byte)) % 40;
        let letters = (width / CHARACTER) as usize;
        let shown: String = if letters < 3 {
            String::new()
        } else {
            // The end of a path is what distinguishes it.
            let skipped = name.chars().count().saturating_sub(letters - 1);
            let mark = if skipped > 0 { "…" } else { "" };
            mark.chars().chain(name.chars().skip(skipped)).collect()
        };
        write!(
            svg,
            "<g><title>{} ({samples} samples, {percent:.1} %)</title>\
             <rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" \
             fill=\"hsl({hue},85%,70%)\" stroke=\"#fff\" stroke-width=\"0.5\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text></g>",
            Escaped(name),
            ROW - 1.0,
            x + 2.0,
            y + 12.0,
            Escaped(&shown)
        )?;
        let mut left = x;
        for (function, callee) in &self.callees {
            let share = width * callee.samples as f64 / samples.max(1) as f64;
            if share >= BOX_MIN {
                callee.draw(svg, function, left, share, row + 1, all)?;
            }
            left += share;
        }
        Ok(())
    }
}

/// Text in XML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                control if control.is_control() => f.write_char('?')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_as_wide_as_its_share_and_names_are_escaped() {
        let mut graph = FlameGraph::default();
        graph.add(["main", "a<T>"].map(str::to_owned), 3);
        graph.add(["main", "b"].map(str::to_owned), 1);
        let svg = graph.to_svg().unwrap();
        assert!(svg.contains("<title>main (4 samples, 100.0 %)</title>"), "{svg}");
        assert!(svg.contains("<title>a&lt;T&gt; (3 samples, 75.0 %)</title>"), "{svg}");
        assert!(svg.contains("width=\"900.0\"") && svg.contains("x=\"900.0\""), "{svg}");
        assert!(!svg.contains("script"), "{svg}");
    }
}
