//! The table.

use std::fs;
use std::process::Command;

use super::Results;
use crate::bench::stats::median;

/// Date, processor and kernel.
pub(super) fn setting() -> String {
    let date = Command::new("date").arg("+%F").output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {}, Linux {}",
        date.unwrap_or_default(),
        model.map_or("an unknown processor", |(_, name)| name),
        kernel.trim()
    )
}

/// Millions of instructions a second in each round of one loop.
fn rates(results: &Results, kind: &str) -> Vec<f64> {
    let samples =
        results.samples.iter().filter(|sample| sample.kind == kind && sample.instructions != 0);
    samples.map(|sample| sample.instructions as f64 / sample.seconds.max(1e-9) / 1e6).collect()
}

/// The median of what the first has of the second in the same round.
fn ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    (!ratios.is_empty()).then(|| median(&ratios))
}

/// A line for each kind of loop: the medians, and what the first is of each other.
pub(super) fn print(results: &[Results]) -> String {
    let Some((ours, others)) = results.split_first() else { return String::new() };
    let mut kinds: Vec<&str> = Vec::new();
    for sample in &ours.samples {
        if !kinds.contains(&sample.kind.as_str()) {
            kinds.push(&sample.kind);
        }
    }
    let mut head = vec!["MIPS".to_owned()];
    head.extend(results.iter().map(|results| results.name.to_owned()));
    head.extend(others.iter().map(|other| format!("{}/{}", ours.name, other.name)));
    let mut text = line(&head);
    for kind in kinds {
        let rates: Vec<Vec<f64>> = results.iter().map(|results| rates(results, kind)).collect();
        let Some((first, rest)) = rates.split_first() else { continue };
        let mut cells = vec![kind.to_owned()];
        cells.extend(
            rates.iter().map(
                |rates| {
                    if rates.is_empty() { "-".to_owned() } else { digits(median(rates)) }
                },
            ),
        );
        cells.extend(rest.iter().map(|other| ratio(first, other).map_or("-".to_owned(), digits)));
        text.push_str(&line(&cells));
    }
    text
}

/// Three digits, as far as they tell something.
fn digits(value: f64) -> String {
    let decimals = match value {
        value if value < 1.0 => 3,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

fn line(cells: &[String]) -> String {
    let (first, rest) =
        cells.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let rest: String = rest.iter().map(|cell| format!(" {cell:>11}")).collect();
    format!("{first:<12}{rest}\n")
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;

    fn results(name: &'static str, seconds: [f64; 3]) -> Results {
        let sample = |(at, seconds): (usize, f64)| Sample {
            kind: if at == 1 { "exits" } else { "integer" }.to_owned(),
            instructions: if name == "native" && at == 1 { 0 } else { 60_000_000 },
            seconds,
        };
        Results { name, samples: seconds.into_iter().enumerate().map(sample).collect() }
    }

    #[test]
    fn rates_and_ratios_are_medians_of_rounds() {
        let table = print(&[
            results("vmm", [0.2, 3.0, 0.2]),
            results("TCG", [0.1, 1.0, 0.4]),
            results("native", [0.01; 3]),
        ]);
        let cells: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[0], ["MIPS", "vmm", "TCG", "native", "vmm/TCG", "vmm/native"]);
        assert_eq!(cells[1], ["integer", "300", "375", "6000", "1.25", "0.050"]);
        assert_eq!(cells[2], ["exits", "20.0", "60.0", "-", "0.333", "-"]);
    }

    #[test]
    fn the_setting_names_date_and_kernel() {
        let setting = setting();
        assert!(setting.starts_with("20") && setting.contains(", Linux "), "{setting}");
    }
}
