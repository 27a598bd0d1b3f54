//! Machines with parts of the embedding program, on the processor in software.

use std::sync::Mutex;

use nerite_hypervisor::scripted::{Interrupt, Program, ScriptedHypervisor};
use nerite_log_budget::Causes;
use nerite_snapshot::Staging;
use nerite_testkit::guest::Guest;
use nerite_testkit::image;

use super::*;
use crate::config::{Accelerator, Output};
use crate::{ErrorKind, Machine, Opened, Outcome};

fn config() -> Config {
    let (accelerator, output) = (Accelerator::Software, Output::None);
    Config { accelerator, output, ..Config::default() }
}

/// Runs a guest to its end.
fn run(embedding: Embedding) -> Result<Outcome, Error> {
    Machine::embed(&config(), embedding)?.start()?.wait(None)
}

fn hermit() -> Embedding {
    Embedding::new().image(image::elf(3, None).build())
}

#[test]
fn a_port_that_the_platform_has_is_refused() {
    let pc = || Embedding::new().image(Guest::new().image());
    let call = |_: &mut Hypercall<'_>| ControlFlow::Continue(());
    for (embedding, expected) in [
        (pc().hypercall(0x3f8, call), "serial port"),
        (pc().hypercall(0x20, call), "interrupt controllers"),
        (pc().hypercall(0x900, call).hypercall(0x900, call), "hypercall"),
        (hermit().hypercall(0x1010, call), "hypercalls"),
        (hermit().mmio("low", 0xc000_0000..=0xffff_ffff, Arc::new(HypercallPort)), "interrupt"),
    ] {
        let error = Machine::embed(&config(), embedding).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_hypercall_sees_registers_and_memory_and_ends_the_machine() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = seen.clone();
    let guest = Guest::new().store_text(0x20_0000, "hi").out32(0x900, 0x20_0000).out8(0x904, 7);
    let embedding = Embedding::new()
        .image(guest.spin().image())
        .hypercall(0x900, move |call| {
            let mut text = [0; 2];
            call.ram().read(call.value.into(), &mut text).unwrap();
            let rdx = call.regs().unwrap().rdx;
            calls.lock().unwrap().push((call.vcpu(), call.width, rdx, text));
            ControlFlow::Continue(())
        })
        .hypercall(0x904, |call| ControlFlow::Break(call.value.cast_signed()));
    assert!(matches!(run(embedding).unwrap(), Outcome::Exited(7)));
    assert_eq!(*seen.lock().unwrap(), [(0, 4, 0x900, *b"hi")]);
}

/// An image that is made when it is asked for, or is not there.
#[derive(Debug)]
struct Made(Option<Vec<u8>>);

impl LateImage for Made {
    fn directory(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    fn read(
        self: Box<Self>,
        to: &mut std::fs::File,
    ) -> Result<std::path::PathBuf, Box<dyn std::error::Error + Send + Sync>> {
        io::Write::write_all(to, &self.0.ok_or("nothing to be had")?)?;
        Ok("/made".into())
    }
}

#[test]
fn an_image_may_be_made_after_the_process_is_confined() {
    let late = |image| Embedding::new().late_image(Box::new(Made(image)));
    let image = Guest::new().out8(0x904, 7).spin().image();
    let ends =
        |it: Embedding| it.hypercall(0x904, |call| ControlFlow::Break(call.value.cast_signed()));
    assert!(matches!(run(ends(late(Some(image)))).unwrap(), Outcome::Exited(7)));
    for (embedding, expected) in
        [(late(None), "nothing to be had"), (late(Some(b"x".to_vec())), "hello: ")]
    {
        let config = Config { image: "hello".into(), ..config() };
        let error = Machine::embed(&config, embedding).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Image, "{error}");
        assert!(Causes(&error).to_string().starts_with(expected), "{}", Causes(&error));
    }
}

#[test]
fn an_error_of_the_output_function_ends_the_machine() {
    let embedding = Embedding::new()
        .image(Guest::new().print("one\n").spin().image())
        .output_with(|_| Err(io::ErrorKind::StorageFull.into()));
    let error = run(embedding).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host, "{error}");
}

#[test]
fn a_machine_with_own_devices_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let embedding = Embedding::new()
        .image(Guest::new().spin().image())
        .hypercall(0x900, |_| ControlFlow::Continue(()));
    let mut config = config();
    config.observe.snapshots = true;
    let running = Machine::embed(&config, embedding).unwrap().start().unwrap();
    let staging = Staging::create(&folder.path().join("saved")).unwrap();
    let error = running.handle().snapshot(staging.files()).unwrap_err();
    let error = Causes(&error).to_string();
    assert!(error.contains("embedding program"), "{error}");
    running.handle().stop();
    assert!(matches!(running.wait(None).unwrap(), Outcome::Stopped));
}

#[test]
fn a_malformed_image_in_memory_is_the_images_fault() {
    let error = Machine::embed(&config(), Embedding::new().image(*b"no image")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Image, "{error}");
}

/// A device that raises its interrupt at each write.
struct Bell(Event);

impl Device for Bell {
    fn read(&self, _: u64, width: Width) -> u64 {
        width.all_ones()
    }

    fn write(&self, _: u64, _: Width, _: u64) {
        self.0.signal();
    }
}

#[test]
fn a_device_raises_the_line_that_its_event_is_connected_to() {
    let ring_and_exit = |_| -> Program {
        let mut ports = [0x900, 0xf4].into_iter();
        Box::new(move |_, _| ports.next().map(|port| Exit::PortOut { port, width: 1, value: 0 }))
    };
    let hypervisor = Arc::new(ScriptedHypervisor::new(ring_and_exit));
    let interrupts = hypervisor.interrupts().clone();
    let event = Event::new().unwrap();
    let mut embedding = Embedding::new()
        .image(Guest::new().image())
        .ports("bell", 0x900..=0x900, Arc::new(Bell(event.clone())))
        .interrupt(7, event);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), embedding.image.take().unwrap()).unwrap();
    let config = Config { image: file.path().to_owned(), ..config() };
    let mut opened = Opened::open_on(&config, hypervisor).unwrap();
    opened.resources.embedding = embedding;
    let outcome = opened.build().unwrap().start().unwrap().wait(None).unwrap();
    assert!(matches!(outcome, Outcome::Exited(1)), "{outcome}");
    assert_eq!(interrupts.raised(), [Interrupt::Edge(7)]);
}
