//! The curve of lost requests as SVG.

use super::advice::Point;
use std::{fmt::Write, time::Duration};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
/// Space for the numbers next to and below the curve.
const MARGIN: f64 = 56.0;

/// Draws the lost requests per deploy over the lame duck delay, and marks the advised one.
pub(super) fn svg(curve: &[Point], least: Option<Duration>) -> String {
    let longest = curve.last().map_or(1.0, |point| point.lame_duck.as_secs_f64()).max(0.1);
    let most = curve.iter().map(|point| point.losses.per_deploy()).fold(1.0, f64::max);
    let x = |delay: Duration| MARGIN + delay.as_secs_f64() / longest * (WIDTH - 2.0 * MARGIN);
    let y = |lost: f64| HEIGHT - MARGIN - lost / most * (HEIGHT - 2.0 * MARGIN);
    let bottom = y(0.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <path d=\"M{MARGIN} {MARGIN}V{bottom}H{}\" fill=\"none\" stroke=\"#888\"/>\n",
        WIDTH - MARGIN
    );
    let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    };
    text(MARGIN, MARGIN - 16.0, "start", "requests lost per deploy by the lame duck delay");
    text(MARGIN - 8.0, y(most) + 4.0, "end", &format!("{most:.0}"));
    text(MARGIN - 8.0, bottom + 4.0, "end", "0");
    let seconds = longest.floor();
    let every = (seconds / 8.0).ceil().max(1.0);
    let mut second = 0.0;
    while second <= seconds {
        text(x(Duration::from_secs_f64(second)), bottom + 20.0, "middle", &format!("{second} s"));
        second += every;
    }
    // The longest delays may prove nothing.
    let proved = curve.iter().rposition(|point| !point.proves_nothing()).map_or(0, |at| at + 1);
    let points: Vec<String> = curve[..proved]
        .iter()
        .map(|point| format!("{:.1},{:.1}", x(point.lame_duck), y(point.losses.per_deploy())))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#c0392b\" stroke-width=\"2\"/>",
        points.join(" ")
    );
    if let Some(least) = least {
        let at = x(least);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {MARGIN}V{bottom}\" stroke=\"#2980b9\" stroke-dasharray=\"4 4\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#2980b9\">nothing is lost from {:.1} s on</text>",
            at + 6.0,
            MARGIN + 14.0,
            least.as_secs_f64()
        );
    }
    svg + "</svg>\n"
}
