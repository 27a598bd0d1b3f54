//! Options that watch, limit and control a run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueHint};
use merge::Merge;
use nerite_gdb::Address;
use nerite_machine::config::{
    Debug, Observe, OnCrash, OnReboot, Place, PlannedSnapshot, SnapshotMoment, SwitchAt,
};

use super::CrashAction;

/// Options that watch, limit and control a run; not in configuration files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Merge)]
#[command(next_help_heading = "Observation")]
#[merge(strategy = merge::option::overwrite_none)]
pub struct ObserveOptions {
    /// Print what the run was like on standard error: `table`, `json`, or `json:FILE` for a file
    ///
    /// Exits by reason and vCPU and how long they took to answer, time in the guest, hypercalls by
    /// name, memory touched. Without this option, none of it is measured.
    #[arg(long, value_name = "table|json[:FILE]", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "table")]
    pub stats: Option<StatsSetting>,

    /// Record every exit in this file, as lines of JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,

    /// End the guest after this time, such as 500ms, 5s, 2m or 1h, with exit code 245
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub time_limit: Option<Duration>,

    /// Stop a guest that is not Hermit by its power button: it has this time to power itself off
    /// after SIGTERM, SIGINT or SIGHUP
    ///
    /// A guest that does ends vmm with exit code 0. A second signal ends vmm at once.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub graceful: Option<Duration>,

    /// End the guest after its vCPUs have executed this many instructions together, with exit code
    /// 248
    ///
    /// The number is exact. The processor in software counts at full speed. On KVM a guest with one
    /// vCPU is counted by the processor, if that can, and otherwise executed one instruction at a
    /// time, which is slow; handlers of interrupts run uncounted between single steps.
    #[arg(long, value_name = "N", value_parser = parse_instructions)]
    #[arg(conflicts_with_all = ["gdb", "gdb_port", "gdb_attach"])]
    pub insn_limit: Option<u64>,

    /// Print the number of instructions at the end, by function, and write it to a file as JSON
    ///
    /// Each function of an image with symbols has a row, the largest first. The count is exact, and
    /// with one vCPU the same in every run: the guest runs on the processor in software, with
    /// `--clock virtual` unless that is set.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "", value_hint = ValueHint::FilePath)]
    pub count: Option<CountSetting>,

    /// Count from the first time that the guest comes here: an address of the image as linked, such
    /// as 0x1234, or the name of a function
    ///
    /// With `--accel kvm,software` it runs on KVM up to there, and then in software.
    #[arg(long, value_name = "ADDRESS|FUNCTION", requires = "count", value_parser = parse_place)]
    #[arg(conflicts_with_all = ["gdb", "gdb_attach", "insn_limit", "switch_at"])]
    pub count_from: Option<Place>,

    /// Hand the guest over to the other accelerator at an address or function (as `--count-from`),
    /// after insn:N instructions, or after time:T
    ///
    /// It happens once, and with `--accel kvm,software` or `software,kvm` only. Instructions are
    /// counted in software only. Where KVM cannot stop at an address by itself, it executes the
    /// guest one instruction at a time up to there.
    #[arg(long, value_name = "ADDRESS|FUNCTION|insn:N|time:T", value_parser = parse_switch_at)]
    #[arg(conflicts_with_all = ["gdb", "gdb_attach", "insn_limit"])]
    pub switch_at: Option<SwitchAt>,

    /// Save the guest to this directory, which is made, at the moment of --snapshot-at
    ///
    /// The guest goes on afterwards. `vmm run --restore` resumes it from there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "snapshot_at")]
    pub snapshot: Option<PathBuf>,

    /// Moment at which --snapshot saves the guest: `exit` or `first-output`
    ///
    /// `exit` is before the guest ends itself, by its exit code or by powering itself off: when
    /// restored, that is the first thing it does. `first-output` is after its first output has been
    /// passed on.
    #[arg(long, value_name = "exit|first-output", value_parser = parse_snapshot_at)]
    #[arg(requires = "snapshot")]
    pub snapshot_at: Option<SnapshotMoment>,

    /// Make a socket for `vmm ctl`, which pauses, asks and ends this guest
    ///
    /// It is accessible to this user only, and removed in the end.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub api_socket: Option<PathBuf>,

    /// Hold the guest before its first instruction and wait for GDB [env: HERMIT_GDB_PORT]
    ///
    /// In GDB: `file IMAGE`, then `target remote :6677`. A port, tcp:ADDRESS:PORT or unix:PATH;
    /// without one, port 6677 of this host. The TCP port is unauthenticated: anyone who can connect
    /// controls the guest.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "6677", overrides_with = "gdb_port")]
    pub gdb: Option<Address>,

    /// The same as --gdb, as uhyve spells it: the port may stand after a space
    #[arg(short = 's', long, value_name = "PORT", num_args = 0..=1, default_missing_value = "6677")]
    #[arg(conflicts_with = "gdb_attach", hide_short_help = true)]
    #[merge(skip)]
    gdb_port: Option<Address>,

    /// Let the guest run, and GDB attach when it likes
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "6677", conflicts_with = "gdb")]
    pub gdb_attach: Option<Address>,
}

impl ObserveOptions {
    /// Replaces the peer's spelling.
    pub(super) fn normalize(&mut self) {
        merge::option::overwrite_none(&mut self.gdb, self.gdb_port.take());
    }

    /// The observation of a machine, with the actions at a crash and a reboot, and the debugger's
    /// `start`.
    pub(super) fn config(
        &self,
        on_crash: OnCrash,
        on_reboot: OnReboot,
        start: Option<Debug>,
    ) -> Observe {
        Observe {
            on_crash,
            on_reboot,
            statistics: self.stats.is_some(),
            trace: self.trace.clone(),
            time_limit: self.time_limit,
            graceful_stop: self.graceful,
            instruction_limit: self.insn_limit,
            count: self.count.is_some(),
            count_from: self.count_from.clone(),
            switch_at: self.switch_at.clone(),
            debug: start,
            snapshots: self.api_socket.is_some(),
            snapshot: self
                .snapshot
                .clone()
                .zip(self.snapshot_at)
                .map(|(directory, moment)| PlannedSnapshot { directory, moment }),
            hold_ends: false,
            keep_halted: self.api_socket.is_some() || start.is_some(),
        }
    }

    pub(super) fn debugger<'a>(
        &'a self,
        on_crash: Option<&'a CrashAction>,
    ) -> Option<(&'a Address, Debug)> {
        let held = self.gdb.as_ref().map(|address| (address, Debug::Held));
        let later = match on_crash {
            Some(CrashAction::Gdb(address)) => self.gdb_attach.as_ref().or(Some(address)),
            _ => self.gdb_attach.as_ref(),
        };
        held.or_else(|| later.map(|address| (address, Debug::Running)))
    }
}

/// Parses an instruction of a guest: what begins with a digit is an address.
fn parse_place(text: &str) -> Result<Place, String> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let address = crate::number::parse_number(text);
        return address.map(Place::Address).map_err(|error| format!("address {text}: {error}"));
    }
    if text.is_empty() { Err("the name is empty".into()) } else { Ok(Place::Function(text.into())) }
}

/// Parses the moment of a hand-over.
fn parse_switch_at(text: &str) -> Result<SwitchAt, String> {
    match text.split_once(':') {
        Some(("insn", count)) => {
            parse_instructions(count).map(SwitchAt::Instructions).map_err(|error| error.to_string())
        }
        Some(("time", time)) => {
            parse_time(time).map(SwitchAt::Time).map_err(|error| error.to_string())
        }
        _ => parse_place(text).map(SwitchAt::Place),
    }
}

/// Parses the moment of a snapshot.
fn parse_snapshot_at(text: &str) -> Result<SnapshotMoment, &'static str> {
    match text {
        "exit" => Ok(SnapshotMoment::Exit),
        "first-output" => Ok(SnapshotMoment::FirstOutput),
        _ => Err("write `exit` or `first-output`"),
    }
}

/// Destination of the numbers of instructions, besides standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountSetting(pub Option<PathBuf>);

impl From<OsString> for CountSetting {
    fn from(path: OsString) -> Self {
        Self(Some(path).filter(|path| !path.is_empty()).map(PathBuf::from))
    }
}

/// Format of the statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatsSetting {
    /// A table for people.
    Table,
    /// One line of JSON, on standard error or in a file.
    Json(Option<PathBuf>),
}

/// The text is not a format of statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `table`, `json` or `json:FILE`")]
pub struct StatsError;

impl FromStr for StatsSetting {
    type Err = StatsError;

    fn from_str(text: &str) -> Result<Self, StatsError> {
        match text.split_once(':') {
            None if text == "table" => Ok(Self::Table),
            None if text == "json" => Ok(Self::Json(None)),
            Some(("json", path)) if !path.is_empty() => Ok(Self::Json(Some(path.into()))),
            _ => Err(StatsError),
        }
    }
}

/// A number of instructions on the command line.
fn parse_instructions(text: &str) -> Result<u64, &'static str> {
    text.parse()
        .map_err(|_| "not a number of instructions; write digits without a unit, such as 1000000")
}

/// The longest time that can be asked for: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time; write a number and a unit, such as 500ms, 5s, 2m or 1h, from 1us to a year")]
pub struct TimeError;

/// The time that `text` stands for: a number, which may have a fraction, and one of the units us,
/// ms, s, m, h.
///
/// # Errors
///
/// If it is something else, shorter than a microsecond or longer than a year.
pub fn parse_time(text: &str) -> Result<Duration, TimeError> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(TimeError)?;
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || number.starts_with('.') || number.ends_with('.') {
        return Err(TimeError);
    }
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(TimeError),
    };
    let number: f64 = number.parse().map_err(|_| TimeError)?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| TimeError)?;
    if (Duration::from_micros(1)..=LONGEST).contains(&time) { Ok(time) } else { Err(TimeError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "", "5", "s", "-1s", "+1s", "1 s", "1.2.3s", ".5s", "5.s", "0s", "9000000h", "1d",
            "1e3s",
        ] {
            assert_eq!(parse_time(bad), Err(TimeError), "{bad}");
        }
    }

    #[test]
    fn a_kept_crash_needs_a_debugger() {
        let options = ObserveOptions::default();
        let crash = CrashAction::Gdb(Address::default());
        assert_eq!(options.debugger(Some(&crash)).map(|(_, start)| start), Some(Debug::Running));
        assert_eq!(options.debugger(Some(&CrashAction::Report)), None);
    }

    #[test]
    fn instruction_limits_are_digits() {
        assert_eq!(parse_instructions("1000000"), Ok(1_000_000));
        for bad in ["1M", "", "-1", "1e6"] {
            assert!(parse_instructions(bad).unwrap_err().contains("such as 1000000"), "{bad}");
        }
    }

    #[test]
    fn statistics_are_a_table_or_json() {
        assert_eq!("table".parse(), Ok(StatsSetting::Table));
        assert_eq!("json".parse(), Ok(StatsSetting::Json(None)));
        assert_eq!("json:a:b".parse(), Ok(StatsSetting::Json(Some("a:b".into()))));
        for bad in ["", "json:", "xml", "table:x"] {
            assert_eq!(bad.parse::<StatsSetting>(), Err(StatsError), "{bad}");
        }
    }
}
