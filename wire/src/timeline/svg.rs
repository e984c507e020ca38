//! Draws a picture as SVG, without scripts or embedded fonts, readable on light and dark pages.

use super::{Bar, Kind, Picture, Row, Sign, Tone, seconds};
use std::{
    fmt::{self, Write},
    time::Duration,
};

const WIDTH: f64 = 1_120.0;
const LEFT: f64 = 168.0;
const RIGHT: f64 = 24.0;
const ROW: f64 = 24.0;
const TITLE: f64 = 62.0;
/// Space above the rows: signals, then the names of the bands, then deadlines.
const HEAD: f64 = 74.0;
const FOOT: f64 = 74.0;
const FONT: &str = "font-family=\"ui-sans-serif, system-ui, Helvetica, Arial, sans-serif\"";

impl Picture {
    /// Returns the picture as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.draw(&mut out);
        out
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + self.place(at) * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, out: &mut String) -> fmt::Result {
        let top = TITLE + HEAD;
        let bottom = top + ROW * self.rows.len().max(1) as f64 + 8.0;
        let height = bottom + FOOT;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" {FONT} font-size=\"12\">"
        )?;
        writeln!(out, "<title>{}</title>", escape(&self.title))?;
        writeln!(
            out,
            "<rect width=\"{WIDTH}\" height=\"{height:.0}\" rx=\"10\" fill=\"#ffffff\"/>"
        )?;
        text(
            out,
            24.0,
            28.0,
            "font-size=\"17\" font-weight=\"600\" fill=\"#1f2937\"",
            &self.title,
        )?;
        text(out, 24.0, 48.0, "fill=\"#6b7280\"", &self.outcome)?;
        self.draw_bands(out, top, bottom)?;
        self.draw_axis(out, top, bottom)?;
        self.draw_deadlines(out, top, bottom)?;
        for (n, row) in self.rows.iter().enumerate() {
            self.draw_row(out, row, top + ROW * n as f64 + 4.0)?;
        }
        self.draw_stops(out, top, bottom)?;
        legend(out, height - 20.0)?;
        writeln!(out, "</svg>")
    }

    fn draw_bands(&self, out: &mut String, top: f64, bottom: f64) -> fmt::Result {
        let mut free_from = 0.0;
        for band in &self.bands {
            let (from, to) = (self.x(band.from), self.x(band.to));
            if band.to <= self.from || to - from < 0.4 {
                continue;
            }
            let (fill, ink) = colours(band.tone);
            let (y, width) = (top - 26.0, to - from);
            writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
                 fill=\"{fill}\"/>\
                 <rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"3\" \
                 fill=\"{ink}\"/>",
                bottom - y
            )?;
            let name = &band.name;
            if from + 5.0 >= free_from && width > name.len() as f64 * 6.0 {
                let style = format!("font-weight=\"600\" fill=\"{ink}\"");
                text(out, from + 5.0, top - 8.0, &style, name)?;
                free_from = from + 5.0 + name.len() as f64 * 7.0;
            }
        }
        Ok(())
    }

    fn draw_axis(&self, out: &mut String, top: f64, bottom: f64) -> fmt::Result {
        for at in self.ticks() {
            let x = self.x(at);
            writeln!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" \
                 stroke=\"#111827\" stroke-opacity=\"0.07\"/>"
            )?;
            text(
                out,
                x,
                bottom + 16.0,
                "text-anchor=\"middle\" fill=\"#6b7280\" font-size=\"11\"",
                &seconds(at),
            )?;
        }
        Ok(())
    }

    fn draw_row(&self, out: &mut String, row: &Row, y: f64) -> fmt::Result {
        let style = "text-anchor=\"end\" fill=\"#374151\"";
        text(out, LEFT - 10.0, y + ROW / 2.0 + 4.0, style, &row.label)?;
        let (lanes, count) = lanes(&row.bars);
        for (bar, lane) in row.bars.iter().zip(lanes).filter(|(bar, _)| bar.to >= self.from) {
            self.draw_bar(out, bar, y, (lane, count))?;
        }
        for (at, sign) in row.marks.iter().filter(|(at, _)| *at >= self.from) {
            draw_sign(out, self.x(*at), y + ROW / 2.0, *sign)?;
        }
        Ok(())
    }

    fn draw_bar(
        &self,
        out: &mut String,
        bar: &Bar,
        y: f64,
        (lane, lanes): (usize, usize),
    ) -> fmt::Result {
        let (from, to) = (self.x(bar.from), self.x(bar.to));
        let middle = y + ROW / 2.0;
        let fill = match bar.kind {
            Kind::Open => {
                return writeln!(
                    out,
                    "<line x1=\"{from:.1}\" y1=\"{middle:.1}\" x2=\"{to:.1}\" y2=\"{middle:.1}\" \
                     stroke=\"#9ca3af\" stroke-width=\"2\"/>"
                );
            }
            Kind::Completed => "#2f9e6e",
            Kind::Refused => "#d98a1f",
            Kind::Broken => "#d0413a",
            Kind::Hook => "#5b6ee1",
            Kind::HookBroken => "#a63a8c",
        };
        let width = (to - from).max(3.0);
        let height = (ROW - 8.0) / lanes as f64;
        writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"{}\" \
             fill=\"{fill}\"/>",
            y + 4.0 + height * lane as f64,
            if lanes > 1 { height - 1.0 } else { height },
            if lanes > 1 { 1.5 } else { 3.0 },
        )?;
        if lanes == 1 && width > bar.label.len() as f64 * 6.2 + 8.0 {
            text(out, from + 6.0, middle + 4.0, "fill=\"#ffffff\" font-size=\"11\"", &bar.label)?;
        }
        Ok(())
    }

    fn draw_deadlines(&self, out: &mut String, top: f64, bottom: f64) -> fmt::Result {
        for deadline in
            self.deadlines.iter().filter(|mark| mark.at >= self.from && mark.at <= self.to)
        {
            let x = self.x(deadline.at);
            writeln!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#374151\" \
                 stroke-dasharray=\"3 3\"/>",
                bottom + 22.0
            )?;
            let style =
                "text-anchor=\"middle\" fill=\"#374151\" font-size=\"11\" font-style=\"italic\"";
            text(out, x, bottom + 33.0, style, &deadline.what)?;
        }
        Ok(())
    }

    fn draw_stops(&self, out: &mut String, top: f64, bottom: f64) -> fmt::Result {
        let (mut last, mut lift) = (f64::MIN, 0.0);
        for stop in self.stops.iter().filter(|mark| mark.at >= self.from && mark.at <= self.to) {
            let x = self.x(stop.at);
            lift = if x - last < 58.0 { (lift + 13.0) % 26.0 } else { 0.0 };
            last = x;
            let y = top - 36.0 - lift;
            writeln!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" \
                 stroke=\"#b91c1c\" stroke-width=\"1.4\"/>\
                 <path d=\"M{:.1} {:.1} h8 l-4 7 z\" fill=\"#b91c1c\"/>",
                x - 4.0,
                top - 33.0
            )?;
            text(
                out,
                x + 4.0,
                y + 2.0,
                "fill=\"#b91c1c\" font-weight=\"600\" font-size=\"11\"",
                &stop.what,
            )?;
        }
        Ok(())
    }
}

/// Assigns each request of a connection to a lane, so that concurrent requests do not hide each
/// other.
fn lanes(bars: &[Bar]) -> (Vec<usize>, usize) {
    let mut ends: Vec<Duration> = Vec::new();
    let mut lane_of = |bar: &Bar| {
        if bar.kind == Kind::Open {
            return 0;
        }
        let free = ends.iter().position(|end| *end <= bar.from);
        let lane = free.unwrap_or(ends.len());
        if free.is_none() {
            ends.push(bar.to);
        }
        ends[lane] = bar.to;
        lane
    };
    let lanes = bars.iter().map(&mut lane_of).collect();
    (lanes, ends.len().max(1))
}

const fn colours(tone: Tone) -> (&'static str, &'static str) {
    match tone {
        Tone::Grey => ("#f3f4f6", "#6b7280"),
        Tone::Green => ("#ecfdf3", "#15803d"),
        Tone::Yellow => ("#fef9e7", "#a16207"),
        Tone::Blue => ("#eaf4ff", "#1d4ed8"),
        Tone::Red => ("#fdeeee", "#b91c1c"),
        Tone::Purple => ("#f5effd", "#7e22ce"),
        Tone::Dark => ("#e5e7eb", "#374151"),
    }
}

fn draw_sign(out: &mut String, x: f64, y: f64, sign: Sign) -> fmt::Result {
    match sign {
        Sign::Goaway => writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5.5\" fill=\"#ffffff\" stroke=\"#1f2937\" \
             stroke-width=\"1.3\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"8\" \
             font-weight=\"700\" fill=\"#1f2937\">G</text>",
            y + 3.0
        ),
        Sign::Close => {
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"#1f2937\"/>")
        }
        Sign::Fin => writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#1f2937\" \
             stroke-width=\"2.2\"/>",
            y - 6.0,
            y + 6.0
        ),
        Sign::Reset => writeln!(
            out,
            "<path d=\"M{:.1} {:.1} l9 9 m0 -9 l-9 9\" stroke=\"#d0413a\" stroke-width=\"2.4\" \
             fill=\"none\"/>",
            x - 4.5,
            y - 4.5
        ),
    }
}

fn legend(out: &mut String, y: f64) -> fmt::Result {
    let fills = [
        ("answered", "#2f9e6e"),
        ("503 or 408", "#d98a1f"),
        ("incomplete", "#d0413a"),
        ("hook", "#5b6ee1"),
    ];
    let mut x = LEFT;
    for (name, fill) in fills {
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"14\" height=\"10\" rx=\"2\" fill=\"{fill}\"/>",
            y - 9.0
        )?;
        text(out, x + 20.0, y, "fill=\"#6b7280\" font-size=\"11\"", name)?;
        x += 40.0 + name.len() as f64 * 6.4;
    }
    for (name, sign) in [
        ("GOAWAY", Sign::Goaway),
        ("Connection: close", Sign::Close),
        ("closed", Sign::Fin),
        ("reset", Sign::Reset),
    ] {
        draw_sign(out, x + 6.0, y - 4.0, sign)?;
        text(out, x + 18.0, y, "fill=\"#6b7280\" font-size=\"11\"", name)?;
        x += 40.0 + name.len() as f64 * 6.4;
    }
    Ok(())
}

fn text(out: &mut String, x: f64, y: f64, style: &str, words: &str) -> fmt::Result {
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escape(words))
}

/// Escapes text for XML. What XML cannot have, such as control characters, is replaced.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\n' | '\t' => escaped.push(char),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            char if char.is_control() => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    // The coloured output of a server in the story of a failure made its picture unreadable.
    #[test]
    fn a_picture_has_no_control_characters() {
        assert_eq!(escape("\x1b[31m<a> & b\n"), "\u{fffd}[31m&lt;a&gt; &amp; b\n");
    }
}
