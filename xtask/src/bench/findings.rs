//! Measures from what the worker says.

use super::data::{Case, Counts, Kind, Line, Measure, Run, Who};

/// Everything that the worker has said so far.
pub(super) struct Findings<'a> {
    cases: &'a [Case],
    runs: Vec<Vec<Run>>,
    counts: Vec<Option<Counts>>,
    pub(super) failed: Vec<String>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(cases: &'a [Case]) -> Self {
        Self {
            cases,
            runs: vec![Vec::new(); cases.len()],
            counts: vec![None; cases.len()],
            failed: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, line: Line) {
        match line {
            Line::Timed { case, run } => self.runs[case].push(run),
            Line::Counted { case, counts } => self.counts[case] = Some(counts),
            Line::Failed { case, why } => {
                let Case { bench, who, .. } = &self.cases[case];
                self.failed.push(format!("{bench}, {}: {why}", who.name()));
            }
        }
    }

    pub(super) fn measures(&self) -> Vec<Measure> {
        let mut measures = Measures::default();
        for (at, case) in self.cases.iter().enumerate() {
            for run in &self.runs[at] {
                measures.add(case, "start to first output", "us", Kind::Time, run.first);
                measures.add(case, "start to end", "us", Kind::Time, run.whole);
                for (name, value, unit) in &run.values {
                    let kind = if unit.ends_with("/s") { Kind::Rate } else { Kind::Time };
                    measures.add(case, name, unit, kind, *value);
                }
            }
            if let Some(counts) = &self.counts[at] {
                let exits: u64 = counts.exits.values().sum();
                let figures = [
                    ("exits", "", exits),
                    ("system calls", "", counts.syscalls),
                    ("peak memory", "KiB", counts.rss),
                    ("threads", "", counts.threads),
                ];
                for (what, unit, value) in figures {
                    measures.add(case, what, unit, Kind::Count, value as f64);
                }
                if let Some(moved) = mebibytes(case) {
                    let calls = (counts.syscalls as f64 / moved).round();
                    measures.add(case, "system calls a MiB", "", Kind::Count, calls);
                }
                for (reason, count) in &counts.exits {
                    measures.add(case, &format!("exits: {reason}"), "", Kind::Count, *count as f64);
                }
            }
        }
        measures.0
    }
}

/// MiB that a bench of files moves: the guest's argument, to the file and back.
fn mebibytes(case: &Case) -> Option<f64> {
    case.bench.strip_prefix("file ")?;
    let arguments = case.command.split(|word| word == "--").nth(1)?;
    Some(2.0 * arguments.first()?.parse::<f64>().ok()?)
}

#[derive(Default)]
struct Measures(Vec<Measure>);

impl Measures {
    fn add(&mut self, case: &Case, what: &str, unit: &str, kind: Kind, value: f64) {
        let found = self
            .0
            .iter_mut()
            .position(|measure| measure.bench == case.bench && measure.what == what);
        let at = found.unwrap_or_else(|| {
            self.0.push(Measure {
                bench: case.bench.clone(),
                what: what.to_owned(),
                unit: unit.to_owned(),
                kind,
                ours: Vec::new(),
                peer: Vec::new(),
            });
            self.0.len() - 1
        });
        let measure = &mut self.0[at];
        match case.who {
            Who::Ours => measure.ours.push(value),
            Who::Peer => measure.peer.push(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_become_measures() {
        let case = |who| Case {
            bench: "b".to_owned(),
            who,
            command: Vec::new(),
            expect: String::new(),
            rounds: 1,
            counted: true,
            timeout: 1,
        };
        let cases = [case(Who::Ours), case(Who::Peer)];
        let mut findings = Findings::new(&cases);
        let run = |whole| Run {
            first: 1.0,
            whole,
            values: vec![("w".to_owned(), 7.0, "MiB/s".to_owned())],
        };
        findings.take(Line::Timed { case: 0, run: run(2.0) });
        findings.take(Line::Timed { case: 1, run: run(3.0) });
        findings.take(Line::Timed { case: 0, run: run(4.0) });
        let exits = [("port in 0x1".to_owned(), 5), ("halt".to_owned(), 2)].into();
        findings.take(Line::Counted {
            case: 0,
            counts: Counts { exits, syscalls: 9, rss: 100, threads: 1 },
        });
        findings.take(Line::Failed { case: 1, why: "no".to_owned() });
        let measures = findings.measures();
        let of = |what: &str| measures.iter().find(|measure| measure.what == what).unwrap();
        assert_eq!(
            (of("start to end").ours.clone(), of("start to end").peer.clone()),
            (vec![2.0, 4.0], vec![3.0])
        );
        assert_eq!(of("w").kind, Kind::Rate);
        assert_eq!((of("exits").ours[0], of("exits: halt").ours[0]), (7.0, 2.0));
        assert_eq!(findings.failed, ["b, peer: no"]);
    }

    #[test]
    fn files_are_counted_by_what_is_moved() {
        let command = ["/vmm", "run", "/k/file-rate", "--", "8", "64"].map(str::to_owned).to_vec();
        let case = |bench: &str| Case {
            bench: bench.to_owned(),
            who: Who::Ours,
            command: command.clone(),
            expect: String::new(),
            rounds: 1,
            counted: true,
            timeout: 1,
        };
        let cases = [case("file 64 KiB"), case("flood")];
        let mut findings = Findings::new(&cases);
        for case in 0..2 {
            let counts = Counts { syscalls: 330, ..Counts::default() };
            findings.take(Line::Counted { case, counts });
        }
        let measures = findings.measures();
        let found: Vec<_> =
            measures.iter().filter(|measure| measure.what == "system calls a MiB").collect();
        assert_eq!(
            (found.len(), found[0].bench.as_str(), found[0].ours[0]),
            (1, "file 64 KiB", 21.0)
        );
    }
}
