//! Settings that have a meaning for some guests or hypervisors only.

use nerite_hypervisor::Hypervisor;
use nerite_loader::Protocol;
use nerite_net::Link;

use crate::config::{Accelerator, Clock, Config, Irqchip, OnReboot, SwitchAt};
use crate::{Error, Setting};

/// Checks that every setting has a meaning for a guest that boots as `protocol`.
pub(crate) fn check(config: &Config, protocol: Protocol) -> Result<(), Error> {
    let is_hermit = protocol == Protocol::Hermit;
    let (boot, devices, guest) = (&config.boot, &config.devices, &config.guest);
    // The setting, `true` if it is given, and `true` if it is for Hermit guests.
    let settings = [
        (Setting::InitialFileSystem, !boot.initrd.is_empty(), false),
        (Setting::CommandLine, boot.command_line.is_some(), false),
        (Setting::DebugExit, boot.debug_exit.is_some(), false),
        (Setting::Disk, !devices.disks.is_empty(), false),
        (Setting::Restart, config.observe.on_reboot == OnReboot::Restart, false),
        (Setting::GracefulStop, config.observe.graceful_stop.is_some(), false),
        (Setting::KernelArguments, !guest.kernel_args.is_empty(), true),
        (Setting::Environment, !guest.env.is_empty(), true),
        (Setting::Mounts, !config.mounts.is_empty(), true),
    ];
    let wrong =
        settings.into_iter().find(|(_, given, for_hermit)| *given && *for_hermit != is_hermit);
    if let Some((setting, ..)) = wrong {
        return Err(Error::NotForThisGuest { setting, protocol });
    }
    if let Some(setting) = config.needs_software().filter(|_| config.accelerator.names_kvm()) {
        return Err(Error::NeedsSoftware { setting });
    }
    check_moment(config)?;
    let has_devices = !config.network.is_empty() || devices.any();
    let needs_controllers =
        config.cpus.clock == Clock::Virtual || config.cpus.pit || has_devices || !is_hermit;
    if config.cpus.irqchip == Irqchip::User
        && (needs_controllers || config.accelerator.is_switchable())
    {
        return Err(Error::UserIrqchip);
    }
    Ok(())
}

/// Checks what is counted, or due at a moment or at the guest's end.
fn check_moment(config: &Config) -> Result<(), Error> {
    let (observe, accelerator) = (&config.observe, config.accelerator);
    let (switch_at, count_from) = (&observe.switch_at, observe.count_from.is_some());
    let counts = matches!(switch_at, Some(SwitchAt::Instructions(_)));
    let limits = observe.instruction_limit.is_some();
    let has_moment = switch_at.is_some() || count_from;
    let restarts = observe.on_reboot == OnReboot::Restart;
    let unfit = [
        (
            Setting::SwitchAt,
            switch_at.is_some() && !accelerator.is_switchable(),
            "there is one accelerator, and it takes two",
        ),
        (
            Setting::SwitchAt,
            counts && accelerator != Accelerator::SoftwareAndKvm,
            "instructions are counted in software, and the guest starts on KVM",
        ),
        (
            Setting::InstructionLimit,
            limits && (accelerator.is_switchable() || has_moment),
            "not with two accelerators, or with a place to count from",
        ),
        (Setting::CountFrom, count_from && !observe.count, "nothing is counted"),
        (
            Setting::CountFrom,
            count_from && switch_at.is_some(),
            "not with another moment of a hand-over",
        ),
        (
            Setting::Restart,
            restarts && config.restore.is_some(),
            "the start of a guest that is restored from a snapshot is past",
        ),
        (
            Setting::Snapshot,
            observe.snapshot.is_some() && config.cpus.irqchip == Irqchip::User,
            "interrupt controllers in user space have no saved state",
        ),
        (Setting::Restart, restarts && observe.hold_ends, "not where the ends of a guest are held"),
    ];
    match unfit.into_iter().find(|(_, is_unfit, _)| *is_unfit) {
        Some((setting, _, reason)) => Err(Error::Unfit { setting, reason }),
        None => Ok(()),
    }
}

/// Returns `true` if the host's kernel moves the frames of a card.
pub(crate) fn is_vhost(link: &Link) -> bool {
    matches!(link, Link::Tap { vhost: true, .. } | Link::Fd { vhost: true, .. })
}

/// Checks that `hypervisor` can do what every setting needs of it.
pub(crate) fn check_hypervisor(config: &Config, hypervisor: &dyn Hypervisor) -> Result<(), Error> {
    // The other hypervisor does not see what the kernel signals.
    let is_in_kernel = hypervisor.capabilities().in_kernel && !config.accelerator.is_switchable();
    if !is_in_kernel && config.network.iter().any(|spec| is_vhost(&spec.link)) {
        return Err(Error::VhostWithoutKernel { hypervisor: hypervisor.name() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nerite_hypervisor::scripted::ScriptedHypervisor;

    use super::*;
    use crate::ErrorKind;
    use crate::config::{ConsoleKind, Restore};

    #[test]
    fn vhost_needs_a_hypervisor_in_the_kernel() {
        let hypervisor = ScriptedHypervisor::new(|_| unreachable!("no vCPU is created"));
        let check = |cards: &[&str]| {
            let network = cards.iter().map(|card| card.parse().unwrap()).collect();
            check_hypervisor(&Config { network, ..Config::default() }, &hypervisor)
        };
        assert!(check(&["tap=t", "fd=9", "user"]).is_ok());
        for card in ["tap=t,vhost=on", "fd=9,vhost=on"] {
            let error = check(&["user", card]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("vhost needs KVM"), "{error}");
        }
    }

    fn refused(protocol: Protocol, change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        check(&config, protocol).unwrap_err().to_string()
    }

    #[test]
    fn some_settings_need_the_processor_in_software() {
        let kvm = |change: fn(&mut Config)| {
            refused(Protocol::Hermit, |config| {
                config.accelerator = Accelerator::Kvm;
                change(config);
            })
        };
        assert!(kvm(|config| config.cpus.clock = Clock::Virtual).contains("virtual clock"));
        assert!(kvm(|config| config.observe.count = true).contains("instruction counts"));
        assert!(
            refused(Protocol::Hermit, |config| {
                config.accelerator = Accelerator::KvmAndSoftware;
                config.cpus.irqchip = Irqchip::User;
            })
            .contains("in user space")
        );
        let user = |config: &mut Config| {
            config.cpus.clock = Clock::Virtual;
            config.cpus.irqchip = Irqchip::User;
        };
        assert!(refused(Protocol::Hermit, user).contains("local APICs only"));
    }

    #[test]
    fn a_restart_needs_a_start() {
        let restart = |change: fn(&mut Config)| {
            refused(Protocol::Linux, |config| {
                config.observe.on_reboot = OnReboot::Restart;
                change(config);
            })
        };
        assert!(restart(|config| config.restore = Some(Restore::default())).contains("is past"));
        assert!(restart(|config| config.observe.hold_ends = true).contains("ends of a guest"));
        assert!(
            refused(Protocol::Hermit, |config| config.observe.on_reboot = OnReboot::Restart)
                .contains("takes no restart at a reboot")
        );
    }

    #[test]
    fn settings_of_other_guests_are_refused() {
        let text = |option, guest| format!("a guest that boots as {guest} takes no {option}");
        let hermit = |change: fn(&mut Config)| refused(Protocol::Hermit, change);
        assert_eq!(
            hermit(|config| config.boot.initrd = vec!["x".into()]),
            text("initial file system", "hermit")
        );
        assert_eq!(
            hermit(|config| config.devices.disks = vec!["x".parse().unwrap()]),
            text("disk", "hermit")
        );
        for change in [(|config| config.devices.random = true) as fn(&mut Config), |config| {
            config.devices.console = ConsoleKind::Virtio
        }] {
            let mut config = Config::default();
            change(&mut config);
            assert!(check(&config, Protocol::Hermit).is_ok());
            config.cpus.irqchip = Irqchip::User;
            assert!(matches!(check(&config, Protocol::Hermit), Err(Error::UserIrqchip)));
        }
        let linux = |change: fn(&mut Config)| refused(Protocol::Linux, change);
        let env = |config: &mut Config| config.guest.env = vec![("A".to_owned(), "1".to_owned())];
        assert_eq!(linux(env), text("environment variables", "linux"));
        assert!(linux(|config| config.cpus.irqchip = Irqchip::User).contains("not Hermit"));
        assert!(check(&Config::default(), Protocol::Hermit).is_ok());
        assert!(check(&Config::default(), Protocol::Linux).is_ok());
    }
}
