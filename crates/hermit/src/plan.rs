//! From what was asked for and what the image asks for to what will be built.

use std::collections::BTreeMap;

use nerite_loader::{Image, Interface, text};
use nerite_platform::{MIN_MEMORY, check_size};

use crate::{DEFAULT_MEMORY, Error, Settings};

/// Plan of a machine: every choice is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    pub(crate) kernel_args: Vec<String>,
    pub(crate) app_args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// The directories a kernel has to mount to see its files.
    pub(crate) mounts: Vec<String>,
}

impl Plan {
    /// Merges the image's own configuration under `settings`, which always wins.
    pub(crate) fn new(settings: &Settings, image: &Image) -> Result<Self, Error> {
        let own = image.config();
        let required_memory = own.and_then(|own| own.memory).unwrap_or(0);
        let required_cpus = own.and_then(|own| own.cpus).unwrap_or(0);
        let path = || settings.image.clone();

        let memory =
            settings.memory.unwrap_or_else(|| DEFAULT_MEMORY.max(round_up(required_memory)));
        if memory < MIN_MEMORY {
            return Err(Error::MemoryTooSmall { given: memory });
        }
        if memory < required_memory {
            return Err(Error::ImageNeedsMemory {
                image: path(),
                required: required_memory,
                given: memory,
            });
        }
        let cpus = settings.vcpus.unwrap_or_else(|| required_cpus.max(1));
        if cpus < required_cpus {
            return Err(Error::ImageNeedsCpus {
                image: path(),
                required: required_cpus,
                given: cpus,
            });
        }
        let (memory, cpus) = check_size(memory, Some(cpus))?;

        let or_own = |given: &[String], own: Option<&Vec<String>>| match own {
            Some(own) if given.is_empty() => own.clone(),
            _ => given.to_vec(),
        };
        let mut env = Environment::default();
        let mut ignored = Vec::new();
        for variable in own.into_iter().flat_map(|own| &own.env_vars) {
            match variable.split_once('=').filter(|(key, _)| !key.is_empty()) {
                Some((key, value)) => env.set(key, value),
                // Such as "host", which an image must not ask for.
                None => ignored.push(variable),
            }
        }
        if !ignored.is_empty() {
            log::warn!(
                "{}: hermit.toml: env_vars that are not of the form KEY=value are ignored: {}",
                settings.image.display(),
                text::few(ignored)
            );
        }
        for (key, value) in &settings.env {
            env.set(key, value);
        }
        let plan = Self {
            memory,
            cpus,
            kernel_args: or_own(&settings.kernel_args, own.map(|own| &own.kernel_args)),
            app_args: or_own(&settings.app_args, own.map(|own| &own.app_args)),
            env: env.variables,
            mounts: Vec::new(),
        };
        if image.kernel().interface() == Interface::V1 && !plan.kernel_args.is_empty() {
            log::warn!(
                "{}: this kernel has hypercall interface v1, which carries no kernel arguments: {} not passed on",
                settings.image.display(),
                text::few(&plan.kernel_args)
            );
        }
        Ok(plan)
    }
}

/// Environment variables in the order in which they were set first.
#[derive(Debug, Default)]
struct Environment {
    variables: Vec<(String, String)>,
    /// Index of each name in the list, because a hostile image can have as many as it likes.
    places: BTreeMap<String, usize>,
}

impl Environment {
    /// Sets a variable; a later one of the same name takes the place of an earlier one.
    fn set(&mut self, key: &str, value: &str) {
        let place = self.places.get(key).and_then(|place| self.variables.get_mut(*place));
        if let Some((_, old)) = place {
            value.clone_into(old);
        } else {
            self.places.insert(key.to_owned(), self.variables.len());
            self.variables.push((key.to_owned(), value.to_owned()));
        }
    }
}

/// Memory sizes are multiples of this many bytes: the page size of the boot page tables.
const GRANULARITY: u64 = 2 << 20;

/// Rounds up to the next multiple of 2 MiB.
fn round_up(size: u64) -> u64 {
    size.checked_next_multiple_of(GRANULARITY).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
