//! `vmm inspect --json`: one object, whose numbers are numbers and whose sizes are in bytes.

use nerite_loader::{
    BzImage, Entry, EntryKind, Format, GuestInspection, ImageConfig, Inspection, RelocationCounts,
    Segment, SegmentedKernel,
};
use nerite_machine::{MachineState, Setup};
use nerite_snapshot::Manifest;
use serde_json::{Value, json};

/// An image.
pub(super) fn image(inspection: &GuestInspection) -> Value {
    match inspection {
        GuestInspection::Hermit(inspection) => hermit(inspection),
        GuestInspection::Linux(image) => linux(image),
        GuestInspection::Pvh(kernel) => segmented("pvh", kernel),
        GuestInspection::Multiboot { kernel, .. } => segmented("multiboot", kernel),
        // As lines, until there is more to say of a new kind.
        other => json!({ "format": "other", "text": other.to_string() }),
    }
}

fn hermit(inspection: &Inspection) -> Value {
    let format = match inspection.format {
        Format::Elf => "hermit-elf",
        Format::Archive => "hermit-tar",
    };
    let segments = inspection.segments.iter().map(|segment| {
        let Segment { address, memory_size, file_offset, file_size, align, flags } = segment;
        json!({
            "address": address,
            "memory_size": memory_size,
            "file_offset": file_offset,
            "file_size": file_size,
            "align": align,
            "flags": flags.to_string(),
        })
    });
    let RelocationCounts { relative, compact, absolute, glob_dat, weak } = inspection.relocations;
    json!({
        "format": format,
        "file_size": inspection.file_size,
        "archive_size": inspection.archive_size,
        "kernel_version": inspection.version.map(|version| version.to_string()),
        "interface": inspection.interface.to_string(),
        "interface_version": inspection.interface_version,
        "standalone": inspection.standalone,
        "entry": inspection.entry,
        "fixed_address": inspection.fixed_start,
        "memory_size": inspection.mem_size,
        "segments": segments.collect::<Vec<_>>(),
        "tls": inspection.tls.map(|tls| json!({
            "start": tls.start,
            "file_size": tls.filesz,
            "memory_size": tls.memsz,
            "align": tls.align,
        })),
        "relocations": {
            "relative": relative,
            "compact": compact,
            "absolute": absolute,
            "glob_dat": glob_dat,
            "weak": weak,
        },
        "symbols": inspection.symbols,
        "config": inspection.config.as_ref().map(config),
        "files": inspection.entries.iter().map(file).collect::<Vec<_>>(),
    })
}

fn config(config: &ImageConfig) -> Value {
    let ImageConfig { kernel, kernel_args, app_args, env_vars, memory, cpus } = config;
    json!({
        "kernel": kernel,
        "kernel_args": kernel_args,
        "app_args": app_args,
        "env_vars": env_vars,
        "memory": memory,
        "cpus": cpus,
    })
}

/// A file of an archive. JSON has no bytes that are not UTF-8: they are replaced.
fn file(entry: &Entry) -> Value {
    json!({
        "name": String::from_utf8_lossy(&entry.name),
        "kind": kind(entry.kind),
        "target": entry.target.as_ref().map(|target| String::from_utf8_lossy(target)),
        "mode": entry.mode,
        "size": entry.size(),
    })
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::HardLink => "hardlink",
        _ => "special",
    }
}

fn linux(image: &BzImage) -> Value {
    json!({
        "format": "linux",
        "code_size": image.code_size(),
        "kernel_version": image.version(),
        "boot_protocol": image.protocol_version(),
        "has_64_bit_entry": image.has_64_bit_entry(),
        "entry": image.entry(image.preferred_address()),
        "relocatable": image.is_relocatable(),
        "address": image.preferred_address(),
        "align": image.alignment(),
        "memory_size": image.init_size(),
        "initrd_max": image.initrd_max(),
        "command_line_max": image.command_line_max(),
    })
}

fn segmented(format: &str, kernel: &SegmentedKernel) -> Value {
    let segments = kernel.segments().iter().map(|segment| {
        json!({
            "address": segment.address,
            "memory_size": segment.memory_size,
            "file_offset": segment.file_offset,
            "file_size": segment.file_size,
        })
    });
    json!({
        "format": format,
        "entry": kernel.entry(),
        "segments": segments.collect::<Vec<_>>(),
    })
}

/// A snapshot.
pub(super) fn snapshot(manifest: &Manifest<MachineState>) -> Value {
    let Manifest { writer, memory, memory_digest, image_digest, state } = manifest;
    let MachineState { hypervisor, setup, vcpus, .. } = state;
    let Setup { image, protocol, app_args, kernel_args, mounts, .. } = setup;
    json!({
        "format": "snapshot",
        "version": nerite_snapshot::FORMAT,
        "writer": writer,
        "hypervisor": hypervisor,
        "protocol": protocol,
        "image": image,
        "vcpus": vcpus.len(),
        "kernel_args": kernel_args,
        "app_args": app_args,
        "mounts": mounts,
        "memory": memory,
        "memory_digest": memory_digest,
        "image_digest": image_digest,
    })
}
