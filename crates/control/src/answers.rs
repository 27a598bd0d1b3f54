//! Answers requests.

use std::collections::BTreeMap;

use nerite_machine::{Handle, HandleError, Held, Pause, RunState};
use serde_json::{Value, json};

use crate::protocol::{Code, Command, Failure, MAX_READ, Request, to_hex};
use crate::{registers, statistics};

/// Answers requests about one machine, and keeps what is paused.
#[derive(Debug)]
pub struct Desk {
    handle: Handle,
    /// What is held, by vCPU.
    paused: BTreeMap<usize, Pause>,
}

fn of_handle(error: &HandleError) -> Failure {
    let code = match error {
        HandleError::NoSuchVcpu { .. } | HandleError::NoSuchLine { .. } => Code::NotThere,
        HandleError::NoMessage { .. } => Code::BadRequest,
        _ => Code::Failed,
    };
    Failure::new(code, error)
}

const fn how(held: Held) -> &'static str {
    match held {
        Held::Paused => "paused",
        Held::InService => "in service",
        Held::Busy => "busy",
        Held::Stopped => "stopped",
    }
}

impl Desk {
    /// A desk for this machine, with nothing paused.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self { handle, paused: BTreeMap::new() }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// If it cannot be met; the machine is as it was.
    pub fn answer(&mut self, request: &Request) -> Result<Value, Failure> {
        match request.command {
            Command::Status => Ok(self.status()),
            Command::Pause => self.pause(request.vcpu),
            Command::Resume => self.resume(request.vcpu),
            Command::Stop => {
                self.handle.stop();
                Ok(json!({}))
            }
            Command::Kill => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                    .map(|()| json!({}))
                    .map_err(|error| Failure::new(Code::Failed, error))
            }
            Command::Stats => Ok(self.stats()),
            Command::Regs => self.registers(request.vcpu),
            Command::Nmi => {
                let vcpu = request.vcpu.unwrap_or(0);
                self.handle.inject_nmi(vcpu).map_err(|error| of_handle(&error))?;
                Ok(json!({ "vcpu": vcpu }))
            }
            Command::Irq => self.interrupt_line(request),
            Command::Msi => self.interrupt_message(request),
            Command::Link => self.link(request),
            Command::ReadMemory => self.read_memory(request),
        }
    }

    fn vcpus(&self, vcpu: Option<usize>) -> Result<std::ops::Range<usize>, Failure> {
        match vcpu {
            Some(vcpu) => {
                self.handle.control(vcpu).map_err(|error| of_handle(&error))?;
                Ok(vcpu..vcpu.saturating_add(1))
            }
            None => Ok(0..self.handle.vcpu_count()),
        }
    }

    fn status(&self) -> Value {
        let vcpus: Vec<_> = self.handle.states().into_iter().map(RunState::name).collect();
        let ram = self.handle.ram();
        let regions =
            ram.regions().iter().map(|region| json!({ "start": region.start, "size": region.size }));
        json!({
            "pid": std::process::id(),
            "uptime_ns": u64::try_from(self.handle.uptime().as_nanos()).unwrap_or(u64::MAX),
            "paused": self.paused.keys().collect::<Vec<_>>(),
            "vcpus": vcpus,
            "memory": regions.collect::<Vec<_>>(),
        })
    }

    fn pause(&mut self, vcpu: Option<usize>) -> Result<Value, Failure> {
        let vcpus = self.vcpus(vcpu)?;
        if vcpu.is_none() {
            // All are told to stop before any is waited for.
            let all = self.handle.pause();
            for index in vcpus.clone() {
                self.pause_one(index)?;
            }
            drop(all);
        } else {
            self.pause_one(vcpus.start)?;
        }
        let held = vcpus.filter_map(|index| self.paused.get(&index));
        Ok(json!({ "vcpus": held.flat_map(Pause::held).map(how).collect::<Vec<_>>() }))
    }

    fn pause_one(&mut self, index: usize) -> Result<(), Failure> {
        if !self.paused.contains_key(&index) {
            let pause = self.handle.pause_one(index).map_err(|error| of_handle(&error))?;
            self.paused.insert(index, pause);
        }
        Ok(())
    }

    fn resume(&mut self, vcpu: Option<usize>) -> Result<Value, Failure> {
        let vcpus = self.vcpus(vcpu)?;
        let released = vcpus.filter(|index| self.paused.remove(index).is_some()).count();
        Ok(json!({ "resumed": released }))
    }

    fn stats(&self) -> Value {
        let measured: Vec<_> = self.handle.statistics();
        let mut total = nerite_vcpu::Statistics::default();
        measured.iter().flatten().for_each(|vcpu| total.merge(vcpu));
        let vcpus = measured.iter().map(|vcpu| vcpu.as_ref().map(statistics::of_vcpus));
        let mut answer = json!({
            "wall_ns": u64::try_from(self.handle.uptime().as_nanos()).unwrap_or(u64::MAX),
            "memory_touched": self.handle.ram().resident_bytes(),
            "memory_size": self.handle.ram().size(),
            "posted_writes": self.handle.coalesced_writes(),
            "vcpus": vcpus.collect::<Vec<_>>(),
            "total": statistics::of_vcpus(&total),
        });
        if let (Some(counts), Value::Object(fields)) = (self.handle.processor_counts(), &mut answer) {
            fields.insert("processor".to_owned(), statistics::of_processor(counts));
        }
        answer
    }

    fn registers(&self, vcpu: Option<usize>) -> Result<Value, Failure> {
        let read = |index| {
            let (regs, special) = self.handle.registers(index).map_err(|error| of_handle(&error))?;
            Ok(registers::to_json(index, &regs, &special))
        };
        let vcpus = self.vcpus(vcpu)?.map(read).collect::<Result<Vec<_>, Failure>>()?;
        Ok(json!({ "vcpus": vcpus }))
    }

    fn interrupt_line(&self, request: &Request) -> Result<Value, Failure> {
        let Some(line) = request.line else { return Err(Failure::new(Code::BadRequest, "`line` is needed")) };
        // An edge, if nothing else is said.
        let levels = request.level.map_or(vec![true, false], |level| vec![level]);
        for level in levels {
            self.handle.set_line(line, level).map_err(|error| of_handle(&error))?;
        }
        Ok(json!({ "line": line }))
    }

    fn interrupt_message(&self, request: &Request) -> Result<Value, Failure> {
        let (Some(address), Some(data)) = (request.address, request.data) else {
            return Err(Failure::new(Code::BadRequest, "`address` and `data` are needed"));
        };
        self.handle.send_message(address, data).map_err(|error| of_handle(&error))?;
        Ok(json!({ "address": address, "data": data }))
    }

    fn link(&self, request: &Request) -> Result<Value, Failure> {
        let (Some(card), Some(up)) = (&request.card, request.up) else {
            return Err(Failure::new(Code::BadRequest, "`card` and `up` are needed"));
        };
        let network = self.handle.network();
        let Some(number) = network.find(card) else {
            let message = format!("{card:?} is none of the {} network cards", network.len());
            return Err(Failure::new(Code::NotThere, message));
        };
        network.set_link(number, up);
        Ok(json!({ "card": number, "up": up }))
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
        self.handle.ram().read(address, &mut bytes).map_err(|error| Failure::new(Code::NotThere, error))?;
        Ok(json!({ "address": address, "data": to_hex(&bytes) }))
    }
}
