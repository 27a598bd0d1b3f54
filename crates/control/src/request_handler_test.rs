use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nerite_memory::{Backing, GuestRam, Region};
use nerite_service::{DeviceCounters, Machine, ProcessorCounts, SnapshotReport, SwitchReport};
use nerite_vcpu::Job;

use super::*;

/// A machine of two vCPUs and one network card, without threads.
#[derive(Debug, Clone)]
struct Still {
    ram: GuestRam,
    holds: Arc<Mutex<BTreeMap<usize, i32>>>,
}

impl Still {
    fn new() -> Self {
        let ram = GuestRam::new(&[Region { start: 0, size: 0x1000 }], &Backing::default()).unwrap();
        Self { ram, holds: Arc::default() }
    }

    fn add(&self, vcpu: usize, number: i32) {
        *self.holds.lock().unwrap().entry(vcpu).or_default() += number;
    }

    fn holds(&self) -> Vec<i32> {
        let holds = self.holds.lock().unwrap();
        (0..2).map(|vcpu| holds.get(&vcpu).copied().unwrap_or(0)).collect()
    }
}

impl Machine for Still {
    fn vcpu_count(&self) -> usize {
        2
    }

    fn states(&self) -> Vec<RunState> {
        vec![RunState::Running; 2]
    }

    fn hold(&self, vcpu: usize) {
        self.add(vcpu, 1);
    }

    fn wait_held(&self, vcpu: usize) -> Held {
        if vcpu == 0 { Held::Paused } else { Held::Busy }
    }

    fn release(&self, vcpu: usize) {
        self.add(vcpu, -1);
    }

    fn post(&self, _: usize, _: Job) {}

    fn ask(&self, _: usize, _: Job) -> Result<(), Refusal> {
        Err(Refusal::Failed("no thread".to_owned()))
    }

    fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn port_name(&self, _: u16) -> Option<&'static str> {
        None
    }

    fn stop(&self) {}

    fn is_ending(&self) -> bool {
        false
    }

    fn confine_thread(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl ControlTarget for Still {
    fn balloon(&self, size: Option<u64>) -> Result<BalloonReport, Refusal> {
        let target = size.unwrap_or(1 << 20);
        Ok(BalloonReport { target, statistics: vec![("free", 5)], ..BalloonReport::default() })
    }

    fn press_power_button(&self) -> Result<(), Refusal> {
        Err(Refusal::NotThere("no power button".to_owned()))
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn coalesced_writes(&self) -> u64 {
        0
    }

    fn processor_counts(&self) -> Option<ProcessorCounts> {
        None
    }

    fn device_counters(&self) -> Vec<DeviceCounters> {
        let counters = vec![("reads", 7)];
        vec![DeviceCounters { device: "disk", counters, ..DeviceCounters::default() }]
    }

    fn set_line(&self, line: u32, _: bool) -> Result<(), Refusal> {
        Err(Refusal::NotThere(format!("no line {line}")))
    }

    fn send_message(&self, address: u64, _: u32) -> Result<(), Refusal> {
        Err(Refusal::Invalid(format!("{address:#x}")))
    }

    fn set_link(&self, card: &str, _: bool) -> Result<usize, Refusal> {
        card.parse().map_err(|_| Refusal::NotThere(card.to_owned()))
    }

    fn snapshot(&self, files: &Files) -> Result<SnapshotReport, Refusal> {
        self.ram
            .write_sparse(&files.memory, None)
            .map_err(|error| Refusal::Failed(error.to_string()))?;
        Ok(SnapshotReport { memory: self.ram.size(), data: 0, paused: Duration::from_nanos(7) })
    }

    fn accelerator(&self) -> String {
        "software".to_owned()
    }

    fn switch_accelerator(&self, name: &str) -> Result<SwitchReport, Refusal> {
        match name {
            "software" => Ok(SwitchReport { paused: Duration::from_nanos(9) }),
            _ => Err(Refusal::NotThere(name.to_owned())),
        }
    }
}

fn request(command: Command, vcpu: Option<usize>) -> Request {
    Request { command, vcpu, ..Request::default() }
}

#[test]
fn pauses_hold_each_vcpu_once_until_they_end() {
    let machine = Still::new();
    let mut handler = RequestHandler::new(Box::new(machine.clone()));
    let paused = handler.answer(&request(Command::Pause, None), Vec::new()).unwrap();
    assert_eq!(paused, json!({ "vcpus": ["paused", "busy"] }));
    handler.answer(&request(Command::Pause, Some(1)), Vec::new()).unwrap();
    assert_eq!(machine.holds(), [1, 1]);
    let resumed = handler.answer(&request(Command::Resume, Some(0)), Vec::new()).unwrap();
    assert_eq!((resumed, machine.holds()), (json!({ "resumed": 1 }), vec![0, 1]));
    drop(handler);
    assert_eq!(machine.holds(), [0, 0]);
}

#[test]
fn refusals_have_the_code_of_their_kind() {
    let mut handler = RequestHandler::new(Box::new(Still::new()));
    let mut refused = |request: Request| handler.answer(&request, Vec::new()).unwrap_err();
    let failure = refused(request(Command::Pause, Some(2)));
    assert_eq!(failure, Failure::new(Code::NotThere, "vCPU 2 does not exist (vCPUs are 0..=1)"));
    assert_eq!(
        refused(Request { line: Some(9), ..request(Command::Irq, None) }).code,
        Code::NotThere
    );
    let message = Request { address: Some(1), data: Some(1), ..request(Command::Msi, None) };
    assert_eq!(refused(message).code, Code::BadRequest);
    assert_eq!(refused(request(Command::Regs, None)).code, Code::Failed);
    let memory =
        Request { address: Some(0xfff), length: Some(2), ..request(Command::ReadMemory, None) };
    assert_eq!(refused(memory).code, Code::NotThere);
}

#[test]
fn statistics_have_the_counters_of_devices() {
    let mut handler = RequestHandler::new(Box::new(Still::new()));
    let answer = handler.answer(&request(Command::Stats, None), Vec::new()).unwrap();
    let disk = json!({ "device": "disk", "name": "", "queue": null, "counters": { "reads": 7 } });
    assert_eq!((&answer["devices"], &answer["wall_ns"]), (&json!([disk]), &json!(1_000_000_000)));
}

#[test]
fn a_hand_over_names_the_hypervisor() {
    let mut handler = RequestHandler::new(Box::new(Still::new()));
    let mut ask = |name: Option<&str>| {
        let accelerator = name.map(str::to_owned);
        handler.answer(&Request { accelerator, ..request(Command::Accel, None) }, Vec::new())
    };
    let done = json!({ "accelerator": "software", "paused_ns": 9 });
    assert_eq!(ask(Some("software")), Ok(done));
    assert_eq!(ask(Some("kvm")).unwrap_err().code, Code::NotThere);
    assert_eq!(ask(None).unwrap_err().code, Code::BadRequest);
}

#[test]
fn a_snapshot_is_written_to_the_files_of_its_request() {
    let machine = Still::new();
    let size = machine.ram.size();
    let mut handler = RequestHandler::new(Box::new(machine));
    let snapshot = request(Command::Snapshot, None);
    let file = || tempfile::tempfile().unwrap();
    let memory = file();
    let descriptors = vec![file().into(), memory.try_clone().unwrap().into(), file().into()];
    let answer = handler.answer(&snapshot, descriptors).unwrap();
    assert_eq!(answer, json!({ "memory": size, "data": 0, "paused_ns": 7 }));
    assert_eq!(memory.metadata().unwrap().len(), size);
    for count in [0, 1, 2, 4] {
        let descriptors = (0..count).map(|_| file().into()).collect();
        assert_eq!(
            handler.answer(&snapshot, descriptors).unwrap_err().code,
            Code::BadRequest,
            "{count}"
        );
    }
}

#[test]
fn memory_is_read_as_hexadecimal_digits() {
    let machine = Still::new();
    machine.ram.write(0x10, &[1, 0xab]).unwrap();
    let mut handler = RequestHandler::new(Box::new(machine));
    let read =
        Request { address: Some(0x10), length: Some(2), ..request(Command::ReadMemory, None) };
    assert_eq!(
        handler.answer(&read, Vec::new()).unwrap(),
        json!({ "address": 0x10, "data": "01ab" })
    );
}
