//! Proves that [`RawBootInfo`] has the layout of hermit-entry's type, in both directions.

#![cfg(test)]

use std::mem::{MaybeUninit, size_of, transmute};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::ops::Range;

use hermit_entry::boot_info as theirs;
use nerite_arch::boot_info::{BootInfo, RawBootInfo, TlsInfo};
use proptest::prelude::*;
use zerocopy::IntoBytes;

const SIZE: usize = 128;

/// The bytes that belong to a field, as opposed to padding.
const FIELDS: [Range<usize>; 11] =
    [0..8, 8..16, 16..18, 24..32, 32..40, 40..48, 48..80, 80..84, 88..89, 96..104, 104..108];
const BOOT_TIME: Range<usize> = 112..128;

/// The same information in their type.
fn their_info(info: &BootInfo) -> theirs::BootInfo {
    theirs::BootInfo {
        hardware_info: theirs::HardwareInfo {
            phys_addr_range: info.phys_addr_range.clone(),
            serial_port_base: info.serial_port,
            device_tree: info.device_tree,
        },
        load_info: theirs::LoadInfo {
            kernel_image_addr_range: info.kernel_range.clone(),
            tls_info: info.tls.map(|tls| theirs::TlsInfo {
                start: tls.start,
                filesz: tls.filesz,
                memsz: tls.memsz,
                align: tls.align,
            }),
        },
        platform_info: theirs::PlatformInfo::Uhyve {
            has_pci: info.has_pci,
            num_cpus: info.num_cpus,
            cpu_freq: info.cpu_freq_khz,
            boot_time: time::OffsetDateTime::from_unix_timestamp_nanos(info.boot_time_ns).unwrap(),
        },
    }
}

fn infos() -> impl Strategy<Value = BootInfo> {
    let tls = (1_u64.., any::<u64>(), any::<u64>(), any::<u64>())
        .prop_map(|(start, filesz, memsz, align)| TlsInfo { start, filesz, memsz, align });
    let hardware = (any::<u64>(), any::<u64>(), any::<u16>(), any::<u64>());
    let load = (any::<u64>(), any::<u64>(), proptest::option::of(tls));
    // Years -9999 to 9999 in nanoseconds.
    let limit = 250_000_000_000 * 1_000_000_000_i128;
    let platform = (any::<bool>(), 1_u64.., any::<u32>(), -limit..limit);
    (hardware, load, platform).prop_map(|(hardware, load, platform)| BootInfo {
        phys_addr_range: hardware.0..hardware.1,
        serial_port: NonZeroU16::new(hardware.2),
        device_tree: NonZeroU64::new(hardware.3),
        kernel_range: load.0..load.1,
        tls: load.2,
        has_pci: platform.0,
        num_cpus: NonZeroU64::new(platform.1).unwrap(),
        cpu_freq_khz: NonZeroU32::new(platform.2),
        boot_time_ns: platform.3,
    })
}

#[test]
fn sizes_are_equal() {
    assert_eq!(size_of::<RawBootInfo>(), SIZE);
    assert_eq!(size_of::<theirs::RawBootInfo>(), SIZE);
    assert_eq!(size_of::<TlsInfo>(), size_of::<theirs::TlsInfo>());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A kernel reads from our bytes what was put in.
    #[test]
    fn a_kernel_reads_what_we_write(info in infos()) {
        let bytes: [u8; SIZE] = RawBootInfo::from(&info).as_bytes().try_into().unwrap();
        // SAFETY: Both are 128 bytes, all initialised. The fields with invalid values are the
        // platform's tag, which is 1, `has_pci`, which is 0 or 1, and `num_cpus`, which is not 0.
        let raw: theirs::RawBootInfo = unsafe { transmute(bytes) };
        let read = theirs::BootInfo::from(raw);
        prop_assert_eq!(format!("{read:?}"), format!("{:?}", their_info(&info)));
    }

    /// Byte for byte what their loader side makes, with zeroes where theirs has padding.
    #[test]
    fn our_bytes_are_those_of_their_loader(info in infos()) {
        let ours: [u8; SIZE] = RawBootInfo::from(&info).as_bytes().try_into().unwrap();
        let raw = theirs::RawBootInfo::from(their_info(&info));
        // SAFETY: Both are 128 bytes, and `MaybeUninit` holds the padding too.
        let theirs: [MaybeUninit<u8>; SIZE] = unsafe { transmute(raw) };
        let fields = || FIELDS.into_iter().chain([BOOT_TIME]).flatten();
        for index in fields() {
            // SAFETY: This byte belongs to a field of a fully initialised value, not to its
            // padding.
            let byte = unsafe { theirs[index].assume_init() };
            prop_assert_eq!(ours[index], byte, "byte {}", index);
        }
        for index in (0..SIZE).filter(|index| fields().all(|field| field != *index)) {
            prop_assert_eq!(ours[index], 0, "padding byte {}", index);
        }
    }
}
