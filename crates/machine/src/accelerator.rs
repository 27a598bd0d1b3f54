//! The choice of the hypervisor: the one place that names any.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use nerite_arch::cpuid::{self, Offer};
use nerite_hypervisor::{Error, Hypervisor, Vcpu};
use nerite_kvm::System;
use nerite_kvm::probe::{self, HostKvm};
use nerite_log_budget::Causes;
use nerite_memory::GuestRam;
use nerite_software::{IdleTime, Software};
use nerite_switch::{Side, Switch, Switchable};
use nerite_vcpu::{Assistance, Assisted};

use crate::applicable;
use crate::config::{Accelerator, Clock, Config, CpuModel, Irqchip, OnCrash};

/// A hypervisor, and the reason why it is not KVM if that was not asked for.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) without_kvm: Option<String>,
    /// `true` if it is KVM, which cannot execute every instruction on a device's memory.
    pub(crate) is_kvm: bool,
    /// The choice between two of them, if the guest can be handed over.
    pub(crate) switch: Option<Arc<Switch>>,
}

impl From<Arc<dyn Hypervisor>> for Choice {
    fn from(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, without_kvm: None, is_kvm: false, switch: None }
    }
}

/// Opens the hypervisor that `config` names. With [`Accelerator::Auto`] that is KVM where it runs
/// ordinary guests, and the processor in software elsewhere and for what only that can do.
///
/// # Errors
/// Fails if the hypervisor cannot be used.
pub(crate) fn open(config: &Config) -> Result<Choice, Error> {
    let kvm = |system| {
        Ok(Choice { is_kvm: true, ..Choice::from(Arc::new(system) as Arc<dyn Hypervisor>) })
    };
    let without_kvm = match config.accelerator {
        Accelerator::Kvm => return kvm(System::open()?),
        Accelerator::KvmAndSoftware => return both(Side::First),
        Accelerator::SoftwareAndKvm => return both(Side::Second),
        Accelerator::Software => None,
        Accelerator::Auto if config.needs_software().is_some() => None,
        Accelerator::Auto => match System::open() {
            // A guest is tried only where the processor reports that it cannot run any.
            Ok(system) if probe::processor_virtualizes() => return kvm(system),
            Ok(system) => match probe::try_guest(&system) {
                HostKvm::Hardware => return kvm(system),
                host => Some(host.to_string()),
            },
            Err(error) => Some(Causes(&error).to_string()),
        },
    };
    let software = match config.cpus.clock {
        Clock::Host => Software::new()?,
        Clock::Virtual => Software::with_virtual_clock(idle_time(config)),
    };
    Ok(Choice { without_kvm, ..Choice::from(Arc::new(software) as Arc<dyn Hypervisor>) })
}

/// The configuration of a guest that is debugged on a KVM that does not stop at breakpoints, where
/// it would have to be executed one instruction at a time: with the processor in software beside
/// KVM, for as long as there are any. Other configurations are left alone.
pub(crate) fn with_one_for_breakpoints(config: &Config) -> Cow<'_, Config> {
    let unchanged = Cow::Borrowed(config);
    let is_debugged = config.observe.debug.is_some() && config.observe.on_crash != OnCrash::Hold;
    // What only KVM can do, or what a guest on both would lack.
    let needs_kvm = config.cpus.irqchip == Irqchip::User
        || config.cpus.model != CpuModel::default()
        || config.restore.is_some()
        || config.network.iter().any(|card| applicable::is_vhost(&card.link));
    if !is_debugged || needs_kvm || config.accelerator != Accelerator::Auto {
        return unchanged;
    }
    match open(config) {
        Ok(choice) if choice.is_kvm && !choice.hypervisor.debug_caps().hardware => {
            let accelerator = Accelerator::KvmAndSoftware;
            Cow::Owned(Config { accelerator, ..config.clone() })
        }
        _ => unchanged,
    }
}

/// Opens KVM and the processor in software as one hypervisor. Guests start on `start`.
fn both(start: Side) -> Result<Choice, Error> {
    let both = Switchable::new(Arc::new(System::open()?), Arc::new(Software::new()?), start);
    let switch = Some(both.switch().clone());
    let choice = Choice::from(Arc::new(both) as Arc<dyn Hypervisor>);
    Ok(Choice { is_kvm: true, switch, ..choice })
}

/// Processors that the guests of a hypervisor can have on this host.
#[derive(Debug)]
pub struct Processors {
    /// Name of the hypervisor.
    pub hypervisor: &'static str,
    /// Reason why it runs few guests.
    pub restriction: Option<String>,
    /// Features, or the reason why the hypervisor cannot be used.
    pub offer: Result<Offer, Error>,
}

/// Processors that guests can have on this host, by hypervisor. May run a short guest.
pub fn processors() -> [Processors; 2] {
    let of = |hypervisor: &dyn Hypervisor| {
        let tsc_deadline = hypervisor.capabilities().tsc_deadline;
        let guest = cpuid::Guest { vcpu_index: 0, vcpu_count: 1, tsc_deadline };
        Ok(Offer::of(&cpuid::for_guest(&hypervisor.supported_cpuid()?, &guest)))
    };
    let kvm = System::open();
    let restriction = kvm.as_ref().ok().and_then(|system| match probe::try_guest(system) {
        HostKvm::Hardware => None,
        host => Some(host.to_string()),
    });
    let kvm = kvm.map_err(Error::from).and_then(|system| of(&system));
    let software = Software::new().and_then(|software| of(&software));
    [
        Processors { hypervisor: "KVM", restriction, offer: kvm },
        Processors { hypervisor: "software", restriction: None, offer: software },
    ]
}

/// Time that passes on a virtual clock while a guest waits: none, unless a device can interrupt it.
fn idle_time(config: &Config) -> IdleTime {
    let has_devices = !config.network.is_empty() || config.devices.any();
    if has_devices || io::stdin().is_terminal() { IdleTime::Waited } else { IdleTime::Skipped }
}

/// Adds the processor in software to vCPUs, for instructions that their hypervisor cannot execute.
pub(crate) fn assist(vcpus: Vec<Box<dyn Vcpu>>, ram: &Arc<GuestRam>) -> Vec<Box<dyn Vcpu>> {
    let count = u32::try_from(vcpus.len()).unwrap_or(u32::MAX);
    let open = || Ok(Arc::new(Software::new()?) as Arc<dyn Hypervisor>);
    let assistance = Arc::new(Assistance::new(ram.clone(), count, open));
    let assist = |vcpu| Box::new(Assisted::new(vcpu, assistance.clone())) as Box<dyn Vcpu>;
    vcpus.into_iter().map(assist).collect()
}
