//! The options that watch, limit and control a run. Of these a configuration file has what is in [`FileObserve`].

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueHint};
use nerite_gdb::Address;
use nerite_machine::Report;
use nerite_machine::config::{Debug, Irqchip, MsrPolicy, Observe, OnCrash};

use crate::error::Error;
use crate::output;

/// Options of `vmm run` that watch, limit and control a run.
#[derive(Debug, Args, Default)]
pub struct ObserveArgs {
    /// Print what the run was like on standard error: `table`, `json`, or `json:FILE` for a file
    ///
    /// Exits by reason and vCPU and how long they took to answer, time in the guest, hypercalls by name, memory touched.
    /// Without this option, none of it is measured.
    #[arg(long, value_name = "table|json[:FILE]", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "table", help_heading = "Observation")]
    pub stats: Option<StatsSetting>,

    /// Record every exit in this file, as lines of JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Observation")]
    pub trace: Option<PathBuf>,

    /// End the guest after this time, such as 500ms, 5s, 2m or 1h, with exit code 245
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Observation")]
    pub time_limit: Option<Duration>,

    /// End the guest after its vCPUs have executed this many instructions together, with exit code 248
    ///
    /// A guest with one vCPU is counted by the processor, if that can, and otherwise executed one instruction at a time, which is
    /// slow. The number is exact. Handlers of interrupts run uncounted between single steps.
    #[arg(long, value_name = "N", help_heading = "Observation", conflicts_with_all = ["gdb", "gdb_attach"])]
    pub insn_limit: Option<u64>,

    /// What is done when the guest crashes: `report`, `dump[:FILE]` or `gdb[:ADDRESS]` [default: report]
    ///
    /// `report` ends it with exit code 244 and a report on standard error. `dump` also writes an ELF core for `gdb IMAGE FILE`;
    /// without FILE that is IMAGE.core in the current directory. The file is made at the start. `gdb` keeps the guest until GDB
    /// has come to look at it; its addresses are those of --gdb.
    #[arg(long, value_name = "ACTION", help_heading = "Observation")]
    pub on_crash: Option<CrashAction>,

    /// What the guest gets from a model-specific register that KVM does not know: fault, ignore or report [default: fault]
    ///
    /// `fault` is a general protection fault, as from a processor. `ignore` lets it read zero and forgets what it writes.
    /// `report` is a fault, and a line in the log.
    #[arg(long, value_name = "fault|ignore|report", value_parser = parse_msr, help_heading = "Processors")]
    pub msr: Option<MsrPolicy>,

    /// Where the interrupt controllers are: kernel or user [default: kernel]
    ///
    /// `user` is for those who work on them: local APICs in vmm, which injects every interrupt itself, and no other controllers. The
    /// guest is slower, and has no TSC deadline timer. For Hermit guests without network cards.
    #[arg(long, value_name = "kernel|user", value_parser = parse_irqchip, help_heading = "Processors")]
    pub irqchip: Option<Irqchip>,

    /// Make a socket for `vmm ctl`, which pauses, asks and ends this guest
    ///
    /// It is accessible to this user only, and removed in the end.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Observation")]
    pub api_socket: Option<PathBuf>,

    /// Hold the guest before its first instruction and wait for GDB [env: HERMIT_GDB_PORT]
    ///
    /// In GDB: `file IMAGE`, then `target remote :6677`. A port, tcp:ADDRESS:PORT or unix:PATH; without one, port 6677 of this
    /// host. Whoever can reach a TCP port has the guest and all that it can reach.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, help_heading = "Observation")]
    #[arg(default_missing_value = "6677", alias = "gdb-port")]
    pub gdb: Option<Address>,

    /// Let the guest run, and GDB attach when it likes
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, help_heading = "Observation")]
    #[arg(default_missing_value = "6677", conflicts_with = "gdb")]
    pub gdb_attach: Option<Address>,
}

/// What a configuration file says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileObserve {
    /// What is done when the guest crashes.
    pub on_crash: Option<CrashAction>,
    /// What the guest gets from a model-specific register that KVM does not know.
    pub msr: Option<MsrPolicy>,
    /// Where the interrupt controllers are.
    pub irqchip: Option<Irqchip>,
}

impl ObserveArgs {
    /// These options, and those of `file` where these say nothing.
    #[must_use]
    pub fn over(self, file: FileObserve) -> Self {
        Self {
            on_crash: self.on_crash.or(file.on_crash),
            msr: self.msr.or(file.msr),
            irqchip: self.irqchip.or(file.irqchip),
            ..self
        }
    }

    /// What of it concerns the machine.
    #[must_use]
    pub fn machine(&self, image: &Path) -> Observe {
        let on_crash = match &self.on_crash {
            None | Some(CrashAction::Report) => OnCrash::Report,
            Some(CrashAction::Dump(Some(path))) => OnCrash::Dump(path.clone()),
            Some(CrashAction::Dump(None)) => {
                let mut name = image.file_name().unwrap_or_default().to_owned();
                name.push(".core");
                OnCrash::Dump(name.into())
            }
            Some(CrashAction::Gdb(_)) => OnCrash::Hold,
        };
        Observe {
            on_crash,
            statistics: self.stats.is_some(),
            trace: self.trace.clone(),
            time_limit: self.time_limit,
            instruction_limit: self.insn_limit,
            debug: self.debugger().map(|(_, start)| start),
            keep_halted: self.api_socket.is_some() || self.debugger().is_some(),
        }
    }

    /// Where a debugger can connect, and whether the guest waits for it.
    #[must_use]
    pub fn debugger(&self) -> Option<(&Address, Debug)> {
        let held = self.gdb.as_ref().map(|address| (address, Debug::Held));
        let later = match &self.on_crash {
            Some(CrashAction::Gdb(address)) => self.gdb_attach.as_ref().or(Some(address)),
            _ => self.gdb_attach.as_ref(),
        };
        held.or_else(|| later.map(|address| (address, Debug::Running)))
    }

    /// Opens where the statistics will go, while files can still be opened.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub fn open_statistics(&self) -> Result<Statistics, Error> {
        Ok(match &self.stats {
            None => Statistics::None,
            Some(StatsSetting::Table) => Statistics::Table,
            Some(StatsSetting::Json(None)) => Statistics::Json,
            Some(StatsSetting::Json(Some(path))) => {
                let failed = |source| Error::Output { to: path.display().to_string(), source };
                Statistics::File(path.clone(), File::create(path).map_err(failed)?)
            }
        })
    }
}

/// Where the statistics go.
#[derive(Debug)]
pub enum Statistics {
    /// Nowhere.
    None,
    /// To standard error, for people.
    Table,
    /// To standard error.
    Json,
    /// To a file.
    File(PathBuf, File),
}

impl Statistics {
    /// Prints the statistics, if they are asked for.
    pub fn print(&mut self, report: &Report) {
        let json = || format!("{}\n", nerite_control::statistics::of_run(report));
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

/// How the statistics are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatsSetting {
    /// A table for people.
    Table,
    /// One line of JSON, on standard error or in a file.
    Json(Option<PathBuf>),
}

/// What is done when the guest crashes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashAction {
    /// It is ended and reported.
    Report,
    /// The same, and its memory and registers go to a file.
    Dump(Option<PathBuf>),
    /// It is kept for GDB, which can connect here.
    Gdb(Address),
}

/// Why a text does not say what is done when the guest crashes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write `report`, `dump`, `dump:FILE`, `gdb` or `gdb:ADDRESS`")]
pub struct CrashActionError;

impl FromStr for CrashAction {
    type Err = CrashActionError;

    fn from_str(text: &str) -> Result<Self, CrashActionError> {
        match text.split_once(':') {
            None if text == "report" => Ok(Self::Report),
            None if text == "dump" => Ok(Self::Dump(None)),
            None if text == "gdb" => Ok(Self::Gdb(Address::default())),
            Some(("dump", path)) if !path.is_empty() => Ok(Self::Dump(Some(path.into()))),
            Some(("gdb", address)) => address.parse().map(Self::Gdb).map_err(|_| CrashActionError),
            _ => Err(CrashActionError),
        }
    }
}

/// Where the interrupt controllers are.
///
/// # Errors
///
/// If the word is another.
pub fn parse_irqchip(text: &str) -> Result<Irqchip, &'static str> {
    match text {
        "kernel" => Ok(Irqchip::Kernel),
        "user" => Ok(Irqchip::User),
        _ => Err("write `kernel` or `user`"),
    }
}

/// What accesses of unknown model-specific registers get.
///
/// # Errors
///
/// If the word is another.
pub fn parse_msr(text: &str) -> Result<MsrPolicy, &'static str> {
    match text {
        "fault" => Ok(MsrPolicy::Fault),
        "ignore" => Ok(MsrPolicy::Ignore),
        "report" => Ok(MsrPolicy::Report),
        _ => Err("write `fault`, `ignore` or `report`"),
    }
}

/// Why a text does not say how statistics are printed.
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

/// The longest time that can be asked for: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time; write a number and a unit, such as 500ms, 5s, 2m or 1h, from 1us to a year")]
pub struct TimeError;

/// The time that `text` stands for: a number, which may have a fraction, and one of the units us, ms, s, m, h.
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
        for bad in ["", "5", "s", "-1s", "+1s", "1 s", "1.2.3s", ".5s", "5.s", "0s", "9000000h", "1d", "1e3s"]
        {
            assert_eq!(parse_time(bad), Err(TimeError), "{bad}");
        }
    }

    #[test]
    fn a_crash_is_reported_dumped_or_kept() {
        assert_eq!("report".parse(), Ok(CrashAction::Report));
        assert_eq!("dump:a:b".parse(), Ok(CrashAction::Dump(Some("a:b".into()))));
        assert_eq!("gdb".parse(), Ok(CrashAction::Gdb(Address::default())));
        assert_eq!("gdb:unix:x".parse(), Ok(CrashAction::Gdb(Address::Unix("x".into()))));
        for bad in ["", "dump:", "core", "report:x", "gdb:x:y"] {
            assert_eq!(bad.parse::<CrashAction>(), Err(CrashActionError), "{bad}");
        }
        let args = ObserveArgs { on_crash: Some(CrashAction::Dump(None)), ..ObserveArgs::default() };
        assert_eq!(args.machine(Path::new("/a/hello")).on_crash, OnCrash::Dump("hello.core".into()));
        let args = ObserveArgs { on_crash: "gdb:1234".parse().ok(), ..ObserveArgs::default() };
        assert_eq!(args.debugger().map(|(_, start)| start), Some(Debug::Running));
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
