//! Configuration files: `nerite.toml`, and the peer's `uhyve.toml`.
//!
//! Both have the tables `[memory]`, `[cpu]` and `[guest]`, and every key of the one has its place in the other; what is
//! spelt differently (`size` and `memory_size`) is one key with two names. A key that is not known is an error. The
//! table `[uhyve]` is the peer's own: its keys load, and those that ask for something `vmm` does not do are warned about.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use nerite_machine::config::{CardSpec, Irqchip, Mount, MsrPolicy};
use serde::Deserialize;

mod fields;

use crate::affinity::Affinity;
use crate::boot::BootTable;
use crate::containment::Containment;
use crate::devices::DeviceTable;
use crate::observe::{CrashAction, FileObserve};
use crate::settings::{CpuCount, EnvSetting, FileCount, OutputSetting, Settings};
use crate::size::MemorySize;

/// The largest configuration file in bytes. A larger one is surely not meant to be one.
const MAX_FILE: u64 = 1 << 20;

/// What a file says, and what there is to warn about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is done at a crash, and what kind of processors there are.
    pub observe: FileObserve,
    /// One line for each key that has no effect.
    pub warnings: Vec<String>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration is.
    #[error("{} is larger than {MAX_FILE} bytes: not a configuration file", .0.display())]
    TooLarge(PathBuf),
    /// The file is not UTF-8.
    #[error("{} is not a configuration file: byte {offset} is not UTF-8 text", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// How much of it is text.
        offset: usize,
    },
    /// The contents are wrong.
    #[error("{}:{line}:{column}: {reason}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong, and in which words.
        reason: String,
    },
    /// The contents are well-formed, but contradict each other or the host.
    #[error("{}: {reason}", .path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Where to look for a configuration file when none is named, best first.
///
/// The second is in the folder of the XDG Base Directory Specification: `$XDG_CONFIG_HOME`, unless it is unset, empty or
/// relative, and `~/.config` otherwise.
#[must_use]
pub fn search_path(xdg_config_home: Option<&OsStr>, home: Option<&OsStr>) -> Vec<PathBuf> {
    let absolute = |path: Option<&OsStr>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let mut paths = vec![PathBuf::from("nerite.toml")];
    let folder = absolute(xdg_config_home).or_else(|| absolute(home).map(|home| home.join(".config")));
    paths.extend(folder.map(|folder| folder.join("nerite/nerite.toml")));
    paths
}

/// Reads a configuration file.
///
/// # Errors
///
/// If the file cannot be read, is not TOML, or says something that is not understood.
pub fn load(path: &Path) -> Result<Loaded, ConfigFileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigFileError::TooLarge(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| ConfigFileError::NotText { path: path.to_owned(), offset: error.valid_up_to() })?;
    parse(path, text)
}

/// Reads the text of a configuration file; `path` is only for messages.
///
/// # Errors
///
/// If it is not TOML, or says something that is not understood.
pub fn parse(path: &Path, text: &str) -> Result<Loaded, ConfigFileError> {
    let tables: Tables = toml::from_str(text).map_err(|error| content_error(path, text, &error))?;
    let warnings = tables.uhyve.without_effect().map(|text| format!("{}: {text}", path.display())).collect();
    let observe = FileObserve {
        on_crash: tables.guest.on_crash.clone(),
        msr: tables.cpu.msr,
        irqchip: tables.cpu.irqchip,
    };
    let settings =
        tables.settings().map_err(|reason| ConfigFileError::Meaning { path: path.to_owned(), reason })?;
    Ok(Loaded { settings, observe, warnings })
}

/// A parser's error with its place, and the line it is about, so that the key is always named.
fn content_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigFileError {
    /// How much of the line is repeated in the message.
    const MAX_SNIPPET: usize = 60;
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let snippet = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default().trim();
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let mut reason = message;
    if !snippet.is_empty() {
        let short: String = snippet.chars().take(MAX_SNIPPET).collect();
        let dots = if short.len() < snippet.len() { "..." } else { "" };
        reason = format!("{reason}, in `{short}{dots}`");
    }
    ConfigFileError::Content {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        reason,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tables {
    boot: BootTable,
    memory: MemoryTable,
    cpu: CpuTable,
    guest: GuestTable,
    files: FilesTable,
    net: NetTable,
    devices: DeviceTable,
    sandbox: Containment,
    uhyve: UhyveTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MemoryTable {
    #[serde(deserialize_with = "fields::memory_size")]
    size: Option<MemorySize>,
    #[serde(deserialize_with = "fields::memory_size")]
    memory_size: Option<MemorySize>,
    aslr: Option<bool>,
    no_aslr: Option<bool>,
    thp: Option<bool>,
    ksm: Option<bool>,
    hugepages: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CpuTable {
    #[serde(deserialize_with = "fields::cpu_count")]
    count: Option<CpuCount>,
    #[serde(deserialize_with = "fields::cpu_count")]
    cpu_count: Option<CpuCount>,
    #[serde(deserialize_with = "fields::affinity")]
    affinity: Option<Affinity>,
    cpu_pm: Option<bool>,
    pit: Option<bool>,
    #[serde(deserialize_with = "fields::msr")]
    msr: Option<MsrPolicy>,
    #[serde(deserialize_with = "fields::irqchip")]
    irqchip: Option<Irqchip>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GuestTable {
    #[serde(deserialize_with = "fields::environment")]
    env: Option<Vec<EnvSetting>>,
    #[serde(deserialize_with = "fields::environment")]
    env_vars: Option<Vec<EnvSetting>>,
    #[serde(deserialize_with = "fields::words")]
    kernel_args: Vec<String>,
    #[serde(deserialize_with = "fields::words")]
    args: Vec<String>,
    #[serde(deserialize_with = "fields::on_crash")]
    on_crash: Option<CrashAction>,
    #[serde(deserialize_with = "fields::output")]
    output: Option<OutputSetting>,
    #[serde(deserialize_with = "fields::rate")]
    max_output_rate: Option<NonZeroU64>,
    max_log_lines: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilesTable {
    #[serde(deserialize_with = "fields::read_only_mounts")]
    mounts: Vec<Mount>,
    #[serde(deserialize_with = "fields::file_count")]
    max_open_files: Option<FileCount>,
    #[serde(deserialize_with = "fields::bytes")]
    max_written: Option<u64>,
    #[serde(deserialize_with = "fields::bytes")]
    max_temporary: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NetTable {
    #[serde(deserialize_with = "fields::cards")]
    cards: Vec<CardSpec>,
}

/// The peer's own table. What `vmm` has no use for may be of any type.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UhyveTable {
    #[serde(deserialize_with = "fields::output")]
    output: Option<OutputSetting>,
    stats: Option<toml::Value>,
    #[serde(deserialize_with = "fields::file_mappings")]
    file_mapping: Vec<Mount>,
    tempdir: Option<toml::Value>,
    hermit_image_mode: Option<toml::Value>,
    file_isolation: Option<toml::Value>,
    io_mode: Option<toml::Value>,
    gdb_port: Option<toml::Value>,
    config: Option<toml::Value>,
    trace_dir: Option<toml::Value>,
    #[serde(deserialize_with = "fields::card")]
    net: Option<CardSpec>,
}

impl UhyveTable {
    /// A line for each key that asks for something and gets nothing.
    fn without_effect(&self) -> impl Iterator<Item = String> + '_ {
        [
            ("stats", &self.stats, "--stats prints statistics"),
            ("tempdir", &self.tempdir, "temporary files are in memory"),
            ("hermit_image_mode", &self.hermit_image_mode, "vmm has one way to load an image"),
            (
                "file_isolation",
                &self.file_isolation,
                "guests are always confined to what is mounted, and vmm itself as [sandbox] says",
            ),
            ("io_mode", &self.io_mode, "files are read and written as the host does it"),
            ("gdb_port", &self.gdb_port, "--gdb waits for a debugger"),
            ("config", &self.config, "a configuration file cannot name another"),
            ("trace_dir", &self.trace_dir, "--trace records the exits of a run"),
        ]
        .into_iter()
        .filter(|(_, value, _)| value.as_ref().is_some_and(|value| *value != toml::Value::Boolean(false)))
        .map(|(key, _, why)| format!("`{key}` in [uhyve] has no effect: {why}"))
    }
}

impl Tables {
    /// The settings, or which key comes under two names.
    fn settings(self) -> Result<Settings, String> {
        let Tables { boot, memory, cpu, guest, files, net, devices, sandbox, uhyve } = self;
        let no_aslr = memory.no_aslr.map(|no_aslr| !no_aslr);
        let env = one("`env` and `env_vars` in [guest]", guest.env, guest.env_vars)?;
        Ok(Settings {
            boot: boot.into(),
            memory: one("`size` and `memory_size` in [memory]", memory.size, memory.memory_size)?,
            aslr: one("`aslr` and `no_aslr` in [memory]", memory.aslr, no_aslr)?,
            thp: memory.thp,
            ksm: memory.ksm,
            hugepages: memory.hugepages,
            cpus: one("`count` and `cpu_count` in [cpu]", cpu.count, cpu.cpu_count)?,
            affinity: cpu.affinity,
            cpu_pm: cpu.cpu_pm,
            pit: cpu.pit,
            env: env.unwrap_or_default(),
            kernel_args: guest.kernel_args,
            app_args: guest.args,
            output: one("`output` in [guest] and `output` in [uhyve]", guest.output, uhyve.output)?,
            mounts: uhyve.file_mapping.into_iter().chain(files.mounts).collect(),
            max_open_files: files.max_open_files,
            max_written: files.max_written,
            max_temporary: files.max_temporary,
            network: uhyve.net.into_iter().chain(net.cards).collect(),
            devices: devices.into(),
            max_output_rate: guest.max_output_rate,
            max_log_lines: guest.max_log_lines,
            containment: sandbox,
        })
    }
}

/// Of two names for the same thing, the one that is used.
fn one<T>(names: &str, ours: Option<T>, peers: Option<T>) -> Result<Option<T>, String> {
    match (ours, peers) {
        (Some(_), Some(_)) => Err(format!("{names} mean the same; keep one")),
        (ours, peers) => Ok(ours.or(peers)),
    }
}

#[cfg(test)]
#[path = "config_file_test.rs"]
mod tests;
