//! KVM's own counters of a vCPU: its binary statistics (KVM API, 4.133, `KVM_GET_STATS_FD`).

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt as _;

use kvm_ioctls::VcpuFd;
use nerite_hypervisor::KernelCounts;

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;
/// Bytes of the header, and of a descriptor before its name.
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;
/// More of them, or longer names, than any kernel has.
const MAX_DESCRIPTORS: u32 = 1024;
const MAX_NAME: u32 = 256;

/// The reported counters of a vCPU, and the offset of each in the file.
#[derive(Debug)]
pub(crate) struct Counters {
    file: File,
    exits: Option<u64>,
    interrupts: Option<u64>,
    nmis: Option<u64>,
    halts: Option<u64>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

impl Counters {
    /// Those of this vCPU, if this kernel has any.
    pub(crate) fn open(vcpu: &VcpuFd) -> Option<Self> {
        // SAFETY: the call takes no argument and touches no memory of ours.
        let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD, 0) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the descriptor was just made, is open, and nothing else owns it.
        Self::find(unsafe { File::from_raw_fd(fd) })
    }

    /// Reads which counters there are.
    fn find(file: File) -> Option<Self> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).ok()?;
        let field = |at| word(&header, at);
        let (name_size, count) = (field(4)?.min(MAX_NAME), field(8)?.min(MAX_DESCRIPTORS));
        let (descriptors, data) = (field(16)?, field(20)?);
        let size = DESCRIPTOR.checked_add(usize::try_from(name_size).ok()?)?;
        let mut bytes = vec![0; size.checked_mul(usize::try_from(count).ok()?)?];
        file.read_exact_at(&mut bytes, descriptors.into()).ok()?;
        let mut counters = Self { file, exits: None, interrupts: None, nmis: None, halts: None };
        for descriptor in bytes.chunks_exact(size) {
            let name = descriptor.get(DESCRIPTOR..)?.split(|byte| *byte == 0).next()?;
            let wanted = match name {
                b"exits" => &mut counters.exits,
                b"irq_injections" => &mut counters.interrupts,
                b"nmi_injections" => &mut counters.nmis,
                b"halt_exits" => &mut counters.halts,
                _ => continue,
            };
            *wanted = u64::from(data).checked_add(word(descriptor, 8)?.into());
        }
        Some(counters)
    }

    /// Current values.
    pub(crate) fn read(&self) -> Option<KernelCounts> {
        let value = |at: Option<u64>| {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, at?).ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        Some(KernelCounts {
            exits: value(self.exits)?,
            interrupts: value(self.interrupts)?,
            nmis: value(self.nmis)?,
            halts: value(self.halts)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A file as the kernel makes it, with these counters.
    fn file(counters: &[(&str, u64)]) -> File {
        const NAME: usize = 48;
        let data = HEADER + counters.len() * (DESCRIPTOR + NAME);
        let mut bytes = Vec::new();
        for field in [0, NAME, counters.len(), 0, HEADER, data] {
            bytes.extend(u32::try_from(field).unwrap().to_le_bytes());
        }
        for (number, (name, _)) in counters.iter().enumerate() {
            bytes.extend([0; 8]);
            bytes.extend(u32::try_from(number * 8).unwrap().to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(name.as_bytes());
            bytes.extend(vec![0; NAME - name.len()]);
        }
        counters.iter().for_each(|(_, value)| bytes.extend(value.to_le_bytes()));
        // SAFETY: the name is a string that ends; the descriptor that comes back, if any, has no
        // other owner.
        let fd = unsafe { libc::memfd_create(c"counters".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: as above.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn counters_are_found_by_name() {
        let all = [
            ("halt_exits", 1),
            ("other", 2),
            ("nmi_injections", 3),
            ("exits", 4),
            ("irq_injections", 5),
        ];
        let expected = KernelCounts { exits: 4, interrupts: 5, nmis: 3, halts: 1 };
        assert_eq!(Counters::find(file(&all)).unwrap().read(), Some(expected));
    }

    #[test]
    fn what_is_missing_or_cut_off_is_no_counter() {
        assert_eq!(Counters::find(file(&[("exits", 4)])).unwrap().read(), None);
        assert!(Counters::find(file(&[])).unwrap().read().is_none());
        let cut = file(&[("exits", 4)]);
        cut.set_len(30).unwrap();
        assert!(Counters::find(cut).is_none());
    }
}
