//! The report as text.

use std::fmt::Write as _;

use super::data::{Kind, Measure, Report};
use super::stats::{Change, change, median, number, paired_ratio, quantile};

/// The whole report; with what has changed since `before`.
pub(crate) fn print(report: &Report, before: Option<&Report>) -> String {
    let mut out = String::new();
    let peer = report.peer.as_deref().unwrap_or("none");
    let _ = writeln!(out, "source {}, {}, peer {peer}", report.source, report.platform);
    let _ =
        writeln!(out, "medians (middle half of the samples); the ratio is that of pairs of runs\n");
    let header = ["", "ours", "peer", "ratio", if before.is_some() { "before" } else { "" }];
    let mut rows: Vec<[String; 5]> = vec![header.map(str::to_owned)];
    let mut bench = "";
    for measure in &report.measures {
        if measure.bench != bench {
            bench = &measure.bench;
            rows.push([
                bench.to_owned(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
        let ratio = paired_ratio(measure).map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let old = before.and_then(|before| same(before, measure)).map(|old| {
            let word = match change(measure.kind, &old.ours, &measure.ours) {
                Change::Same => "",
                Change::Better => " better",
                Change::Worse => " WORSE",
            };
            format!("{}{word}", number(median(&old.ours)))
        });
        rows.push([
            format!("  {}", measure.what),
            samples(measure, &measure.ours),
            samples(measure, &measure.peer),
            ratio,
            old.unwrap_or_default(),
        ]);
    }
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for column in 1..5 {
            let _ = write!(line, "  {:>1$}", row[column], widths[column]);
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for line in &report.skipped {
        let _ = writeln!(out, "skipped: {line}");
    }
    out
}

fn samples(measure: &Measure, samples: &[f64]) -> String {
    if samples.is_empty() {
        return "-".to_owned();
    }
    let middle = number(median(samples));
    let unit = if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) };
    if measure.kind == Kind::Count || samples.len() < 2 {
        return format!("{middle}{unit}");
    }
    format!(
        "{middle}{unit} ({}-{})",
        number(quantile(samples, 0.25)),
        number(quantile(samples, 0.75))
    )
}

fn same<'a>(before: &'a Report, measure: &Measure) -> Option<&'a Measure> {
    let found = before
        .measures
        .iter()
        .find(|old| old.bench == measure.bench && old.what == measure.what)?;
    (!found.ours.is_empty() && !measure.ours.is_empty()).then_some(found)
}

/// Returns `true` if one of our counts is worse than before. Memory differs by a few pages from run
/// to run, and counts only beyond that.
pub(crate) fn counts_are_worse(before: &Report, after: &Report) -> bool {
    const PAGES: f64 = 64.0;
    after.measures.iter().filter(|measure| measure.kind == Kind::Count).any(|measure| {
        same(before, measure).is_some_and(|old| {
            let slack = if measure.unit == "KiB" { PAGES } else { 0.0 };
            median(&measure.ours) > median(&old.ours) + slack
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kind: Kind, ours: &[f64], peer: &[f64]) -> Report {
        let measure = Measure {
            bench: "empty".to_owned(),
            what: "exits".to_owned(),
            unit: String::new(),
            kind,
            ours: ours.to_vec(),
            peer: peer.to_vec(),
        };
        Report {
            version: 1,
            source: "abc".to_owned(),
            platform: "lab".to_owned(),
            peer: Some("uhyve".to_owned()),
            measures: vec![measure],
            skipped: vec!["x: y".to_owned()],
        }
    }

    #[test]
    fn a_row_has_both_and_their_ratio() {
        let text = print(&report(Kind::Count, &[1100.0], &[2200.0]), None);
        let row = text.lines().find(|line| line.contains("exits")).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["exits", "1", "100", "2", "200", "0.50"]
        );
        assert!(text.contains("skipped: x: y"));
    }

    #[test]
    fn worse_counts_are_found_and_times_are_not_counts() {
        let (low, high) = (report(Kind::Count, &[5.0], &[]), report(Kind::Count, &[6.0], &[]));
        assert!(counts_are_worse(&low, &high));
        assert!(!counts_are_worse(&high, &low));
        assert!(!counts_are_worse(
            &report(Kind::Time, &[5.0], &[]),
            &report(Kind::Time, &[50.0], &[])
        ));
        assert!(print(&high, Some(&low)).contains("5 WORSE"));
        assert!(print(&low, Some(&high)).contains("6 better"));
    }
}
