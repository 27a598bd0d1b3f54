//! Answers to requests.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nerite_service::{BalloonReport, ControlTarget, Refusal, inject_nmi, port_counts};
use nerite_snapshot::Files;
use nerite_vcpu::{Held, RunState, Statistics};
use serde_json::{Value, json};

use crate::protocol::{Code, Command, Failure, MAX_READ, Request, to_hex};
use crate::{registers, statistics};

/// Answers requests about one machine, and keeps its pauses. Dropping it resumes all vCPUs.
#[derive(Debug)]
pub struct RequestHandler {
    machine: Box<dyn ControlTarget>,
    /// State of each vCPU that has a hold from here.
    paused: BTreeMap<usize, Held>,
}

impl Drop for RequestHandler {
    fn drop(&mut self) {
        for vcpu in self.paused.keys() {
            self.machine.release(*vcpu);
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotThere(_) => Code::NotThere,
            Refusal::Invalid(_) => Code::BadRequest,
            _ => Code::Failed,
        };
        Self::new(code, refusal)
    }
}

/// State of a balloon.
fn balloon(report: &BalloonReport) -> Value {
    let statistics: BTreeMap<_, _> = report.statistics.iter().copied().collect();
    json!({
        "target": report.target,
        "actual": report.actual,
        "given": report.given,
        "refused": report.refused,
        "taken_back": report.taken_back,
        "statistics": statistics,
    })
}

/// Word for the state in which a vCPU is held.
const fn held_name(held: Held) -> &'static str {
    match held {
        Held::Paused => "paused",
        Held::InService => "in service",
        Held::Busy => "busy",
        Held::Stopped => "stopped",
    }
}

impl RequestHandler {
    /// Handler for a machine of which nothing is paused.
    #[must_use]
    pub fn new(machine: Box<dyn ControlTarget>) -> Self {
        Self { machine, paused: BTreeMap::new() }
    }

    /// Answers a request, which came with these descriptors.
    ///
    /// # Errors
    /// If it cannot be met; the machine is as it was.
    pub fn answer(
        &mut self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Value, Failure> {
        match request.command {
            Command::Status => Ok(self.status()),
            Command::Pause => self.pause(request.vcpu),
            Command::Resume => self.resume(request.vcpu),
            Command::Stop => {
                self.machine.stop();
                Ok(json!({}))
            }
            Command::Kill => rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            )
            .map(|()| json!({}))
            .map_err(|error| Failure::new(Code::Failed, error)),
            Command::Stats => Ok(self.stats()),
            Command::Regs => self.registers(request.vcpu),
            Command::Nmi => {
                let vcpu = request.vcpu.unwrap_or(0);
                inject_nmi(&*self.machine, vcpu)?;
                Ok(json!({ "vcpu": vcpu }))
            }
            Command::Irq => self.interrupt_line(request),
            Command::Msi => self.interrupt_message(request),
            Command::Link => self.link(request),
            Command::ReadMemory => self.read_memory(request),
            Command::Snapshot => self.snapshot(descriptors),
            Command::Accel => self.switch_accelerator(request),
            Command::Balloon => Ok(balloon(&self.machine.balloon(request.size)?)),
            Command::PowerButton => Ok(self.machine.press_power_button().map(|()| json!({}))?),
        }
    }

    fn vcpus(&self, vcpu: Option<usize>) -> Result<std::ops::Range<usize>, Failure> {
        let count = self.machine.vcpu_count();
        match vcpu {
            Some(vcpu) if vcpu < count => Ok(vcpu..vcpu.saturating_add(1)),
            Some(vcpu) => {
                let message = format!(
                    "vCPU {vcpu} does not exist (vCPUs are 0..={})",
                    count.saturating_sub(1)
                );
                Err(Failure::new(Code::NotThere, message))
            }
            None => Ok(0..count),
        }
    }

    fn status(&self) -> Value {
        let vcpus: Vec<_> = self.machine.states().into_iter().map(RunState::name).collect();
        let ram = self.machine.ram();
        let regions = ram
            .regions()
            .iter()
            .map(|region| json!({ "start": region.start, "size": region.size }));
        json!({
            "pid": std::process::id(),
            "uptime_ns": u64::try_from(self.machine.uptime().as_nanos()).unwrap_or(u64::MAX),
            "paused": self.paused.keys().collect::<Vec<_>>(),
            "vcpus": vcpus,
            "memory": regions.collect::<Vec<_>>(),
            "accelerator": self.machine.accelerator(),
        })
    }

    fn pause(&mut self, vcpu: Option<usize>) -> Result<Value, Failure> {
        let vcpus = self.vcpus(vcpu)?;
        let new: Vec<_> = vcpus.clone().filter(|vcpu| !self.paused.contains_key(vcpu)).collect();
        // All are held before any is waited for: they stop at the same time.
        new.iter().for_each(|vcpu| self.machine.hold(*vcpu));
        for vcpu in new {
            self.paused.insert(vcpu, self.machine.wait_held(vcpu));
        }
        let held = vcpus.filter_map(|vcpu| self.paused.get(&vcpu));
        Ok(json!({ "vcpus": held.copied().map(held_name).collect::<Vec<_>>() }))
    }

    fn resume(&mut self, vcpu: Option<usize>) -> Result<Value, Failure> {
        let released: Vec<_> =
            self.vcpus(vcpu)?.filter(|vcpu| self.paused.remove(vcpu).is_some()).collect();
        released.iter().for_each(|vcpu| self.machine.release(*vcpu));
        Ok(json!({ "resumed": released.len() }))
    }

    fn stats(&self) -> Value {
        let measured = nerite_service::statistics(&*self.machine);
        let mut total = Statistics::default();
        measured.iter().flatten().for_each(|vcpu| total.merge(vcpu));
        let of_vcpus = |vcpu: &Statistics| {
            statistics::of_vcpus(vcpu, &port_counts(vcpu, |port| self.machine.port_name(port)))
        };
        let vcpus = measured.iter().map(|vcpu| vcpu.as_ref().map(of_vcpus));
        let mut answer = json!({
            "wall_ns": u64::try_from(self.machine.uptime().as_nanos()).unwrap_or(u64::MAX),
            "memory_touched": self.machine.ram().resident_bytes(),
            "memory_size": self.machine.ram().size(),
            "posted_writes": self.machine.coalesced_writes(),
            "vcpus": vcpus.collect::<Vec<_>>(),
            "total": of_vcpus(&total),
            "devices": statistics::of_devices(&self.machine.device_counters()),
        });
        if let (Some(counts), Value::Object(fields)) =
            (self.machine.processor_counts(), &mut answer)
        {
            fields.insert("processor".to_owned(), statistics::of_processor(counts));
        }
        answer
    }

    fn registers(&self, vcpu: Option<usize>) -> Result<Value, Failure> {
        let read = |index| {
            let (regs, special) = nerite_service::registers(&*self.machine, index)?;
            Ok(registers::to_json(index, &regs, &special))
        };
        let vcpus = self.vcpus(vcpu)?.map(read).collect::<Result<Vec<_>, Failure>>()?;
        Ok(json!({ "vcpus": vcpus }))
    }

    fn interrupt_line(&self, request: &Request) -> Result<Value, Failure> {
        let Some(line) = request.line else {
            return Err(Failure::new(Code::BadRequest, "`line` is needed"));
        };
        // An edge, if nothing else is said.
        let levels = request.level.map_or(vec![true, false], |level| vec![level]);
        for level in levels {
            self.machine.set_line(line, level)?;
        }
        Ok(json!({ "line": line }))
    }

    fn interrupt_message(&self, request: &Request) -> Result<Value, Failure> {
        let (Some(address), Some(data)) = (request.address, request.data) else {
            return Err(Failure::new(Code::BadRequest, "`address` and `data` are needed"));
        };
        self.machine.send_message(address, data)?;
        Ok(json!({ "address": address, "data": data }))
    }

    fn link(&self, request: &Request) -> Result<Value, Failure> {
        let (Some(card), Some(up)) = (&request.card, request.up) else {
            return Err(Failure::new(Code::BadRequest, "`card` and `up` are needed"));
        };
        let number = self.machine.set_link(card, up)?;
        Ok(json!({ "card": number, "up": up }))
    }

    fn snapshot(&self, descriptors: Vec<OwnedFd>) -> Result<Value, Failure> {
        let Ok([state, memory, image]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            let message =
                "the descriptors of three files are needed: description, memory and image";
            return Err(Failure::new(Code::BadRequest, message));
        };
        let files = Files { state: state.into(), memory: memory.into(), image: image.into() };
        let report = self.machine.snapshot(&files)?;
        Ok(json!({
            "memory": report.memory,
            "data": report.data,
            "paused_ns": u64::try_from(report.paused.as_nanos()).unwrap_or(u64::MAX),
        }))
    }

    fn switch_accelerator(&self, request: &Request) -> Result<Value, Failure> {
        let Some(name) = &request.accelerator else {
            return Err(Failure::new(Code::BadRequest, "`accelerator` is needed"));
        };
        let report = self.machine.switch_accelerator(name)?;
        Ok(json!({
            "accelerator": self.machine.accelerator(),
            "paused_ns": u64::try_from(report.paused.as_nanos()).unwrap_or(u64::MAX),
        }))
    }

    fn read_memory(&self, request: &Request) -> Result<Value, Failure> {
        let (Some(address), Some(length)) = (request.address, request.length) else {
            return Err(Failure::new(Code::BadRequest, "`address` and `length` are needed"));
        };
        if length > MAX_READ {
            let message = format!("at most {MAX_READ} bytes can be read at a time");
            return Err(Failure::new(Code::BadRequest, message));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.machine
            .ram()
            .read(address, &mut bytes)
            .map_err(|error| Failure::new(Code::NotThere, error))?;
        Ok(json!({ "address": address, "data": to_hex(&bytes) }))
    }
}

#[cfg(test)]
#[path = "request_handler_test.rs"]
mod tests;
