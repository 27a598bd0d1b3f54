//! The report as a page with plots.

use std::fmt::Write as _;

use super::data::{Kind, Measure, Report};
use super::stats::{median, number, paired_ratio};
use super::table;

const WIDTH: f64 = 860.0;
/// Left edge of the plots, right of the names, and their width.
const LEFT: f64 = 330.0;
const PLOT: f64 = 430.0;
const ROW: f64 = 38.0;
const OURS: &str = "#2a6f97";
const PEER: &str = "#c1666b";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A page that stands for itself.
pub(crate) fn report(report: &Report) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Nerite bench</title>\n\
         <style>body{{font:14px sans-serif;margin:2em;max-width:60em}}pre{{overflow-x:auto}}</style>\n\
         <h1>Nerite bench</h1>\n<p>Each dot is a run, each line a median. \
         <b style=\"color:{OURS}\">Ours</b>, <b style=\"color:{PEER}\">peer</b>. Axes begin at 0.</p>\n\
         {}\n<pre>{}</pre>\n</html>\n",
        plots(&report.measures),
        escaped(&table::print(report, None))
    )
}

/// One row of dots for each measure, except for the many that only break others down.
pub(crate) fn plots(measures: &[Measure]) -> String {
    let shown: Vec<&Measure> =
        measures.iter().filter(|measure| !measure.what.starts_with("exits: ")).collect();
    let height = 20.0 + ROW * shown.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, measure) in shown.into_iter().enumerate() {
        plot(&mut svg, measure, 10.0 + ROW * row as f64);
    }
    svg.push_str("</svg>");
    svg
}

fn plot(svg: &mut String, measure: &Measure, top: f64) {
    let all = measure.ours.iter().chain(&measure.peer);
    let most = all.copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let x = |value: f64| LEFT + PLOT * value / most;
    let more = if measure.kind == Kind::Rate { ", more is better" } else { "" };
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"{:.1}\">{}: {}{more}</text>",
        top + 18.0,
        escaped(&measure.bench),
        escaped(&measure.what)
    );
    let _ = writeln!(svg, "<path d=\"M{LEFT} {top:.1}v28\" stroke=\"#999\"/>");
    for (samples, colour, y) in
        [(&measure.ours, OURS, top + 8.0), (&measure.peer, PEER, top + 21.0)]
    {
        if samples.is_empty() {
            continue;
        }
        for value in samples {
            let x = x(*value);
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\" opacity=\"0.45\"/>"
            );
        }
        let middle = median(samples);
        let x = x(middle);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}v11\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            y - 5.5
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{} {}</text>",
            LEFT + PLOT + 8.0,
            y + 4.0,
            number(middle),
            escaped(&measure.unit)
        );
    }
    if let Some(ratio) = paired_ratio(measure) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{ratio:.2}</text>",
            LEFT - 34.0,
            top + 18.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_dot_for_each_sample_and_nothing_of_html_gets_in() {
        let measure = Measure {
            bench: "a<b>".to_owned(),
            what: "time".to_owned(),
            unit: "us".to_owned(),
            kind: Kind::Time,
            ours: vec![1.0, 2.0],
            peer: vec![4.0],
        };
        let hidden = Measure { what: "exits: port".to_owned(), ..measure.clone() };
        let svg = plots(&[measure, hidden]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("a&lt;b&gt;") && !svg.contains("a<b>"));
        // The largest value is at the right end.
        assert!(svg.contains(&format!("cx=\"{:.1}\"", LEFT + PLOT)));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
    }
}
