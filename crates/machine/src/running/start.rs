//! Starts a machine: a thread for each vCPU.

use std::io;

use nerite_event::Event;

use super::*;
use crate::config::OnReboot;
use crate::ends::Ends;
use crate::saver::Saver;

impl Machine {
    /// Starts a thread for each vCPU.
    ///
    /// # Errors
    /// If the host has no thread left, or a vCPU cannot be bound to its host CPU.
    pub fn start(self) -> Result<Running, Error> {
        start(self, false)
    }

    /// As [`Machine::start`], with all vCPUs paused before their first instruction until the
    /// [`Pause`](crate::Pause) is dropped. Everything is ready then: releasing it costs a few
    /// system calls.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub fn start_paused(self) -> Result<(Running, crate::Pause), Error> {
        let running = start(self, true)?;
        let handle = running.handle();
        let pause = handle.pause();
        handle.release_start();
        Ok((running, pause))
    }
}

/// Starts the vCPU threads, with vCPUs that are held once if `is_held`.
fn start(machine: Machine, is_held: bool) -> Result<Running, Error> {
    let Machine {
        hypervisor, platform, environment, mut vcpus, affinity, msrs, irqchip, core, ..
    } = machine;
    let Machine {
        functions,
        moment,
        counters,
        observe,
        tracer,
        network,
        devices,
        keyboard,
        confinement,
        vm,
        setup,
        image,
        switch,
        page_map,
        ..
    } = machine;
    let hypercalls = machine.hypercalls;
    let mut timeline = machine.timeline;
    let counts_exactly = vcpus.iter_mut().all(|vcpu| vcpu.instruction_counter().is_some());
    let counting = counters.begin(&*hypervisor, vcpus.len(), counts_exactly);
    let started = Instant::now();
    let resets = (observe.on_reboot == OnReboot::Restart).then(Event::new).transpose();
    let resets = resets.map_err(Error::host("creating an eventfd"))?;
    let ends = match &resets {
        Some(event) => {
            let by_triple_fault = observe.on_crash == OnCrash::Report;
            Some(Arc::new(Ends::of_resets(event.clone(), by_triple_fault)))
        }
        None => observe.hold_ends.then(Arc::default),
    };
    let shared = Arc::new(Shared {
        end: Mutex::new(None),
        stop: environment.stop.clone(),
        left: Mutex::new(vcpus.len()),
        one_left: Condvar::new(),
        exit_code: OnceLock::new(),
        confinement,
        ends,
        finished: Mutex::new(Vec::with_capacity(vcpus.len())),
    });
    let controls: Arc<[_]> = vcpus.iter().map(|_| Arc::new(Control::new())).collect();
    for (control, vcpu) in controls.iter().zip(&mut vcpus) {
        control.set_kicker(vcpu.kicker());
        if observe.statistics && !vcpu.count_in_kernel() {
            log::debug!("this host's KVM does not count interrupts");
        }
    }
    let debug = observe.debug.map(|_| DebugEvents::new().map(Arc::new)).transpose()?;
    let layers = Layers {
        statistics: observe.statistics,
        tracer: tracer.clone(),
        debug: (debug.is_some() || moment.as_ref().is_some_and(|it| it.address.is_some()))
            .then(|| hypervisor.debug_caps()),
        budget: observe
            .instruction_limit
            .map(InstructionBudget::new)
            .or_else(|| moment.as_ref()?.budget.clone()),
        plan: moment.as_ref().and_then(Moment::plan),
        counts_later: observe.count_from.is_some(),
        functions: functions.clone(),
        counter: counting.limit,
        core: core.is_some(),
    };
    let holds = [is_held, observe.debug == Some(Debug::Held), resets.is_some()];
    for _ in holds.into_iter().filter(|held| *held) {
        controls.iter().for_each(|control| control.hold());
    }
    let deadline = observe.time_limit.and_then(|limit| timeline.beginning().checked_add(limit));
    let handle = Handle {
        shared,
        chips: (irqchip == Irqchip::User).then(|| Arc::new(LocalApics::new(&controls))),
        controls,
        ram: environment.ram.clone(),
        started,
        network,
        debug,
        debug_caps: layers.debug.unwrap_or_default(),
        offset: platform.kernel().offset,
        coalesced: vm.coalesced_writes(),
        totals: counting.statistics,
        interrupts: vm.interrupt_controller(),
        saver: Arc::new(Saver {
            vm: vm.clone(),
            platform: platform.clone(),
            devices: devices.clone(),
            console: environment.console.clone(),
            hypervisor: hypervisor.clone(),
            switch,
            setup: Mutex::new(setup),
            image,
            page_map,
            before_steps: Mutex::default(),
            lock: Mutex::default(),
            resets: Mutex::default(),
        }),
    };
    let holds_crashes = observe.on_crash == OnCrash::Hold;
    let mut running = Running {
        handle,
        threads: Vec::new(),
        environment,
        hypervisor,
        platform,
        hypercalls,
        devices,
        keyboard: None,
        tracer,
        core,
        deadline,
        graceful_stop: observe.graceful_stop,
        stop_at: None,
        halts: (holds_crashes || !observe.keep_halted).then(HaltWatch::new),
        holds_crashes,
        msrs,
        timeline: Timeline::begin(),
        counts: counts_exactly || layers.counter.is_some(),
        statistics: observe.statistics,
        functions,
        restart: None,
        planned: machine.planned,
        due: moment.as_ref().and_then(Moment::due),
        moment,
        ended: Vec::new(),
        _vm: vm,
    };
    running.environment.console.watch().map_err(Error::host("creating an eventfd"))?;
    if let Err(error) = running.devices.run(&running.environment, &running.handle.shared) {
        running.abandon();
        return Err(error);
    }
    // Restored devices are paused; others do not mind.
    running.devices.resume();
    running.handle.network.resume();
    running.start_vcpus(vcpus, affinity, &layers)?;
    if let Err(source) = running.start_keyboard(keyboard) {
        running.abandon();
        return Err(Error::Host { what: "starting the thread for input", source });
    }
    if let Some(resets) = resets
        && let Err(error) = running.keep_start(resets)
    {
        running.abandon();
        return Err(error);
    }
    timeline.done("start the vCPUs");
    log::info!("{timeline}");
    running.timeline = timeline;
    Ok(running)
}

impl Running {
    /// Keeps the state of the machine for a restart, and takes back the hold that the vCPUs are
    /// started with for it.
    fn keep_start(&mut self, resets: Event) -> Result<(), Error> {
        let start = self.handle.start_state(resets, self.handle.saver.page_map.as_ref());
        let failed = |error| Error::host("keeping the start of the guest")(io::Error::other(error));
        self.restart = Some(start.map_err(failed)?);
        self.handle.release_start();
        Ok(())
    }

    fn start_vcpus(
        &mut self,
        vcpus: Vec<Box<dyn Vcpu>>,
        affinity: Vec<usize>,
        layers: &Layers,
    ) -> Result<(), Error> {
        let controls = self.handle.controls.clone();
        let cpus = affinity.into_iter().map(Some).chain(std::iter::repeat(None));
        for ((vcpu, cpu), control) in vcpus.into_iter().zip(cpus).zip(controls.iter()) {
            let index = vcpu.index();
            let task = self.task(cpu, control, layers);
            let name = format!("vcpu{index}");
            match thread::Builder::new().name(name).spawn(move || vcpu_thread::run(vcpu, task)) {
                Ok(thread) => self.threads.push(thread),
                Err(source) => {
                    self.abandon();
                    return Err(Error::Host { what: "starting a vCPU's thread", source });
                }
            }
        }
        Ok(())
    }

    fn task(&mut self, cpu: Option<usize>, control: &Arc<Control>, layers: &Layers) -> Task {
        let handle = &self.handle;
        let handler = self.platform.handler(control.clone(), self.deadline);
        Task {
            cpu,
            stopper: Stopper {
                dispatcher: self.hypercalls.before(handler, &handle.ram),
                control: control.clone(),
                events: handle.debug.clone(),
                moment: self.moment.as_ref().map(|moment| moment.events.clone()),
                holds_crashes: self.holds_crashes,
                msrs: self.msrs.clone(),
                snapshot: self.planned.as_ref().map(Planned::trigger),
                ram: handle.ram.clone(),
                ends: handle.shared.ends.clone(),
            },
            ram: handle.ram.clone(),
            control: control.clone(),
            shared: handle.shared.clone(),
            layers: layers.clone(),
            chips: handle.chips.clone(),
            deadline: self.deadline,
        }
    }
}
