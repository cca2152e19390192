//! Throughput as bars, for the documentation.

use std::fmt::Write;

use clap::ValueEnum;

use crate::contender::Contender;
use crate::figures::{Figures, Subject};
use crate::stage::Durability;
use crate::tables::grouped;

const WIDTH: f64 = 820.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 160.0;
const LONGEST: f64 = 560.0;
const ROW: f64 = 18.0;
const GAP: f64 = 34.0;

struct Bars {
    title: String,
    bars: Vec<(Contender, f64)>,
}

/// An SVG picture; `None` where nothing durable was measured.
pub fn render(figures: &Figures) -> Option<String> {
    let groups: Vec<Bars> =
        figures.measured(Durability::Durable).iter().map(|subject| bars(figures, subject)).collect();
    let most = groups.iter().flat_map(|group| &group.bars).map(|(_, rate)| *rate).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let rows = groups.iter().map(|group| group.bars.len()).sum::<usize>() as f64;
    let height = rows * ROW + groups.len() as f64 * GAP + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Row changes a second that a target takes in, medians</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0.0;
    for group in &groups {
        top += GAP;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}</text>", top - 8.0, group.title);
        for (contender, rate) in &group.bars {
            let length = (rate / most * LONGEST).max(1.0);
            let (end, base) = (LEFT - 8.0, top + 12.0);
            let _ = writeln!(
                svg,
                "<text x=\"{end}\" y=\"{base}\" text-anchor=\"end\">{contender}</text>\
                 <rect x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"12\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{base}\">{}</text>",
                top + 2.0,
                colour(*contender),
                LEFT + length + 6.0,
                grouped(*rate)
            );
            top += ROW;
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn bars(figures: &Figures, subject: &Subject) -> Bars {
    let median = |contender| figures.rows_per_second(subject, contender).map(|spread| spread.median);
    let bars = Contender::value_variants().iter().filter_map(|contender| Some((*contender, median(*contender)?)));
    Bars { title: format!("{}, {}: rows/s", subject.flavor, subject.workload), bars: bars.collect() }
}

fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Crossfade | Contender::CrossfadePair => "#1f6feb",
        Contender::CrossfadeBare => "#9ec1f7",
        Contender::ReplicationSerial | Contender::ReplicationFour | Contender::Client => "#d29922",
        Contender::Ceiling => "#8b949e",
    }
}
