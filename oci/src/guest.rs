//! From a bundle to the options of `vmm run`.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nerite_image::process::{candidates, is_assignment, is_pseudo, search_path};
use oci_spec::runtime::{LinuxCpu, LinuxResources, Mount, Process};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::bundle::Bundle;

/// Annotations that this runtime knows, without their prefix.
pub const ANNOTATIONS: [&str; 7] =
    ["accel", "boot", "cmdline", "cpus", "initrd", "memory", "sandbox"];

/// Part of a container's memory limit that is not the guest's: the virtual machine monitor, the
/// host's page tables for the guest, and files that the guest keeps in memory for a moment.
const OVERHEAD: u64 = 16 << 20;
/// Least memory of a guest.
const MIN_MEMORY: u64 = 16 << 20;
/// Guest memory is a multiple of this.
const MEMORY_UNIT: u64 = 2 << 20;
/// Most vCPUs of a guest.
const MAX_VCPUS: u64 = 16;

/// A network card for the guest: a tap, and how the namespace's interface was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Number of the tap's descriptor.
    pub fd: i32,
    /// Hardware address.
    pub mac: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Address and length of the network's prefix in bits.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Router of the default route.
    pub gateway: Option<Ipv4Addr>,
}

/// A part of the host's file system that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Path on the host.
    pub host: PathBuf,
    /// Path for the guest.
    pub guest: PathBuf,
    /// `true` if the guest may change it.
    pub is_writable: bool,
}

/// A file system in memory that the container wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Path for the guest.
    pub guest: PathBuf,
    /// Options of the file system itself, such as `size=64m,mode=1777`.
    pub data: String,
}

/// Everything about a guest that its bundle says.
#[derive(Debug, PartialEq, Eq)]
pub struct Guest {
    image: PathBuf,
    initrd: Option<PathBuf>,
    /// Files of the host that the guest sees.
    pub shares: Vec<Share>,
    /// File systems in memory, which the container's process makes.
    pub tmpfs: Vec<Tmpfs>,
    /// Options before the shares and cards.
    options: Vec<OsString>,
    is_hermit: bool,
    args: Vec<OsString>,
}

impl Guest {
    /// Describes the guest of a bundle.
    ///
    /// # Errors
    /// If the image is not in the root file system, or the bundle asks for what a guest cannot
    /// have.
    pub fn of(bundle: &Bundle) -> Result<Self> {
        if let Some(name) = bundle.unknown_annotations(&ANNOTATIONS).next() {
            bail!(
                "annotation {name} is unknown (known after `nerite.`: {})",
                ANNOTATIONS.join(", ")
            );
        }
        let process = bundle.process()?;
        let mut words = process.args().iter().flatten();
        let name = words.next().context("process.args is empty")?;
        let image = find(&bundle.rootfs, process, name)?;
        let initrd = bundle.annotation("initrd");
        let initrd = initrd.map(|path| resolve(&bundle.rootfs, Path::new(path))).transpose()?;
        let (shares, tmpfs) = shares(bundle)?;
        Ok(Self {
            image,
            initrd,
            shares,
            tmpfs,
            options: options(bundle)?,
            is_hermit: bundle.annotation("boot").is_none_or(|kind| kind == "hermit"),
            args: words.map(OsString::from).collect(),
        })
    }

    /// The command line of `vmm` for this guest with network cards.
    ///
    /// # Errors
    /// If a path cannot be said there.
    pub fn words(&self, cards: &[Card]) -> Result<Vec<OsString>> {
        let mut words: Vec<OsString> = vec!["vmm".into(), "run".into()];
        words.extend(self.options.iter().cloned());
        for share in &self.shares {
            words.extend(["--mount".into(), share.word()?]);
        }
        for card in cards {
            let link = format!("fd={},mac={},mtu={}", card.fd, card.mac, card.mtu);
            words.extend(["--net".into(), link.into()]);
        }
        if let Some(initrd) = &self.initrd {
            words.extend(["--initrd".into(), initrd.into()]);
        }
        let first = cards.first().and_then(|card| Some((card.address?, card.gateway)));
        if let Some(((address, prefix), gateway)) = first.filter(|_| self.is_hermit) {
            let mut kernel_args = vec!["-ip".to_owned(), address.to_string()];
            kernel_args.extend(["-mask".to_owned(), mask(prefix).to_string()]);
            if let Some(gateway) = gateway {
                kernel_args.extend(["-gateway".to_owned(), gateway.to_string()]);
            }
            words.extend(kernel_args.into_iter().flat_map(|arg| ["-k".into(), arg.into()]));
        }
        words.push(self.image.clone().into());
        words.push("--".into());
        words.extend(self.args.iter().cloned());
        if let Some(((address, prefix), gateway)) = first.filter(|_| !self.is_hermit) {
            let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
            // Linux, Documentation/admin-guide/nfs/nfsroot.rst: client, server, gateway, mask,
            // host name, device, configuration.
            words.push(format!("ip={address}::{gateway}:{}::eth0:off", mask(prefix)).into());
        }
        Ok(words)
    }
}

impl Share {
    fn word(&self) -> Result<OsString> {
        for path in [&self.host, &self.guest] {
            ensure!(
                !path.as_os_str().as_bytes().contains(&b':'),
                "mount {}: a path with a colon cannot be given to a guest",
                path.display()
            );
        }
        let mut word = self.host.clone().into_os_string();
        word.push(":");
        word.push(&self.guest);
        word.push(if self.is_writable { ":rw" } else { ":ro" });
        Ok(word)
    }
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0))
}

fn options(bundle: &Bundle) -> Result<Vec<OsString>> {
    let mut options: Vec<OsString> = Vec::new();
    // One word each: a value may begin with a dash.
    let mut add = |name: &str, value: &str| options.push(format!("{name}={value}").into());
    for name in ["accel", "boot", "cmdline"] {
        if let Some(value) = bundle.annotation(name) {
            add(&format!("--{name}"), value);
        }
    }
    match bundle.annotation("sandbox") {
        None => (),
        Some(level @ ("normal" | "strict")) => add("--sandbox", level),
        Some(level) => {
            bail!("annotation nerite.sandbox is {level:?}; it can be `normal` or `strict`")
        }
    }
    let linux = bundle.spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    if let Some(memory) = bundle.annotation("memory") {
        add("--memory", memory);
    } else if let Some(limit) = memory_limit(resources) {
        add("--memory", &memory_within(limit)?.to_string());
    }
    if let Some(count) = bundle.annotation("cpus") {
        add("--cpus", count);
    } else if let Some(count) = resources.and_then(|resources| vcpus(resources.cpu().as_ref()?)) {
        add("--cpus", &count.to_string());
    }
    let process = bundle.process()?;
    let user = process.user();
    if (user.uid(), user.gid()) != (0, 0) {
        add("--user", &format!("{}:{}", user.uid(), user.gid()));
    }
    for entry in process.env().iter().flatten() {
        ensure!(is_assignment(entry), "process.env has {entry:?}, which is not NAME=VALUE");
        add("--env", entry);
    }
    Ok(options)
}

/// The memory limit of a container in bytes, if it has one.
fn memory_limit(resources: Option<&LinuxResources>) -> Option<u64> {
    let limit = resources?.memory().as_ref()?.limit()?;
    // -1 is "no limit".
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// Guest memory in bytes for a container that may use `limit`.
fn memory_within(limit: u64) -> Result<u64> {
    let memory = limit.saturating_sub(OVERHEAD) / MEMORY_UNIT * MEMORY_UNIT;
    ensure!(
        memory >= MIN_MEMORY,
        "a memory limit of {limit} bytes is too small (at least {}: {} MiB for the guest and {} MiB \
         for its virtual machine monitor)",
        MIN_MEMORY + OVERHEAD,
        MIN_MEMORY >> 20,
        OVERHEAD >> 20,
    );
    Ok(memory)
}

/// Number of vCPUs that can use the time of a container.
fn vcpus(cpu: &LinuxCpu) -> Option<u64> {
    let quota = u64::try_from(cpu.quota()?).ok().filter(|quota| *quota > 0)?;
    // The kernel's default, Documentation/scheduler/sched-bwc.rst.
    let period = cpu.period().unwrap_or(100_000).max(1);
    Some(quota.div_ceil(period).clamp(1, MAX_VCPUS))
}

/// Files of the host that the guest sees: the directories of the root file system, and the bundle's
/// mounts.
fn shares(bundle: &Bundle) -> Result<(Vec<Share>, Vec<Tmpfs>)> {
    let mut shares = Vec::new();
    let mut tmpfs = Vec::new();
    for mount in bundle.spec.mounts().iter().flatten() {
        let guest = guest_path(mount.destination())?;
        if is_pseudo(&guest) {
            continue;
        }
        if is_bind(mount) {
            let source = mount.source().as_ref();
            let source =
                source.with_context(|| format!("mount {} has no source", guest.display()))?;
            let is_writable = !has_option(mount, "ro");
            shares.push(Share { host: bundle.folder.join(source), guest, is_writable });
        } else {
            match mount.typ().as_deref() {
                Some("tmpfs") => tmpfs.push(Tmpfs { guest, data: tmpfs_data(mount) }),
                kind => bail!(
                    "mount {}: file system {:?} is not supported (bind and tmpfs are)",
                    guest.display(),
                    kind.unwrap_or("")
                ),
            }
        }
    }
    let is_writable =
        !bundle.spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let is_covered = |guest: &Path| {
        shares.iter().any(|share: &Share| share.guest == guest)
            || tmpfs.iter().any(|tmpfs| tmpfs.guest == guest)
    };
    let mut folders: Vec<Share> = Vec::new();
    let rootfs = &bundle.rootfs;
    for entry in fs::read_dir(rootfs).with_context(|| format!("root {}", rootfs.display()))? {
        let entry = entry.with_context(|| format!("root {}", rootfs.display()))?;
        let guest = Path::new("/").join(entry.file_name());
        // A link may lead out of the root file system, and a Hermit kernel sees no files in `/`.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && !is_pseudo(&guest) && !is_covered(&guest) {
            folders.push(Share { host: entry.path(), guest, is_writable });
        }
    }
    folders.sort_by(|a, b| a.guest.cmp(&b.guest));
    folders.extend(shares);
    Ok((folders, tmpfs))
}

fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || has_option(mount, "bind")
        || has_option(mount, "rbind")
}

fn has_option(mount: &Mount, name: &str) -> bool {
    mount.options().iter().flatten().any(|option| option == name)
}

/// The options of a mount that are the file system's and not mount(2)'s flags.
fn tmpfs_data(mount: &Mount) -> String {
    let is_data = |option: &&String| {
        ["size=", "mode=", "uid=", "gid=", "nr_inodes="].iter().any(|name| option.starts_with(name))
    };
    let data: Vec<&str> =
        mount.options().iter().flatten().filter(is_data).map(String::as_str).collect();
    data.join(",")
}

/// A path for the guest without `.`, `..` and double slashes.
fn guest_path(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => (),
            Component::Normal(name) => clean.push(name),
            _ => bail!("mount {}: not an absolute path without `..`", path.display()),
        }
    }
    ensure!(path.is_absolute(), "mount {}: not an absolute path", path.display());
    ensure!(clean != Path::new("/"), "mount /: the root file system cannot be mounted over");
    Ok(clean)
}

/// Finds the program of a container as a shell in the root file system would.
fn find(rootfs: &Path, process: &Process, name: &str) -> Result<PathBuf> {
    let search = search_path(process.env().as_deref().unwrap_or_default()).unwrap_or_default();
    let mut places = candidates(name, search, process.cwd());
    if name.contains('/')
        && let Some(place) = places.pop()
    {
        return resolve(rootfs, &place).context("guest image");
    }
    let found = places.iter().find_map(|place| resolve(rootfs, place).ok());
    found.with_context(|| {
        format!("guest image {name}: not found in PATH {search:?} of the container")
    })
}

/// Path on the host of a regular file in the root file system. Links lead to no place outside.
fn resolve(rootfs: &Path, path: &Path) -> Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty())
        .with_context(|| format!("root {}", rootfs.display()))?;
    let file = openat2(
        &root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .with_context(|| format!("{} in the root file system", path.display()))?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    ensure!(kind.is_file(), "{} in the root file system is not a regular file", path.display());
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    fs::read_link(&link).with_context(|| link)
}

#[cfg(test)]
#[path = "guest_test.rs"]
mod tests;
