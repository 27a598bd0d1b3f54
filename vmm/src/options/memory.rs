//! Options of guest memory.

use clap::Args;
use merge::Merge;
use nerite_machine::config::MemoryConfig;
use serde::Deserialize;

use super::value;
use crate::size::MemorySize;

/// Options of guest memory; the table `[memory]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Memory")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct MemoryOptions {
    /// Guest memory, such as 64M or 1.5GiB [env: HERMIT_MEMORY_SIZE] [default: what the image asks
    /// for, or 64M]
    ///
    /// K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB are powers of 1000; a
    /// number alone is in bytes. At least 16M, and a multiple of 2M.
    #[arg(id = "memory", short, long, alias = "memory-size", value_name = "SIZE")]
    #[serde(alias = "memory_size", deserialize_with = "value::parsed")]
    pub size: Option<MemorySize>,

    /// Put the guest at a fixed guest-physical address
    ///
    /// Without it, an image that can be relocated is put at a random address.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub no_aslr: Option<bool>,

    /// The opposite of `no_aslr`, in configuration files only.
    #[arg(skip)]
    aslr: Option<bool>,

    /// Advise the host to use transparent huge pages
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub thp: Option<bool>,

    /// Advise the host to merge equal pages (kernel same-page merging)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub ksm: Option<bool>,

    /// Back the memory with huge pages of 2 MiB that the host has reserved
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub hugepages: Option<bool>,
}

impl MemoryOptions {
    pub(super) fn normalize(&mut self) -> Result<(), String> {
        match (self.aslr.take(), self.no_aslr) {
            (Some(_), Some(_)) => {
                Err("`aslr` and `no_aslr` in [memory] mean the same; keep one".to_owned())
            }
            (Some(aslr), None) => {
                self.no_aslr = Some(!aslr);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.hugepages != Some(true) {
            return Ok(());
        }
        for (name, value) in [("thp", self.thp), ("ksm", self.ksm)] {
            if value == Some(true) {
                return Err(format!(
                    "`hugepages` and `{name}` exclude each other: reserved huge pages are neither \
                     advised nor merged; leave out one, or turn it off with --{name}=false"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn config(&self) -> MemoryConfig {
        let default = MemoryConfig::default();
        MemoryConfig {
            size: self.size.map(MemorySize::bytes),
            aslr: self.no_aslr.map_or(default.aslr, |no_aslr| !no_aslr),
            thp: self.thp.unwrap_or(default.thp),
            ksm: self.ksm.unwrap_or(default.ksm),
            hugepages: self.hugepages.unwrap_or(default.hugepages),
        }
    }
}
