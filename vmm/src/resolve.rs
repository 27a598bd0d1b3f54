//! From the command line, the environment and a configuration file to one [`Config`].
//!
//! The command line wins over the environment, the environment over the file. Options that none of
//! them sets are left to the image, and then to the defaults of `nerite-machine`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::PathBuf;

use nerite_machine::config::{Config, Restore};

use crate::cli::RunArgs;
use crate::config_file::{self, ConfigFileError, Loaded};
use crate::error::Error;
use crate::options::{EnvSetting, Options};

/// Environment of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// The environment variables.
    pub variables: Vec<(OsString, OsString)>,
    /// The host CPUs this process may run on; `None` to query only if a vCPU is to be bound to
    /// one.
    pub cpus: Option<Vec<usize>>,
}

impl Environment {
    /// The environment of this process.
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

    /// The value of an environment variable, unless it is unset or empty.
    fn variable(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.variables.iter().find(|(key, _)| key == name)?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// The value of an environment variable that holds an option.
    fn option<T: std::str::FromStr<Err: std::error::Error>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.variable(name) else { return Ok(None) };
        let bad = |reason: &dyn std::fmt::Display| {
            Error::Usage(format!(
                "the environment variable {name} is `{}`: {reason}",
                value.display()
            ))
        };
        let text = value.to_str().ok_or_else(|| bad(&"not UTF-8"))?;
        text.parse().map(Some).map_err(|error| bad(&error))
    }
}

/// A machine to run.
#[derive(Debug)]
pub struct Resolved {
    /// The machine.
    pub config: Config,
    /// The options it was made of.
    pub options: Options,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// Lines of warning.
    pub warnings: Vec<String>,
}

/// Resolves the command line, the environment and a configuration file to a machine.
///
/// # Errors
/// [`Error::Usage`] for faults of the command line or the environment, [`Error::ConfigFile`] for
/// those of the file.
pub fn resolve(run: RunArgs, environment: &Environment) -> Result<Resolved, Error> {
    let (image, args) = run.image_and_args();
    let restore = run.restore.clone().map(|directory| Restore {
        directory,
        verify: run.verify,
        on_changed: run.on_changed.unwrap_or_default(),
    });
    let needs_restore = [(run.verify, "--verify"), (run.on_changed.is_some(), "--on-changed")];
    if let Some((_, option)) =
        needs_restore.iter().find(|(is_given, _)| *is_given && restore.is_none())
    {
        return Err(Error::Usage(format!("{option} is for --restore")));
    }
    if restore.is_some()
        && let Some(option) = run.options.of_the_guest()
    {
        return Err(Error::Usage(format!(
            "{option} has no meaning with --restore: the guest goes on with what it was started with"
        )));
    }
    if image.as_os_str().is_empty() {
        return Err(Error::Usage("the path of the image is empty".to_owned()));
    }
    let args = args.iter().map(|word| utf8(word)).collect::<Result<Vec<_>, _>>()?;
    let named = run.config.or_else(|| environment.variable("HERMIT_CONFIG").map(PathBuf::from));
    let mut upper = run.options;
    upper.normalize().map_err(Error::Usage)?;
    upper.guest.args = args;
    if upper.debugger().is_none() {
        upper.observe.gdb = environment.option("HERMIT_GDB_PORT")?;
    }
    let mut variables = Options::default();
    variables.memory.size = environment.option("HERMIT_MEMORY_SIZE")?;
    variables.cpu.count = environment.option("HERMIT_CPU_COUNT")?;
    let upper = upper.over(variables);

    let mut warnings = Vec::new();
    let (file, lower) = match find_file(named, environment, &mut warnings)? {
        Some((path, loaded)) => {
            warnings.extend(loaded.warnings);
            (Some(path), loaded.options)
        }
        None => (None, Options::default()),
    };
    let options = upper.clone().over(lower);
    for (layer, path) in [(&upper, None), (&options, file.as_ref())] {
        layer.check(|| environment.cpus()).map_err(|reason| match path {
            Some(path) => {
                Error::ConfigFile(ConfigFileError::Meaning { path: path.clone(), reason })
            }
            None => Error::Usage(reason),
        })?;
    }
    // A file says what guests are started with, and this one was.
    let set = if restore.is_some() { &upper.guest.env } else { &options.guest.env };
    let env = guest_environment(set, environment, &mut warnings);
    let config = Config { restore, ..options.clone().config(image, env) };
    Ok(Resolved { config, options, file, warnings })
}

/// Reads the configuration file that is named, or the first of the usual ones that exists.
fn find_file(
    named: Option<PathBuf>,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Option<(PathBuf, Loaded)>, Error> {
    if let Some(path) = named {
        let loaded = config_file::load(&path)?;
        return Ok(Some((path, loaded)));
    }
    let usual = config_file::search_path(
        environment.variable("XDG_CONFIG_HOME"),
        environment.variable("HOME"),
    );
    for path in usual {
        match config_file::load(&path) {
            Ok(loaded) => {
                return match loaded.options.widening_key().filter(|_| path.is_relative()) {
                    Some(key) => Err(ConfigFileError::NotNamed { path, key }.into()),
                    None => Ok(Some((path, loaded))),
                };
            }
            Err(ConfigFileError::Read { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // A home that belongs to another user (as after a change of user that keeps HOME) is no
            // reason not to run.
            Err(error @ ConfigFileError::Read { .. })
                if path.is_absolute() && is_permission_denied(&error) =>
            {
                warnings.push(format!(
                    "continuing without a configuration file: {}",
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

/// The variables for the guest: the host's if that is asked for, then those that are set. Each name
/// comes once.
fn guest_environment(
    settings: &[EnvSetting],
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Vec<(String, String)> {
    // Each with its place: the last of several of one name counts.
    let mut env: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut place = 0;
    let mut set = |name: &str, value: &str| {
        env.insert(name.to_owned(), (place, value.to_owned()));
        place += 1;
    };
    if settings.contains(&EnvSetting::Host) {
        for (name, value) in &environment.variables {
            match (name.to_str(), value.to_str()) {
                (Some(name), Some(value)) => set(name, value),
                _ => warnings.push(format!(
                    "the environment variable {name:?} is not UTF-8 and is not passed to the guest"
                )),
            }
        }
    }
    for setting in settings {
        if let EnvSetting::Set { name, value } = setting {
            set(name, value);
        }
    }
    let mut sorted: Vec<_> = env.into_iter().collect();
    sorted.sort_unstable_by_key(|(_, (place, _))| *place);
    sorted.into_iter().map(|(name, (_, value))| (name, value)).collect()
}

fn utf8(word: &OsStr) -> Result<String, Error> {
    let text = word.to_str().ok_or_else(|| {
        Error::Usage(format!(
            "the application's argument {word:?} is not UTF-8, which a Hermit guest needs"
        ))
    })?;
    Ok(text.to_owned())
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
