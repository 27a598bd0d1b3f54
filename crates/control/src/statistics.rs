//! What was measured, as JSON. The schema is in `docs/control.md`.

use nerite_machine::{ProcessorCounts, Report, hypercalls};
use nerite_vcpu::{ExitKind, Histogram, Statistics};
use serde_json::{Map, Value, json};

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn histogram(times: &Histogram) -> Value {
    let buckets: Vec<_> = times.buckets().map(|(from, count)| json!([from, count])).collect();
    json!({ "count": times.count(), "ns": nanos(times.sum()), "buckets": buckets })
}

/// One vCPU, or several together.
#[must_use]
pub fn of_vcpus(statistics: &Statistics) -> Value {
    let mut exits = Map::new();
    for kind in ExitKind::ALL {
        let count = statistics.exits.of(kind);
        if count == 0 {
            continue;
        }
        let mut of_kind = Map::from_iter([("count".to_owned(), json!(count))]);
        let times = statistics.service_of(kind);
        if times.count() > 0 {
            of_kind.insert("service".to_owned(), histogram(&times));
        }
        exits.insert(kind.name().to_owned(), Value::Object(of_kind));
    }
    let (calls, ports) = hypercalls(statistics);
    let calls: Map<_, _> = calls.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    let ports: Map<_, _> = ports.into_iter().map(|(port, count)| (port.to_string(), json!(count))).collect();
    json!({
        "exits": exits,
        "exits_total": statistics.exits.total(),
        "guest_ns": nanos(statistics.in_guest.sum()),
        "vmm_ns": nanos(statistics.time_in_vmm()),
        "in_guest": histogram(&statistics.in_guest),
        "completions": statistics.completions,
        "signals": statistics.signals,
        "in_kernel": statistics.in_kernel.map(|counts| json!({
            "exits": counts.exits,
            "interrupts": counts.interrupts,
            "nmis": counts.nmis,
            "halts": counts.halts,
        })),
        "hypercalls": calls,
        "ports": ports,
    })
}

/// A whole run.
#[must_use]
pub fn of_run(report: &Report) -> Value {
    let mut run = json!({
        "version": 1,
        "wall_ns": nanos(report.wall_time),
        "memory_touched": report.memory_touched,
        "memory_size": report.memory_size,
        "posted_writes": report.coalesced_writes,
        "vcpus": report.vcpus.iter().map(of_vcpus).collect::<Vec<_>>(),
        "total": of_vcpus(&report.total()),
    });
    if let (Some(counts), Value::Object(fields)) = (report.processor, &mut run) {
        fields.insert("processor".to_owned(), of_processor(counts));
    }
    run
}

/// What the processor counted.
#[must_use]
pub fn of_processor(counts: ProcessorCounts) -> Value {
    json!({ "instructions": counts.instructions, "cycles": counts.cycles })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    }
}
