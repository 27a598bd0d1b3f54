//! Machines of both platforms on a hypervisor whose guests are programs in Rust.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nerite_hypervisor::scripted::{Interrupt, Program, Scripted, ScriptedHypervisor};
use nerite_platform::MIN_MEMORY;
use nerite_saved::testing::through_json;
use nerite_testkit::image;
use nerite_vcpu::{Entry, Exit, RunState};
use nerite_virtio_vsock::Cid;
use tempfile::TempDir;

use super::*;
use crate::Running;
use crate::config::{Output, OutputLimits, VsockSpec};
use crate::{Held, Outcome};

/// Ports of hypercall interface v1.
const SERIAL: u16 = 0x800;
const EXIT: u16 = 0x540;

/// A file with an image, and where the output goes.
struct Folder(TempDir);

impl Folder {
    fn new(image: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("image"), image).unwrap();
        Self(folder)
    }

    fn hermit() -> Self {
        Self::new(&image::elf(1, None).build())
    }

    fn config(&self) -> Config {
        let path = |name: &str| self.0.path().join(name);
        Config { image: path("image"), output: Output::File(path("output")), ..Config::default() }
    }

    fn output(&self) -> String {
        let path: &Path = self.0.path();
        std::fs::read_to_string(path.join("output")).unwrap()
    }
}

fn out(port: u16, width: u8, value: u32) -> Option<Exit> {
    Some(Exit::PortOut { port, width, value })
}

/// Starts a machine whose vCPUs run what `programs` makes for their index.
fn start(config: &Config, programs: impl Fn(u32) -> Program + Send + Sync + 'static) -> Running {
    let hypervisor = Arc::new(ScriptedHypervisor::new(programs));
    Opened::open_on(config, hypervisor).unwrap().build().unwrap().start().unwrap()
}

/// A guest that writes a port without end, and counts how often.
fn busy(count: Arc<AtomicU64>) -> impl Fn(u32) -> Program + Send + Sync {
    move |_| {
        let count = count.clone();
        Box::new(move |_: &mut Scripted, _| {
            count.fetch_add(1, Ordering::SeqCst);
            out(0x1234, 1, 0)
        })
    }
}

#[test]
fn a_hermit_guest_boots_writes_and_exits() {
    let folder = Folder::hermit();
    let program = |_| -> Program {
        let mut text = b"hello\n".iter();
        Box::new(move |vcpu, _| {
            if let Some(byte) = text.next() {
                assert!(vcpu.special_regs.cr0 >> 31 == 1 && vcpu.special_regs.cs.l, "64-bit mode");
                return out(SERIAL, 1, u32::from(*byte));
            }
            let ram = vcpu.ram.clone().unwrap();
            let address = ram.mappings().map(|it| it.guest + it.size - 0x1000).max().unwrap();
            ram.write_obj(address, &(-5_i32)).unwrap();
            out(EXIT, 4, u32::try_from(address).unwrap())
        })
    };
    let (outcome, report) = start(&folder.config(), program).wait_and_report(None);
    assert!(matches!(outcome.unwrap(), Outcome::Exited(-5)));
    assert_eq!(folder.output(), "hello\n");
    assert_eq!(report.total().exits.total(), 7);
}

#[test]
fn a_crash_is_reported_with_all_vcpus() {
    let folder = Folder::hermit();
    let mut config = folder.config();
    config.cpus.count = Some(2);
    let running = start(&config, |index| {
        Box::new(move |vcpu, _| {
            vcpu.regs.rax = 7 + u64::from(index);
            (index == 1).then_some(Exit::Shutdown)
        })
    });
    let kernel = running.handle().kernel_offset();
    let Outcome::Crashed(report) = running.wait(None).unwrap() else { panic!("no crash") };
    assert_eq!((report.vcpu, report.exit), (1, Exit::Shutdown));
    assert_eq!(report.vcpus.len(), 2);
    assert_eq!(report.vcpus[1].regs.rax, 8);
    assert_eq!(report.vcpus[1].backtrace[0].address, report.vcpus[1].regs.rip);
    assert!(report.kernel.contains(&report.vcpus[1].regs.rip), "{kernel:x}");
}

#[test]
fn a_stop_ends_a_guest_that_never_exits() {
    let folder = Folder::hermit();
    let running = start(&folder.config(), |_| Box::new(|_, _| None));
    let handle = running.handle();
    let stopper = std::thread::spawn(move || handle.stop());
    assert!(matches!(running.wait(None).unwrap(), Outcome::Stopped));
    stopper.join().unwrap();
}

#[test]
fn a_paused_guest_executes_nothing_and_goes_on() {
    let folder = Folder::hermit();
    let count = Arc::new(AtomicU64::new(0));
    let running = start(&folder.config(), busy(count.clone()));
    let handle = running.handle();
    let wait_for = |more: u64| {
        let start = count.load(Ordering::SeqCst);
        let limit = Instant::now() + Duration::from_secs(60);
        while count.load(Ordering::SeqCst) < start + more {
            assert!(Instant::now() < limit, "the guest stands still");
            std::thread::yield_now();
        }
    };
    wait_for(10);
    let pause = handle.pause();
    assert_eq!(pause.held().collect::<Vec<_>>(), [Held::Paused]);
    assert_eq!(handle.states(), [RunState::Paused]);
    let before = count.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(count.load(Ordering::SeqCst), before);
    handle.inject_nmi(0).unwrap();
    drop(pause);
    wait_for(10);
    handle.stop();
    assert!(matches!(running.wait(None).unwrap(), Outcome::Stopped));
}

#[test]
fn a_time_limit_ends_a_guest() {
    let folder = Folder::hermit();
    let mut config = folder.config();
    config.observe.time_limit = Some(Duration::from_millis(20));
    let running = start(&config, busy(Arc::default()));
    assert!(matches!(running.wait(None).unwrap(), Outcome::TimeLimit));
}

#[test]
fn unknown_msrs_get_what_the_policy_says() {
    let folder = Folder::hermit();
    for (policy, answer) in [(MsrPolicy::Ignore, Entry::Data(0)), (MsrPolicy::Report, Entry::Fault)]
    {
        let mut config = folder.config();
        config.cpus.msr = policy;
        config.output_limits = OutputLimits { log_lines: 0, ..OutputLimits::default() };
        let running = start(&config, move |_| {
            let mut first = true;
            Box::new(move |_, entry| {
                if std::mem::take(&mut first) {
                    return Some(Exit::MsrRead { index: 0x1234 });
                }
                assert_eq!(entry, answer);
                Some(Exit::System(nerite_vcpu::SystemEvent::PowerOff))
            })
        });
        assert!(matches!(running.wait(None).unwrap(), Outcome::PoweredOff));
    }
}

/// A multiboot kernel of 32 bytes that names its addresses.
fn multiboot() -> Vec<u8> {
    let (magic, flags, load) = (0x1bad_b002_u32, 1_u32 << 16, 0x10_0000_u32);
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    let words = [magic, flags, checksum, load, load, 0, load + 64, load + 32];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.resize(64, 0xf4);
    file
}

#[test]
fn a_pc_boots_has_devices_and_exits() {
    let folder = Folder::new(&multiboot());
    let mut config = folder.config();
    config.cpus.count = Some(2);
    config.memory.size = Some(MIN_MEMORY);
    let hypervisor = Arc::new(ScriptedHypervisor::new(|index| {
        let mut step = 0;
        Box::new(move |vcpu: &mut Scripted, entry: Entry| {
            if index > 0 {
                assert_eq!(vcpu.regs.rip, 0, "it waits to be started");
                return None;
            }
            step += 1;
            match step {
                1 => {
                    assert_eq!((vcpu.regs.rip, vcpu.regs.rax), (0x10_0020, 0x2bad_b002));
                    // The serial port's interrupt for an empty transmitter.
                    out(0x3f9, 1, 2)
                }
                2 => out(0x3f8, 1, u32::from(b'x')),
                3 => out(0x3f8, 1, u32::from(b'\n')),
                4 => out(0xcf8, 4, 0x8000_0000),
                5 => Some(Exit::PortIn { port: 0xcfc, width: 4 }),
                _ => {
                    assert_ne!(entry.data() & 0xffff, 0xffff, "a host bridge");
                    out(0xf4, 4, 20)
                }
            }
        })
    }));
    let interrupts = hypervisor.interrupts().clone();
    let running = Opened::open_on(&config, hypervisor).unwrap().build().unwrap().start().unwrap();
    assert!(matches!(running.wait(None).unwrap(), Outcome::Exited(41)));
    assert_eq!(folder.output(), "x\n");
    assert!(interrupts.raised().contains(&Interrupt::Edge(4)), "{:?}", interrupts.raised());
}

#[test]
fn host_cpus_must_be_as_many_as_vcpus() {
    let folder = Folder::hermit();
    for affinity in [vec![0], vec![0, 1, 2]] {
        let mut config = folder.config();
        config.cpus = CpuConfig { count: Some(2), affinity, ..CpuConfig::default() };
        let hypervisor = Arc::new(ScriptedHypervisor::new(|_| Box::new(|_, _| None)));
        let error = Opened::open_on(&config, hypervisor).unwrap().build().unwrap_err();
        assert!(error.to_string().contains("for the affinity of 2 vCPUs"), "{error}");
    }
}

#[test]
fn devices_go_on_in_a_machine_with_the_same_ones() {
    let folder = Folder::new(&multiboot());
    let disk = folder.0.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let mut config = folder.config();
    config.devices.disks = vec![format!("{},ro", disk.display()).parse().unwrap()];
    config.devices.random = true;
    config.devices.console = ConsoleKind::Virtio;
    let vsock = |name: &str| {
        let socket = folder.0.path().join(name);
        Some(VsockSpec { cid: Cid::new(3).unwrap(), socket })
    };
    config.devices.vsock = vsock("first");
    let build = |config: &Config| {
        let hypervisor = Arc::new(ScriptedHypervisor::new(|_| Box::new(|_, _| None)));
        Opened::open_on(config, hypervisor).unwrap().build().unwrap()
    };
    let first = build(&config);
    assert!(first.devices.save().unwrap_err().to_string().contains("disk"), "it is not paused");
    first.devices.pause();
    let saved = through_json(&first.devices.save().unwrap());
    let error = Opened::open(&config).unwrap_err().to_string();
    assert!(error.contains("first: another process listens on this socket"), "{error}");
    config.devices.vsock = vsock("second");
    let second = build(&config);
    second.devices.restore(&saved).unwrap();
    assert_eq!(second.devices.save().unwrap(), saved);
    second.devices.resume();
    // It goes at the machine's end, or before.
    let path = folder.0.path().join("second");
    assert!(path.exists());
    second.devices.halt();
    assert!(!path.exists());
    std::fs::write(&disk, [7; 8192]).unwrap();
    let error = build(&config).devices.restore(&saved).unwrap_err();
    let error = nerite_log_budget::Causes(&error).to_string();
    assert!(
        error.starts_with("disk ") && error.ends_with("number of sectors is not this machine's"),
        "{error}"
    );
    std::fs::write(&disk, [7; 4096]).unwrap();
    config.devices.vsock = None;
    let error = build(&config).devices.restore(&saved).unwrap_err();
    let error = nerite_log_budget::Causes(&error).to_string();
    assert!(error.contains("vsock device"), "{error}");
    config.devices.random = false;
    let error = build(&config).devices.restore(&saved).unwrap_err();
    let error = nerite_log_budget::Causes(&error).to_string();
    assert!(error.contains("random-number device"), "{error}");
    config.devices.disks.clear();
    let error = build(&config).devices.restore(&saved).unwrap_err();
    let error = nerite_log_budget::Causes(&error).to_string();
    assert!(error.contains("number of disks"), "{error}");
    let network = build(&config).network;
    network.pause();
    let saved = through_json(&network.save().unwrap());
    network.restore(&saved).unwrap();
}

#[test]
fn a_hermit_guest_finds_virtio_devices_in_its_slots() {
    let folder = Folder::hermit();
    let mut config = folder.config();
    config.devices.random = true;
    config.devices.console = ConsoleKind::Virtio;
    let found = Arc::new(Mutex::new(Vec::new()));
    let read = found.clone();
    let running = start(&config, move |_| {
        let read = read.clone();
        // Identity and interrupt of two slots, and of one that is empty.
        let mut registers = [0_u32, 0x3c, 0x800, 0x83c, 0x1000].into_iter();
        let mut selected = false;
        Box::new(move |_, entry| {
            if std::mem::replace(&mut selected, false) {
                return Some(Exit::PortIn { port: 0xcfc, width: 4 });
            }
            if let Entry::Data(value) = entry {
                read.lock().unwrap().push(value);
            }
            let Some(register) = registers.next() else {
                return Some(Exit::System(nerite_vcpu::SystemEvent::PowerOff));
            };
            selected = true;
            out(0xcf8, 4, 0x8000_0000 | register)
        })
    });
    assert!(matches!(running.wait(None).unwrap(), Outcome::PoweredOff));
    assert_eq!(*found.lock().unwrap(), [0x1044_1af4, 0x0110, 0x1043_1af4, 0x0111, 0xffff_ffff]);
}

/// A CPUID leaf 1 with AVX and what it needs, MOVBE and RDRAND, and the features of SSE.
fn with_avx() -> Vec<nerite_arch::CpuidEntry> {
    let leaf = |function, eax| nerite_arch::CpuidEntry { function, eax, ..Default::default() };
    let basic = nerite_arch::CpuidEntry {
        ecx: 1 | 1 << 9 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 26 | 1 << 28 | 1 << 30,
        ..leaf(1, 0)
    };
    vec![leaf(0, 1), basic, leaf(0x8000_0000, 0x8000_0000)]
}

#[test]
fn each_vcpu_shows_the_features_of_the_model() {
    let folder = Folder::hermit();
    let mut config = folder.config();
    config.cpus.count = Some(2);
    config.cpus.model = "host,-xsave,+movbe".parse().unwrap();
    let (seen, shown) = std::sync::mpsc::channel();
    let hypervisor = ScriptedHypervisor::new(move |_| {
        let seen = seen.clone();
        Box::new(move |vcpu, _| {
            let basic = vcpu.state.cpuid.iter().find(|leaf| leaf.function == 1).unwrap();
            seen.send(basic.ecx).unwrap();
            None
        })
    });
    let hypervisor = Arc::new(hypervisor.with_cpuid(with_avx()));
    let running = Opened::open_on(&config, hypervisor).unwrap().build().unwrap().start().unwrap();
    for _ in 0..2 {
        let ecx = shown.recv().unwrap();
        assert_eq!(ecx & (1 << 26 | 1 << 28), 0, "XSAVE and AVX");
        assert_eq!(ecx & (1 << 22 | 1 << 30), 1 << 22 | 1 << 30, "MOVBE and RDRAND");
    }
    running.handle().stop();
    running.wait(None).unwrap();
}

#[test]
fn a_model_that_the_hypervisor_lacks_is_refused() {
    let folder = Folder::hermit();
    let mut config = folder.config();
    config.cpus.model = "x86-64-v2,-cx16,-popcnt,-lahf_lm,+f16c".parse().unwrap();
    let hypervisor = ScriptedHypervisor::new(|_| unreachable!("no vCPU is started"));
    let hypervisor = Arc::new(hypervisor.with_cpuid(with_avx()));
    let error = Opened::open_on(&config, hypervisor).unwrap().build().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Config);
    let message = "f16c needs CPU features that the hypervisor script lacks on this host: f16c";
    assert_eq!(error.to_string(), message);
}
