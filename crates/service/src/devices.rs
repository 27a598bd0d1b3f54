//! Counters of devices.

use std::fmt;

/// Counters of a device, or of one of its queues, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Kind of the device in words, such as `network card`.
    pub device: &'static str,
    /// Name that tells it from others of its kind: an address or a path; empty if there is one of
    /// it at most.
    pub name: String,
    /// Remark for people, if there is something to say, such as `read-only`.
    pub note: Option<&'static str>,
    /// Name of the queue, if these are the counters of one.
    pub queue: Option<String>,
    /// Names and values. A value is a number of events, unless its name ends in a unit.
    pub counters: Vec<(&'static str, u64)>,
}

/// The counters of devices as text: a table for each device, with a row for each queue, and an
/// empty line before each.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTables<'a>(pub &'a [DeviceCounters]);

impl fmt::Display for DeviceTables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_same = |one: &DeviceCounters, other: &DeviceCounters| {
            (one.device, &one.name) == (other.device, &other.name)
        };
        for rows in self.0.chunk_by(is_same) {
            let Some(first) = rows.first() else { continue };
            write!(f, "\n{}", first.device)?;
            if !first.name.is_empty() {
                write!(f, " {}", first.name)?;
            }
            if let Some(note) = first.note {
                write!(f, ", {note}")?;
            }
            writeln!(f)?;
            if first.counters.is_empty() {
                continue;
            }
            let queue = |row: &DeviceCounters| {
                row.queue.as_ref().map_or(String::new(), |queue| format!("{queue:<12}"))
            };
            write!(f, "{}", " ".repeat(queue(first).len()))?;
            for (name, _) in &first.counters {
                write!(f, " {name:>14}")?;
            }
            writeln!(f)?;
            for row in rows {
                write!(f, "{}", queue(row))?;
                for (name, value) in &row.counters {
                    write!(f, " {value:>0$}", name.len().max(14))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_table_and_a_queue_a_row() {
        let queue = |queue: &str, packets, packet_bytes| DeviceCounters {
            device: "network card",
            name: "52:54:00:00:00:01".into(),
            queue: Some(queue.into()),
            counters: vec![("packets", packets), ("packet_bytes_in_all", packet_bytes)],
            ..DeviceCounters::default()
        };
        let disk = DeviceCounters {
            device: "disk",
            name: "/a b".into(),
            note: Some("read-only"),
            counters: vec![("reads", 7)],
            ..DeviceCounters::default()
        };
        let silent = DeviceCounters { device: "balloon", ..DeviceCounters::default() };
        let all = [queue("receiveq1", 1, 60), queue("transmitq1", 20, 1500), disk, silent];
        let wanted = "
network card 52:54:00:00:00:01
                    packets packet_bytes_in_all
receiveq1                 1                  60
transmitq1               20                1500

disk /a b, read-only
          reads
              7

balloon
";
        assert_eq!(DeviceTables(&all).to_string(), wanted);
        assert_eq!(DeviceTables(&[]).to_string(), "");
    }
}
