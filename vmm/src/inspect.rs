//! `vmm inspect`.

mod host;
mod json;
mod layout;

use std::fmt::{self, Display};
use std::os::fd::BorrowedFd;

use log::warn;
use nerite_loader::Limits;
use nerite_machine::{MachineState, SavedMount, Setup, open_image};
use nerite_sandbox::{Reachable, Rights};
use nerite_snapshot::{Manifest, Snapshot};

use crate::cli::InspectArgs;
use crate::error::Error;
use crate::layout::LayoutImage;
use crate::output;

/// Prints what an image or a snapshot is, confined as `vmm run` is: it is no less hostile here. Or
/// what the host has.
///
/// # Errors
///
/// If it cannot be read, is malformed or cannot be looked at as confined as was asked for.
pub fn inspect(args: &InspectArgs) -> Result<u8, Error> {
    let Some(path) = &args.image else { return host::inspect(args) };
    args.sandbox.check().map_err(Error::Usage)?;
    if let Some(image) = LayoutImage::open(path, Vec::new())? {
        return layout::inspect(args, image);
    }
    if path.is_dir() {
        let snapshot = Snapshot::open(path)?;
        confine(args, None)?;
        let manifest = snapshot.read::<MachineState>()?;
        if args.verify {
            snapshot.verify(&manifest)?;
        }
        if args.json {
            output::print(format_args!("{}\n", json::snapshot(&manifest)))?;
        } else {
            output::print(OfSnapshot(&manifest))?;
        }
        return Ok(0);
    }
    if args.verify {
        return Err(verify_is_for_snapshots());
    }
    let image = open_image(path)?;
    confine(args, None)?;
    let image = image.read_guest(None, &Limits::default())?;
    if args.json {
        output::print(format_args!("{}\n", json::image(&image.inspect())))?;
    } else {
        output::print(image.inspect())?;
    }
    Ok(0)
}

fn verify_is_for_snapshots() -> Error {
    Error::Usage("--verify is for the directory of a snapshot".to_owned())
}

/// Confines the process, which may read files below `directory`.
fn confine(args: &InspectArgs, directory: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let reachable =
        directory.map(|file| Reachable { file, rights: Rights::Read, is_directory: true });
    let confinement = nerite_sandbox::enter(&args.sandbox.policy(None), reachable)?;
    for missing in confinement.missing() {
        warn!("{missing}");
    }
    Ok(())
}

/// A snapshot for people.
struct OfSnapshot<'a>(&'a Manifest<MachineState>);

impl Display for OfSnapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { writer, memory, memory_digest, image_digest, state } = self.0;
        let MachineState { hypervisor, setup, vcpus, .. } = state;
        let Setup { image, protocol, app_args, kernel_args, mounts, .. } = setup;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn Display| {
            writeln!(f, "{name:<15} {}", crate::error::printable(&value.to_string(), false))
        };
        line(f, "format", &nerite_snapshot::FORMAT)?;
        line(f, "written by", writer)?;
        line(f, "hypervisor", hypervisor)?;
        line(f, "guest", &format_args!("{protocol}, {image}"))?;
        line(f, "vCPUs", &vcpus.len())?;
        for (name, words) in [("kernel args", kernel_args), ("arguments", app_args)] {
            if !words.is_empty() {
                line(f, name, &format_args!("{words:?}"))?;
            }
        }
        for SavedMount { guest, writable } in mounts {
            line(f, "mount", &format_args!("{guest} ({})", if *writable { "rw" } else { "ro" }))?;
        }
        for region in memory {
            let end = region.start.saturating_add(region.size);
            line(
                f,
                "memory",
                &format_args!("{:#x}..{end:#x} ({} KiB)", region.start, region.size >> 10),
            )?;
        }
        line(f, "memory digest", memory_digest)?;
        line(f, "image digest", image_digest)
    }
}
