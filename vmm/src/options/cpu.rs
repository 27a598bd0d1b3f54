//! Options of vCPUs.

use std::str::FromStr;

use clap::Args;
use merge::Merge;
use nerite_machine::config::{
    Accelerator, Clock, CpuConfig, CpuModel, Irqchip, MAX_CPUS, MsrPolicy, OnUnemulated,
};
use serde::{Deserialize, Deserializer, de};

use super::value;
use crate::affinity::Affinity;

/// Options of vCPUs; the table `[cpu]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "CPUs")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct CpuOptions {
    /// Number of vCPUs, 1 to 16 [env: HERMIT_CPU_COUNT] [default: what the image asks for, or 1]
    #[arg(id = "cpus", short = 'c', long = "cpus", alias = "cpu-count", value_name = "N")]
    #[serde(alias = "cpu_count", deserialize_with = "count")]
    pub count: Option<CpuCount>,

    /// Processor that the guest sees: host, x86-64, x86-64-v2, x86-64-v3 or x86-64-v4, and features
    /// turned on or off, such as x86-64-v2,+avx or -rdrand [default: host]
    ///
    /// Features have the names of /proc/cpuinfo; `vmm inspect --host` lists those that guests can
    /// have here. With a level the guest sees no more than its features and can be restored on each
    /// host of that level. A feature that is turned on brings those it needs, and one that is
    /// turned off takes those along that need it. They are hidden from the guest; its processor
    /// executes most instructions nevertheless.
    #[arg(long = "cpu", value_name = "FEATURES", allow_hyphen_values = true)]
    #[serde(deserialize_with = "value::parsed")]
    pub model: Option<CpuModel>,

    /// Accelerator: auto, kvm, software, or two of them [default: auto]
    ///
    /// `software` is a processor of vmm's own, for hosts without KVM: the same guests, ten to forty
    /// times slower than on KVM. `auto` takes KVM where it can run ordinary guests, and software
    /// elsewhere, which a warning reports. With `kvm,software` or `software,kvm` the guest starts
    /// on the first, and `vmm ctl SOCKET accel NAME` hands it over.
    #[arg(long, value_name = "auto|kvm|software|kvm,software", value_parser = parse_accelerator)]
    #[serde(deserialize_with = "accelerator")]
    pub accel: Option<Accelerator>,

    /// Run each vCPU on a host CPU of its own, such as 0-1,4 or "0 1 4": one for each vCPU, in
    /// order
    #[arg(short, long, value_name = "CPUS")]
    #[serde(deserialize_with = "affinity")]
    pub affinity: Option<Affinity>,

    /// Let the guest manage the power states of the host's CPUs
    ///
    /// Waking up gets faster for the guest and slower for everything else on these CPUs, and the
    /// host counts them as busy all the time.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub cpu_pm: Option<bool>,

    /// Give the guest an i8254 interval timer
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub pit: Option<bool>,

    /// Policy for guest accesses to MSRs that the hypervisor does not handle: fault, ignore or
    /// report [default: fault]
    ///
    /// `fault` is a general protection fault, as from a processor. `ignore` makes it read zero and
    /// discards what it writes. `report` is a fault, and a line in the log.
    #[arg(long, value_name = "fault|ignore|report", value_parser = parse_msr)]
    #[serde(deserialize_with = "msr")]
    pub msr: Option<MsrPolicy>,

    /// Place of the interrupt controllers: kernel or user [default: kernel]
    ///
    /// `user` is for those who work on them: local APICs in vmm, which injects every interrupt
    /// itself, and no other controllers. The guest is slower, and has no TSC deadline timer. For
    /// Hermit guests without network cards.
    #[arg(long, value_name = "kernel|user", value_parser = parse_irqchip)]
    #[serde(deserialize_with = "irqchip")]
    pub irqchip: Option<Irqchip>,

    /// Treatment of instructions that KVM cannot execute: software or crash [default: software]
    ///
    /// KVM interprets accesses of devices, and knows few vector instructions: one that accesses 32
    /// bytes of a device at once is such an instruction. `software` executes it on a processor of
    /// vmm's own. `crash` ends the guest with a report.
    #[arg(long, value_name = "software|crash", value_parser = parse_on_unemulated)]
    #[serde(deserialize_with = "on_unemulated")]
    pub on_unemulated: Option<OnUnemulated>,

    /// The guest's time: host or virtual [default: host, and virtual with --count]
    ///
    /// `virtual` advances by a nanosecond for each instruction and begins in 2026. It makes each
    /// run of a guest the same that has one vCPU and hears from nothing but its timers: random
    /// numbers and the image's place are then fixed as well. For the processor in software only,
    /// which `--accel auto` chooses then.
    #[arg(long, value_name = "host|virtual", value_parser = parse_clock)]
    #[serde(deserialize_with = "clock")]
    pub clock: Option<Clock>,
}

impl CpuOptions {
    pub(super) fn check(&self, host_cpus: impl FnOnce() -> Vec<usize>) -> Result<(), String> {
        let Some(affinity) = &self.affinity else { return Ok(()) };
        let listed = affinity.cpus().len();
        if let Some(CpuCount(count)) = self.count
            && count as usize != listed
        {
            return Err(format!(
                "the affinity lists {listed} host CPUs for {count} vCPUs; list one for each"
            ));
        }
        let allowed = host_cpus();
        let missing = affinity.cpus().iter().find(|cpu| !allowed.contains(cpu));
        match missing.filter(|_| !allowed.is_empty()) {
            Some(missing) => Err(format!(
                "the affinity names host CPU {missing}, but this process may only use {allowed:?}"
            )),
            None => Ok(()),
        }
    }

    /// The vCPUs of a machine. Instructions that are counted are to be the same in each run.
    pub(super) fn config(&self, count: bool) -> CpuConfig {
        // KVM has no virtual clock.
        let is_switchable = self.accel.is_some_and(Accelerator::is_switchable);
        CpuConfig {
            count: self.count.map(CpuCount::get),
            model: self.model.clone().unwrap_or_default(),
            affinity: self
                .affinity
                .as_ref()
                .map(|affinity| affinity.cpus().to_vec())
                .unwrap_or_default(),
            power_management: self.cpu_pm.unwrap_or_default(),
            pit: self.pit.unwrap_or_default(),
            msr: self.msr.unwrap_or_default(),
            irqchip: self.irqchip.unwrap_or_default(),
            on_unemulated: self.on_unemulated.unwrap_or_default(),
            clock: self.clock.unwrap_or(if count && !is_switchable {
                Clock::Virtual
            } else {
                Clock::Host
            }),
        }
    }
}

/// A number of vCPUs, 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCount(u32);

/// The text is not a number of vCPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of vCPUs; a guest has 1 to {MAX_CPUS}")]
pub struct CpuCountError(String);

impl CpuCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for CpuCount {
    type Err = CpuCountError;

    fn from_str(text: &str) -> Result<Self, CpuCountError> {
        match text.trim().parse() {
            Ok(count @ 1..=MAX_CPUS) => Ok(Self(count)),
            _ => Err(CpuCountError(text.to_owned())),
        }
    }
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CpuCount>, D::Error> {
    i64::deserialize(deserializer)?.to_string().parse().map(Some).map_err(de::Error::custom)
}

fn affinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Affinity>, D::Error> {
    value::numbers(deserializer, Affinity::new)
}

fn msr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MsrPolicy>, D::Error> {
    value::parsed_by(deserializer, parse_msr)
}

fn irqchip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Irqchip>, D::Error> {
    value::parsed_by(deserializer, parse_irqchip)
}

fn clock<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Clock>, D::Error> {
    value::parsed_by(deserializer, parse_clock)
}

fn accelerator<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Accelerator>, D::Error> {
    value::parsed_by(deserializer, parse_accelerator)
}

fn parse_accelerator(text: &str) -> Result<Accelerator, &'static str> {
    match text {
        "auto" => Ok(Accelerator::Auto),
        "kvm" => Ok(Accelerator::Kvm),
        "software" => Ok(Accelerator::Software),
        "kvm,software" => Ok(Accelerator::KvmAndSoftware),
        "software,kvm" => Ok(Accelerator::SoftwareAndKvm),
        _ => Err("write `auto`, `kvm`, `software`, `kvm,software` or `software,kvm`"),
    }
}

fn parse_clock(text: &str) -> Result<Clock, &'static str> {
    match text {
        "host" => Ok(Clock::Host),
        "virtual" => Ok(Clock::Virtual),
        _ => Err("write `host` or `virtual`"),
    }
}

fn parse_irqchip(text: &str) -> Result<Irqchip, &'static str> {
    match text {
        "kernel" => Ok(Irqchip::Kernel),
        "user" => Ok(Irqchip::User),
        _ => Err("write `kernel` or `user`"),
    }
}

fn on_unemulated<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<OnUnemulated>, D::Error> {
    value::parsed_by(deserializer, parse_on_unemulated)
}

fn parse_on_unemulated(text: &str) -> Result<OnUnemulated, &'static str> {
    match text {
        "software" => Ok(OnUnemulated::Software),
        "crash" => Ok(OnUnemulated::Crash),
        _ => Err("write `software` or `crash`"),
    }
}

fn parse_msr(text: &str) -> Result<MsrPolicy, &'static str> {
    match text {
        "fault" => Ok(MsrPolicy::Fault),
        "ignore" => Ok(MsrPolicy::Ignore),
        "report" => Ok(MsrPolicy::Report),
        _ => Err("write `fault`, `ignore` or `report`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_one_to_sixteen_vcpus() {
        assert_eq!("1".parse().map(CpuCount::get), Ok(1));
        assert_eq!("16".parse().map(CpuCount::get), Ok(16));
        for bad in ["0", "17", "-1", "x", "", "1.5", "99999999999"] {
            assert!(bad.parse::<CpuCount>().is_err(), "{bad}");
        }
    }
}
