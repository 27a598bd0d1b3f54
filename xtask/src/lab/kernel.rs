//! The lab's kernel: Debian's cloud kernel and the few modules the lab loads, taken out of the
//! package without installing it and kept under `target/lab`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::{packages, paths, progress};

/// Loaded in this order. `kvm-amd` also names `ccp`, which it does not need in the lab.
const MODULES: [&str; 12] = [
    "irqbypass",
    "kvm",
    "kvm-amd",
    "llc",
    "stp",
    "bridge",
    "vhost_iotlb",
    "vhost",
    "tap",
    "tun",
    "vhost_net",
    "af_packet",
];
/// Modules that a Linux guest loads, in this order: the drivers of our devices.
const GUEST_MODULES: [&str; 11] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_console",
    "virtio-rng",
];
/// Modules that only some tests of a Linux guest load: the power button, pvpanic, virtio's sockets
/// and its balloon.
const OPTIONAL_MODULES: [&str; 8] = [
    "button",
    "evdev",
    "pvpanic",
    "pvpanic-mmio",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "virtio_balloon",
];
/// Folder of all that, under `target/lab`. A new name where an older one holds less.
const FOLDER: &str = "kernel-and-all-drivers";
/// The package that always depends on the newest kernel of its kind.
pub(crate) const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel ready to boot.
pub(crate) struct Kernel {
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Modules to load, in order: name and file. Those built into the kernel are not listed.
    pub(crate) modules: Vec<(String, PathBuf)>,
    /// Modules that a Linux guest loads, in the same way.
    pub(crate) guest_modules: Vec<(String, PathBuf)>,
    /// Modules that a Linux guest can load.
    pub(crate) optional_modules: Vec<(String, PathBuf)>,
    /// Its release, such as `6.1.0-50-cloud-amd64`.
    pub(crate) release: String,
}

/// The kernel under `target/lab` if one is there, downloaded otherwise.
pub(crate) fn get() -> Result<Kernel> {
    // Labs that are set up at the same time download it once.
    static DOWNLOAD: Mutex<()> = Mutex::new(());
    let _alone = DOWNLOAD.lock().unwrap_or_else(PoisonError::into_inner);
    match cached()? {
        Some(kernel) => Ok(kernel),
        None => {
            download()?;
            cached()?.context("the kernel package held no kernel")
        }
    }
}

/// The kernel that is under `target/lab` already.
pub(crate) fn cached() -> Result<Option<Kernel>> {
    let folder = paths::lab().join(FOLDER);
    let Ok(release) = fs::read_to_string(folder.join("release")) else { return Ok(None) };
    let there = |names: &[&str]| {
        let files =
            names.iter().map(|name| ((*name).to_owned(), folder.join(format!("{name}.ko"))));
        files.filter(|(_, file)| file.is_file()).collect()
    };
    Ok(Some(Kernel {
        image: folder.join("vmlinuz"),
        modules: there(&MODULES),
        guest_modules: there(&GUEST_MODULES),
        optional_modules: there(&OPTIONAL_MODULES),
        release: release.trim().to_owned(),
    }))
}

/// Fetches the package and keeps what the lab needs of it. The folder appears at once and whole, so
/// that two runs at the same time do not see half of it.
fn download() -> Result<()> {
    let lab = paths::lab();
    fs::create_dir_all(&lab).with_context(|| format!("cannot create {}", lab.display()))?;
    let work = tempfile::Builder::new().prefix("kernel-").tempdir_in(&lab)?;
    let package = packages::kernel_package(META_PACKAGE)?;
    let step = progress::step(&format!("downloading {package} for the lab"));
    let deb = packages::download(&package, work.path())?;
    let folder = work.path().join(FOLDER);
    fs::create_dir(&folder)?;
    unpack(&deb, &folder)?;
    match fs::rename(&folder, lab.join(FOLDER)) {
        // Another run was faster.
        Err(_) if lab.join(FOLDER).join("release").is_file() => {}
        result => result.context("cannot keep the kernel under target/lab")?,
    }
    step.done();
    Ok(())
}

fn unpack(deb: &Path, folder: &Path) -> Result<()> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context(
            "cannot run dpkg-deb (package dpkg): the lab's kernel comes as a Debian package",
        )?;
    let stdout = child.stdout.take().context("no output from dpkg-deb")?;
    let found = pick(stdout, folder);
    // Reading may have stopped early on an error; closing the pipe has ended dpkg-deb by now.
    let status = child.wait()?;
    let found = found.with_context(|| format!("cannot read {}", deb.display()))?;
    ensure!(status.success(), "dpkg-deb could not read {}", deb.display());
    for name in all_modules() {
        ensure!(
            found.modules.contains_key(name) || found.builtin.contains(&format!("/{name}.ko")),
            "the kernel package has no module {name}, which the lab or its guests need"
        );
    }
    ensure!(!found.release.is_empty(), "the kernel package has no /boot/vmlinuz-*");
    fs::write(folder.join("release"), found.release).context("cannot write the kernel's release")
}

/// Names of all modules that are kept.
fn all_modules() -> impl Iterator<Item = &'static str> {
    MODULES.into_iter().chain(GUEST_MODULES).chain(OPTIONAL_MODULES)
}

#[derive(Default)]
struct Found {
    release: String,
    builtin: String,
    modules: BTreeMap<String, ()>,
}

/// Takes the kernel, the list of built-in modules and the modules out of the package's files.
fn pick(tar: impl Read, folder: &Path) -> Result<Found> {
    let mut found = Found::default();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if let Some(release) = file.strip_prefix("vmlinuz-") {
            found.release = release.to_owned();
            std::io::copy(&mut entry, &mut File::create(folder.join("vmlinuz"))?)?;
        } else if file == "modules.builtin" {
            entry.read_to_string(&mut found.builtin)?;
        } else if let Some((name, packing)) =
            file.split_once(".ko").filter(|(name, _)| all_modules().any(|wanted| wanted == *name))
        {
            let target = folder.join(format!("{name}.ko"));
            std::io::copy(&mut entry, &mut File::create(folder.join(file))?)?;
            unpack_module(&folder.join(file), &target, packing)?;
            found.modules.insert(name.to_owned(), ());
        }
    }
    Ok(found)
}

/// Debian 12 ships modules as they are, later ones compressed.
fn unpack_module(from: &Path, to: &Path, packing: &str) -> Result<()> {
    let program = match packing {
        "" => return Ok(()),
        ".xz" => "xz",
        ".zst" => "zstd",
        ".gz" => "gzip",
        other => bail!("the module {} is packed in an unknown way ({other})", from.display()),
    };
    let output = Command::new(program).arg("-dc").arg(from).stdout(File::create(to)?).status();
    let status =
        output.with_context(|| format!("cannot run {program} to unpack {}", from.display()))?;
    ensure!(status.success(), "{program} could not unpack {}", from.display());
    fs::remove_file(from).with_context(|| format!("cannot remove {}", from.display()))
}
