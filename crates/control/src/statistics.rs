//! Statistics as JSON. The schema is in `docs/control.md`.

use nerite_service::{DeviceCounters, PortCounts, ProcessorCounts};
use nerite_vcpu::{ExitKind, Histogram, Statistics};
use serde_json::{Map, Value, json};

/// Nanoseconds of a time.
#[must_use]
pub fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn histogram(times: &Histogram) -> Value {
    let buckets: Vec<_> = times.buckets().map(|(from, count)| json!([from, count])).collect();
    json!({ "count": times.count(), "ns": nanos(times.sum()), "buckets": buckets })
}

/// Statistics of one vCPU, or of several together, with their accesses of ports.
#[must_use]
pub fn of_vcpus(statistics: &Statistics, counts: &PortCounts) -> Value {
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
    let PortCounts { calls, ports } = counts;
    let calls: Map<_, _> =
        calls.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    let ports: Map<_, _> =
        ports.iter().map(|(port, count)| (port.to_string(), json!(count))).collect();
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

/// Counts of the processor.
#[must_use]
pub fn of_processor(counts: ProcessorCounts) -> Value {
    json!({ "instructions": counts.instructions, "cycles": counts.cycles })
}

/// Counters of devices.
#[must_use]
pub fn of_devices(devices: &[DeviceCounters]) -> Value {
    let of_device = |device: &DeviceCounters| {
        let counters: Map<_, _> = device
            .counters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "device": device.device,
            "name": device.name,
            "queue": device.queue,
            "counters": counters,
        })
    };
    devices.iter().map(of_device).collect()
}
