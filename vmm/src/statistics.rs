//! Statistics of a whole run, for people or as JSON. The schemas are in `docs/control.md`
//! and `docs/counting.md`.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use nerite_control::statistics::{nanos, of_devices, of_processor, of_vcpus};
use nerite_machine::{InstructionCounts, Report, hypercall_name};
use nerite_service::{ProcessorCounts, port_counts};
use serde_json::{Value, json};

use crate::error::Error;
use crate::options::{CountSetting, StatsSetting};
use crate::output;

/// Destination of the statistics.
#[derive(Debug)]
pub enum Destination {
    /// None are printed.
    None,
    /// To standard error, for people.
    Table,
    /// To standard error.
    Json,
    /// To a file.
    File(PathBuf, File),
}

impl Destination {
    /// Opens the destination of the statistics, while files can still be opened.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn open(setting: Option<&StatsSetting>) -> Result<Self, Error> {
        Ok(match setting {
            None => Self::None,
            Some(StatsSetting::Table) => Self::Table,
            Some(StatsSetting::Json(None)) => Self::Json,
            Some(StatsSetting::Json(Some(path))) => {
                let failed = |source| Error::Output { to: path.display().to_string(), source };
                Self::File(path.clone(), File::create(path).map_err(failed)?)
            }
        })
    }

    /// Prints the statistics, if they are asked for.
    pub fn print(&mut self, report: &Report) {
        let json = || format!("{}\n", of_run(report));
        match self {
            Self::None => {}
            Self::Table => output::say(&report.to_string()),
            Self::Json => output::say(&json()),
            Self::File(path, file) => {
                if let Err(error) = file.write_all(json().as_bytes()) {
                    log::error!("cannot write the statistics to {}: {error}", path.display());
                }
            }
        }
    }
}

/// Destination of the numbers of instructions, besides standard error.
#[derive(Debug, Default)]
pub struct Counts(Option<(PathBuf, File)>);

impl Counts {
    /// Opens the destination of the numbers of instructions, while files can still be opened.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn open(setting: Option<&CountSetting>) -> Result<Self, Error> {
        let Some(CountSetting(Some(path))) = setting else { return Ok(Self::default()) };
        let failed = |source| Error::Output { to: path.display().to_string(), source };
        Ok(Self(Some((path.clone(), File::create(path).map_err(failed)?))))
    }

    /// Prints the numbers of instructions, if they were counted.
    pub fn print(&mut self, report: &Report) {
        let Some(counts) = &report.instructions else { return };
        output::say(counts.to_string().trim_end());
        if let Some((path, file)) = &mut self.0 {
            let json = format!("{}\n", of_instructions(counts));
            if let Err(error) = file.write_all(json.as_bytes()) {
                log::error!(
                    "cannot write the numbers of instructions to {}: {error}",
                    path.display()
                );
            }
        }
    }
}

/// Statistics of a run as JSON.
#[must_use]
pub fn of_run(report: &Report) -> Value {
    let of_vcpus = |statistics| of_vcpus(statistics, &port_counts(statistics, hypercall_name));
    let mut run = json!({
        "version": 1,
        "wall_ns": nanos(report.wall_time),
        "memory_touched": report.memory_touched,
        "memory_size": report.memory_size,
        "restarts": report.restarts,
        "posted_writes": report.coalesced_writes,
        "vcpus": report.vcpus.iter().map(of_vcpus).collect::<Vec<_>>(),
        "total": of_vcpus(&report.total()),
        "devices": of_devices(&report.devices),
    });
    if let (Some(counts), Value::Object(fields)) = (report.processor, &mut run) {
        let counts = ProcessorCounts { instructions: counts.instructions, cycles: counts.cycles };
        fields.insert("processor".to_owned(), of_processor(counts));
    }
    run
}

/// Instructions of each function.
#[must_use]
pub fn of_instructions(counts: &InstructionCounts) -> Value {
    let functions: Vec<_> = counts
        .functions
        .iter()
        .map(|function| {
            json!({
                "name": function.name,
                "address": function.address,
                "instructions": function.instructions,
            })
        })
        .collect();
    json!({
        "version": 1,
        "instructions": counts.total(),
        "vcpus": counts.vcpus,
        "functions": functions,
        "elsewhere": counts.elsewhere,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nerite_hypervisor::{ExitKind, Statistics};
    use nerite_machine::ProcessorCounts;

    use super::*;

    #[test]
    fn numbers_are_where_the_schema_says() {
        let mut vcpu = Statistics::default();
        vcpu.exits.count(ExitKind::Kicked);
        vcpu.exits.count(ExitKind::PortOut);
        vcpu.service[ExitKind::PortOut as usize].add(Duration::from_nanos(1500));
        vcpu.port_writes = vec![(0x1030, 1), (0xcf8, 4)];
        let report = Report { vcpus: vec![vcpu.clone(), vcpu], ..Report::default() };
        let json = of_run(&report);
        // Not there, rather than zero.
        assert_eq!(json.get("processor"), None);
        let counted = ProcessorCounts { instructions: 3, cycles: 5 };
        let with = of_run(&Report { processor: Some(counted), ..report });
        assert_eq!(with["processor"], json!({ "instructions": 3, "cycles": 5 }));
        assert_eq!(json["total"]["exits"]["kicked"], json!({ "count": 2 }));
        assert_eq!(json["total"]["exits"]["port out"]["service"]["buckets"], json!([[1024, 2]]));
        assert_eq!(json["vcpus"][1]["hypercalls"], json!({ "SerialWriteBuffer": 1 }));
        assert_eq!(json["vcpus"][0]["ports"], json!({ "3320": 4 }));
        assert_eq!(json["memory_touched"], Value::Null);
        assert_eq!(json["total"]["in_kernel"], Value::Null);
        assert_eq!(json["total"]["signals"], 0);
        assert_eq!(json["devices"], json!([]));
    }
}
