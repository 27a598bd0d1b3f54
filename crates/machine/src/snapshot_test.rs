//! Snapshots of machines on a hypervisor whose guests are programs in Rust.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use nerite_hypervisor::scripted::{Program, Scripted, ScriptedHypervisor};
use nerite_log_budget::Causes;
use nerite_snapshot::Staging;
use nerite_testkit::image;
use nerite_vcpu::{Exit, SystemEvent};
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Output, Restore};
use crate::{Error, ErrorKind, Opened, Outcome, Running};

/// A folder with an image.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("image"), image::elf(1, None).build()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> Config {
        let mut config =
            Config { image: self.path("image"), output: Output::None, ..Config::default() };
        config.cpus.count = Some(2);
        config.observe.snapshots = true;
        config
    }

    fn restored(&self) -> Config {
        let restore = Restore { directory: self.path("saved"), verify: true, ..Restore::default() };
        let mut config = Config { restore: Some(restore), ..self.config() };
        config.cpus.count = None;
        config
    }

    /// Saves a machine as `saved`.
    fn save(&self, running: &Running) -> Result<SnapshotReport, SnapshotError> {
        let staging = Staging::create(&self.path("saved"))?;
        let report = running.handle().snapshot(staging.files())?;
        staging.commit()?;
        Ok(report)
    }
}

fn build(config: &Config, programs: fn(u32) -> Program) -> Result<crate::Machine, Error> {
    Opened::open_on(config, Arc::new(ScriptedHypervisor::new(programs)))?.build()
}

/// A place in the RAM of a Hermit guest that has nothing else in it.
fn place(vcpu: &Scripted) -> u64 {
    vcpu.ram.as_ref().unwrap().regions().last().unwrap().end() - 0x1000
}

/// A guest whose vCPUs leave marks in their registers and in memory, and wait.
fn marks(index: u32) -> Program {
    Box::new(move |vcpu, _| {
        let place = place(vcpu) + u64::from(index);
        vcpu.regs.rax = 7 + u64::from(index);
        vcpu.ram.as_ref().unwrap().write(place, &[index.to_le_bytes()[0] + 1]).unwrap();
        None
    })
}

/// A guest that finds these marks, and powers itself off.
fn finds(index: u32) -> Program {
    Box::new(move |vcpu, _| {
        assert_eq!(vcpu.regs.rax, 7 + u64::from(index));
        let marks = vcpu.ram.as_ref().unwrap().read_obj::<[u8; 3]>(place(vcpu)).unwrap();
        assert_eq!(marks, [1, 2, 0]);
        (index == 0).then_some(Exit::System(SystemEvent::PowerOff))
    })
}

/// A machine that has left its marks.
fn marked(config: &Config) -> Running {
    let running = build(config, marks).unwrap().start().unwrap();
    for index in 0..2 {
        while running.handle().registers(index).unwrap().0.rax != 7 + index as u64 {
            std::thread::yield_now();
        }
    }
    running
}

#[test]
fn a_machine_goes_on_with_its_registers_and_memory() {
    let folder = Folder::new();
    let running = marked(&folder.config());
    let report = folder.save(&running).unwrap();
    assert!(report.data >= 4096 && report.memory >= 64 << 20, "{report:?}");
    // The machine that was saved keeps running as well.
    assert_eq!(running.handle().registers(1).unwrap().0.rax, 8);
    running.handle().stop();
    assert!(matches!(running.wait(None).unwrap(), Outcome::Stopped));
    // The image is in the snapshot.
    std::fs::remove_file(folder.path("image")).unwrap();
    let restored = build(&folder.restored(), finds).unwrap().start().unwrap();
    assert!(matches!(restored.wait(None).unwrap(), Outcome::PoweredOff));
}

#[test]
fn a_restored_machine_can_be_saved_again() {
    let folder = Folder::new();
    let running = marked(&folder.config());
    folder.save(&running).unwrap();
    let restored = build(&folder.restored(), |_| Box::new(|_, _| None)).unwrap().start().unwrap();
    std::fs::remove_dir_all(folder.path("saved")).unwrap();
    folder.save(&restored).unwrap();
    let again = build(&folder.restored(), finds).unwrap().start().unwrap();
    assert!(matches!(again.wait(None).unwrap(), Outcome::PoweredOff));
    for running in [running, restored] {
        running.handle().stop();
        running.wait(None).unwrap();
    }
}

#[test]
fn machines_that_cannot_be_saved_go_on() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.observe.snapshots = false;
    let running = marked(&config);
    assert!(matches!(folder.save(&running), Err(SnapshotError::NotPrepared)));
    running.handle().stop();
    running.wait(None).unwrap();
    let running = marked(&folder.config());
    std::fs::write(folder.path("image"), "another").unwrap();
    assert!(matches!(folder.save(&running), Err(SnapshotError::ImageChanged)));
    assert_eq!(running.handle().registers(0).unwrap().0.rax, 7);
    assert!(!folder.path("saved").exists());
    running.handle().stop();
    running.wait(None).unwrap();
    let folder = Folder::new();
    let running = marked(&folder.config());
    running.handle().stop();
    let handle = running.handle();
    running.wait(None).unwrap();
    let files = Staging::create(&folder.path("saved")).unwrap();
    let refused = Causes(&handle.snapshot(files.files()).unwrap_err()).to_string();
    assert_eq!(refused, "vCPU 0: the vCPU has stopped");
}

/// A change of a saved state.
type Change = fn(&mut MachineState);

/// Saves a machine, changes its state, and gives the error of restoring it.
fn refused(change: Change) -> Error {
    let folder = Folder::new();
    let running = marked(&folder.config());
    folder.save(&running).unwrap();
    running.handle().stop();
    running.wait(None).unwrap();
    let snapshot = nerite_snapshot::Snapshot::open(&folder.path("saved")).unwrap();
    let mut manifest = snapshot.read::<MachineState>().unwrap();
    change(&mut manifest.state);
    let state = File::options()
        .write(true)
        .truncate(true)
        .open(folder.path("saved/snapshot.json"))
        .unwrap();
    let (memory, image) = snapshot.into_files();
    Files { state, memory, image }.describe(|_, _| manifest).unwrap();
    build(&folder.restored(), finds).unwrap_err()
}

#[test]
fn states_that_no_machine_has_are_refused() {
    let cases: [(Change, &str); 6] = [
        (|state| drop(state.vcpus.pop()), "number of vCPUs"),
        (|state| state.setup.vcpus = Some(3), "number of vCPUs"),
        (|state| state.vcpus[1].version = 9, "version 9"),
        (|state| state.vcpus[0].special.cr4 = 1 << 15, "cr4"),
        (|state| state.vm.version = 9, "version 9"),
        (|state| state.platform = PlatformState::new(&7).unwrap(), "platform"),
    ];
    for (change, part) in cases {
        let error = refused(change);
        let text = nerite_log_budget::Causes(&error).to_string();
        assert!(text.contains(part), "{part}: {text}");
        assert_eq!(error.kind(), ErrorKind::Image, "{text}");
    }
    let error = refused(|state| {
        let leaf = nerite_arch::CpuidEntry { function: 1, ecx: u32::MAX, ..Default::default() };
        state.vcpus[0].cpuid = vec![leaf];
    });
    assert!(matches!(error, Error::MissingFeature { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Host);
}

#[test]
fn a_snapshot_needs_the_features_of_its_model_alone() {
    use nerite_arch::CpuidEntry;
    let on = |ecx, config: &Config, programs: fn(u32) -> Program| {
        let leaf = CpuidEntry { function: 1, ecx, edx: 1 << 5, ..Default::default() };
        let hypervisor = ScriptedHypervisor::new(programs).with_cpuid(vec![leaf]);
        Opened::open_on(config, Arc::new(hypervisor))?.build()
    };
    const RDRAND: u32 = 1 << 30;
    const MOVBE: u32 = 1 << 22;
    for (model, is_restored) in [("host", false), ("-rdrand", true), ("x86-64,+movbe", true)] {
        let folder = Folder::new();
        let mut config = folder.config();
        config.cpus.model = model.parse().unwrap();
        let running = on(RDRAND | MOVBE, &config, marks).unwrap().start().unwrap();
        for index in 0..2 {
            while running.handle().registers(index).unwrap().0.rax != 7 + index as u64 {
                std::thread::yield_now();
            }
        }
        folder.save(&running).unwrap();
        running.handle().stop();
        running.wait(None).unwrap();
        match on(MOVBE, &folder.restored(), finds) {
            Ok(machine) => {
                assert!(is_restored, "{model}");
                let restored = machine.start().unwrap();
                assert!(matches!(restored.wait(None).unwrap(), Outcome::PoweredOff));
            }
            Err(Error::MissingFeature { feature }) => {
                assert_eq!((is_restored, &*feature), (false, "rdrand"), "{model}");
            }
            Err(error) => panic!("{model}: {error}"),
        }
    }
}
