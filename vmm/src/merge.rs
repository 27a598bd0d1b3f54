//! From the command line, the environment and a configuration file to one [`Config`].
//!
//! The command line wins over the environment, the environment over the file. What none of them says is left to the
//! image, and then to the defaults; `nerite-machine` sees to that.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::PathBuf;

use nerite_machine::config::{Config, CpuConfig, FileLimits, GuestConfig, MemoryConfig, OutputLimits};

use crate::cli::RunArgs;
use crate::config_file::{self, ConfigFileError, Loaded};
use crate::containment::Containment;
use crate::error::Error;
use crate::observe::ObserveArgs;
use crate::settings::{EnvSetting, Settings};

/// What `vmm` finds around it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The environment variables.
    pub variables: Vec<(OsString, OsString)>,
    /// The host CPUs this process may run on; `None` to ask only if someone wants to be bound to one.
    pub cpus: Option<Vec<usize>>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { variables: std::env::vars_os().collect(), cpus: None }
    }

    /// The host CPUs this process may run on, or none if that is not known.
    fn cpus(&self) -> Vec<usize> {
        let ask = || {
            let set = rustix::thread::sched_getaffinity(None).ok()?;
            Some((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
        };
        self.cpus.clone().or_else(ask).unwrap_or_default()
    }

    /// The value of an environment variable, unless it is not set or empty.
    fn variable(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.variables.iter().find(|(key, _)| key == name)?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// The value of an environment variable that holds a setting.
    fn setting<T: std::str::FromStr<Err: std::error::Error>>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.variable(name) else { return Ok(None) };
        let bad = |reason: &dyn std::fmt::Display| {
            Error::Usage(format!("the environment variable {name} is `{}`: {reason}", value.display()))
        };
        let text = value.to_str().ok_or_else(|| bad(&"not UTF-8"))?;
        text.parse().map(Some).map_err(|error| bad(&error))
    }
}

/// A machine to run, and what there is to warn about.
#[derive(Debug)]
pub struct Resolved {
    /// The machine.
    pub config: Config,
    /// How `vmm` confines itself.
    pub containment: Containment,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// Lines of warning.
    pub warnings: Vec<String>,
    /// What the program itself does to watch and control the run.
    pub observe: ObserveArgs,
}

/// Puts everything together.
///
/// # Errors
///
/// [`Error::Usage`] for what the command line or the environment got wrong, [`Error::ConfigFile`] for what the file got
/// wrong.
pub fn resolve(run: RunArgs, surroundings: &Surroundings) -> Result<Resolved, Error> {
    let (image, app_args) = run.image_and_args();
    if image.as_os_str().is_empty() {
        return Err(Error::Usage("the path of the image is empty".to_owned()));
    }
    let app_args = app_args.iter().map(|word| utf8(word)).collect::<Result<Vec<_>, _>>()?;
    let variables = Settings {
        memory: surroundings.setting("HERMIT_MEMORY_SIZE")?,
        cpus: surroundings.setting("HERMIT_CPU_COUNT")?,
        ..Settings::default()
    };
    let named = run.config.clone().or_else(|| surroundings.variable("HERMIT_CONFIG").map(PathBuf::from));
    let mut observe = run.observe;
    if observe.debugger().is_none() {
        observe.gdb = surroundings.setting("HERMIT_GDB_PORT")?;
    }
    let upper = Settings { app_args, ..Settings::from(run.settings) }.over(variables);

    let mut warnings = Vec::new();
    let found = find_file(named, surroundings, &mut warnings)?;
    let (file, lower) = match found {
        Some((path, loaded)) => {
            warnings.extend(loaded.warnings);
            observe = observe.over(loaded.observe);
            (Some(path), loaded.settings)
        }
        None => (None, Settings::default()),
    };
    let settings = upper.clone().over(lower);
    for (layer, path) in [(&upper, None), (&settings, file.as_ref())] {
        check(layer, surroundings).map_err(|reason| match path {
            Some(path) => Error::ConfigFile(ConfigFileError::Meaning { path: path.clone(), reason }),
            None => Error::Usage(reason),
        })?;
    }
    let env = environment(&settings.env, surroundings, &mut warnings);
    let containment = settings.containment.clone();
    let mut config = Config { observe: observe.machine(&image), ..config(image, settings, env) };
    config.cpus.msr = observe.msr.unwrap_or_default();
    config.cpus.irqchip = observe.irqchip.unwrap_or_default();
    Ok(Resolved { config, containment, file, warnings, observe })
}

/// Reads the configuration file that is named, or the first of the usual ones that exists.
fn find_file(
    named: Option<PathBuf>,
    surroundings: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<Option<(PathBuf, Loaded)>, Error> {
    if let Some(path) = named {
        let loaded = config_file::load(&path)?;
        return Ok(Some((path, loaded)));
    }
    let usual =
        config_file::search_path(surroundings.variable("XDG_CONFIG_HOME"), surroundings.variable("HOME"));
    for path in usual {
        match config_file::load(&path) {
            Ok(loaded) => return Ok(Some((path, loaded))),
            Err(ConfigFileError::Read { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // A home that belongs to someone else (as after a change of user that keeps HOME) is no reason not to run.
            Err(error @ ConfigFileError::Read { .. })
                if path.is_absolute() && is_permission_denied(&error) =>
            {
                warnings.push(format!(
                    "going on without a configuration file: {}",
                    crate::error::one_line(&error)
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn is_permission_denied(error: &ConfigFileError) -> bool {
    matches!(error, ConfigFileError::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// Checks what several settings say together.
fn check(settings: &Settings, surroundings: &Surroundings) -> Result<(), String> {
    if settings.hugepages == Some(true) {
        for (name, value) in [("thp", settings.thp), ("ksm", settings.ksm)] {
            if value == Some(true) {
                return Err(format!(
                    "`hugepages` and `{name}` exclude each other: reserved huge pages are neither \
                     advised nor merged; leave out one, or turn it off with --{name}=false"
                ));
            }
        }
    }
    if settings.kernel_args.iter().any(|word| word == "--") {
        return Err("`--` cannot be an argument of the kernel: it ends them; write the application's arguments after \
             the image"
            .to_owned());
    }
    settings.containment.check()?;
    let Some(affinity) = &settings.affinity else { return Ok(()) };
    let listed = affinity.cpus().len();
    if let Some(cpus) = settings.cpus
        && cpus.get() as usize != listed
    {
        let cpus = cpus.get();
        return Err(format!("the affinity lists {listed} host CPUs for {cpus} vCPUs; list one for each"));
    }
    let allowed = surroundings.cpus();
    let missing = affinity.cpus().iter().find(|cpu| !allowed.contains(cpu));
    if let Some(missing) = missing.filter(|_| !allowed.is_empty()) {
        return Err(format!(
            "the affinity names host CPU {missing}, but this process may only use {allowed:?}"
        ));
    }
    Ok(())
}

/// The variables for the guest: the host's if that is asked for, then those that are set. Each name comes once.
fn environment(
    settings: &[EnvSetting],
    surroundings: &Surroundings,
    warnings: &mut Vec<String>,
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    if settings.contains(&EnvSetting::Host) {
        for (name, value) in &surroundings.variables {
            match (name.to_str(), value.to_str()) {
                (Some(name), Some(value)) => env.push((name.to_owned(), value.to_owned())),
                _ => warnings.push(format!(
                    "the environment variable {name:?} is not UTF-8 and is not passed to the guest"
                )),
            }
        }
    }
    for setting in settings {
        if let EnvSetting::Set { name, value } = setting {
            env.retain(|(other, _)| other != name);
            env.push((name.clone(), value.clone()));
        }
    }
    env
}

fn utf8(word: &OsStr) -> Result<String, Error> {
    let text = word.to_str().ok_or_else(|| {
        Error::Usage(format!("the application's argument {word:?} is not UTF-8, which a Hermit guest needs"))
    })?;
    Ok(text.to_owned())
}

fn config(image: PathBuf, settings: Settings, env: Vec<(String, String)>) -> Config {
    let default = MemoryConfig::default();
    let limits = FileLimits::default();
    Config {
        image,
        boot: settings.boot.config(),
        memory: MemoryConfig {
            size: settings.memory.map(crate::size::MemorySize::bytes),
            aslr: settings.aslr.unwrap_or(default.aslr),
            thp: settings.thp.unwrap_or(default.thp),
            ksm: settings.ksm.unwrap_or(default.ksm),
            hugepages: settings.hugepages.unwrap_or(default.hugepages),
        },
        cpus: CpuConfig {
            count: settings.cpus.map(crate::settings::CpuCount::get),
            affinity: settings.affinity.map(crate::affinity::Affinity::into_cpus).unwrap_or_default(),
            power_management: settings.cpu_pm.unwrap_or_default(),
            pit: settings.pit.unwrap_or_default(),
            ..CpuConfig::default()
        },
        guest: GuestConfig { kernel_args: settings.kernel_args, app_args: settings.app_args, env },
        output: settings.output.map(|output| output.0).unwrap_or_default(),
        output_limits: OutputLimits {
            bytes_per_second: settings.max_output_rate,
            log_lines: settings.max_log_lines.unwrap_or(OutputLimits::default().log_lines),
        },
        mounts: settings.mounts,
        network: settings.network,
        devices: settings.devices.config(),
        observe: nerite_machine::config::Observe::default(),
        file_limits: FileLimits {
            open_files: settings.max_open_files.map_or(limits.open_files, crate::settings::FileCount::get),
            bytes_written: settings.max_written.unwrap_or(limits.bytes_written),
            temporary_bytes: settings.max_temporary.unwrap_or(limits.temporary_bytes),
            ..limits
        },
    }
}

#[cfg(test)]
#[path = "merge_test.rs"]
mod tests;
