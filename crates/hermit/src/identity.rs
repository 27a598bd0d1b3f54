//! Identity of a restored Hermit guest: what it reads at its boot is changed where it still lies.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use nerite_arch::boot_info::RawBootInfo;
use nerite_loader::{Image, Interface, LoadedKernel};
use nerite_memory::{GuestRam, Region};
use nerite_platform::Identity;

use crate::boot;
use crate::hypercalls::CommandLine;
use crate::plan::Plan;
use crate::{Error, boot::device_tree};

/// Distance of the device tree from the start of RAM.
const DEVICE_TREE: u64 = 0x1000;

/// Boot information and device tree of a guest, where it was started with them.
#[derive(Debug, Clone)]
pub(crate) struct BootData {
    info: RawBootInfo,
    info_at: u64,
    tree: Region,
    plan: Plan,
}

impl BootData {
    /// The boot data of a guest that was started with `plan`; `None` if it is not in memory any
    /// more, because the guest has taken that for itself.
    pub(crate) fn find(
        image: &Image,
        plan: &Plan,
        loaded: &LoadedKernel,
        ram: &GuestRam,
    ) -> Option<Self> {
        let base = ram
            .regions()
            .iter()
            .find(|region| region.start <= loaded.start && loaded.start < region.end())?;
        // All distances from the start of RAM are the same wherever that is.
        let layout = boot::lay_out(image.kernel(), plan, false, 0, &[]).ok()?;
        let moved = |address: u64| address.checked_sub(layout.base)?.checked_add(base.start);
        let info_at = moved(layout.boot_info)?;
        let tree = Region { start: moved(layout.fdt.start)?, size: layout.fdt.size };
        let info: RawBootInfo = ram.read_obj(info_at).ok()?;
        let is_there = tree.start == base.start.checked_add(DEVICE_TREE)?
            && info.device_tree() == tree.start
            && info.kernel_range() == (loaded.start..loaded.end);
        is_there.then(|| Self { info, info_at, tree, plan: plan.clone() })
    }

    /// Sets the time of day of the guest's start.
    pub(crate) fn set_boot_time(&self, identity: &Identity, ram: &GuestRam) -> Result<(), Error> {
        let Some(time) = identity.boot_time else { return Ok(()) };
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = i128::try_from(since_epoch.as_nanos()).unwrap_or(0);
        let info = self.info.with_boot_time(nanoseconds);
        ram.write_obj(self.info_at, &info).map_err(Error::writing("the boot information"))
    }

    /// The device tree with this plan's words, in the memory that this guest has.
    fn tree(&self, plan: &Plan, interface: Interface, ram: &GuestRam) -> Result<Vec<u8>, Error> {
        let mut tree = device_tree(plan, self.info.cpu_freq_khz());
        for region in boot::usable(interface, boot::main_memory(ram, &self.tree)) {
            tree = tree.memory(region.start, region.size);
        }
        Ok(tree.finish()?)
    }

    /// Writes a device tree with other words over the one that is there. Returns `false` if that is
    /// not the one the guest was started with.
    pub(crate) fn set_words(
        &self,
        plan: &Plan,
        interface: Interface,
        ram: &GuestRam,
    ) -> Result<bool, Error> {
        let old = self.tree(&self.plan, interface, ram)?;
        let mut there = vec![0; old.len()];
        let is_there = ram.read(self.tree.start, &mut there).is_ok() && there == old;
        if !is_there {
            return Ok(false);
        }
        let new = self.tree(plan, interface, ram)?;
        let room = self.tree.size;
        if new.len() as u64 > room {
            return Err(Error::CommandLine { length: new.len(), allowed: room });
        }
        ram.write(self.tree.start, &new).map_err(Error::writing("the device tree"))?;
        Ok(true)
    }
}

/// Gives a guest that was started with `plan` another identity. Returns the plan of a guest with
/// that identity.
///
/// # Errors
/// Fails if there are arguments or variables, and the guest has taken the memory that they were in.
pub(crate) fn renew(
    image: &Image,
    plan: &Plan,
    loaded: &LoadedKernel,
    ram: &GuestRam,
    identity: &Identity,
) -> Result<Plan, Error> {
    let data = BootData::find(image, plan, loaded, ram);
    if let Some(data) = &data {
        data.set_boot_time(identity, ram)?;
    }
    if !identity.has_words() {
        return Ok(plan.clone());
    }
    let mut new = plan.clone();
    new.env = identity.env_over(&plan.env);
    if let Some(args) = &identity.app_args {
        new.app_args.clone_from(args);
    }
    let interface = image.kernel().interface();
    // Interface v1 has hypercalls for them; a device tree is there all the same.
    let is_told = match data {
        Some(data) => data.set_words(&new, interface, ram)?,
        None => false,
    };
    if is_told || interface == Interface::V1 { Ok(new) } else { Err(Error::WordsTaken) }
}

/// The words for interface v1, which hands them over by hypercall.
pub(crate) fn command_line(
    image: &Image,
    path: &str,
    plan: &Plan,
) -> Result<Arc<CommandLine>, Error> {
    // Only interface v1 hands strings over by hypercall, and only it limits their number.
    Ok(Arc::new(match image.kernel().interface() {
        Interface::V1 => {
            let terminates_environment = !boot::is_before_0_10(image.kernel().version());
            CommandLine::new(path, &plan.app_args, &plan.env, terminates_environment)?
        }
        Interface::V2 => CommandLine::default(),
    }))
}
