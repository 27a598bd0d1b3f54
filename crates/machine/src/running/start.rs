//! Starts a machine: a thread for each vCPU.

use super::*;

/// Starts the vCPU threads.
pub(crate) fn start(machine: Machine) -> Result<Running, Error> {
    let Machine { system, guest, ram, vcpus, affinity, console, .. } = machine;
    let Machine { stop_event, stopping, observe, tracer, network, confinement, mut timeline, vm, .. } =
        machine;
    let started = Instant::now();
    let shared = Arc::new(Shared {
        end: Mutex::new(None),
        stop_event,
        stopping,
        left: Mutex::new(vcpus.len()),
        one_left: Condvar::new(),
        exit_code: OnceLock::new(),
        confinement,
        finished: Mutex::new(Vec::with_capacity(vcpus.len())),
    });
    let controls: Arc<[_]> = vcpus.iter().map(|_| Arc::new(Control::new())).collect();
    for (control, vcpu) in controls.iter().zip(&vcpus) {
        control.set_kicker(vcpu.kicker());
    }
    let debug = observe.debug.map(|_| DebugEvents::new().map(Arc::new)).transpose()?;
    let layers = Layers {
        statistics: observe.statistics,
        tracer: tracer.clone(),
        debug: debug.as_ref().map(|_| probe::debugging(&system)),
        budget: observe.instruction_limit.map(InstructionBudget::new),
    };
    if observe.debug == Some(Debug::Held) {
        controls.iter().for_each(|control| control.hold());
    }
    let deadline = observe.time_limit.and_then(|limit| started.checked_add(limit));
    let offset = guest.load_offset();
    let handle = Handle {
        shared: shared.clone(),
        controls: controls.clone(),
        ram,
        started,
        network,
        debug,
        native: layers.debug.unwrap_or_default(),
        offset,
    };
    let halts = (!observe.keep_halted).then(|| HaltWatch::new(handle.clone()));
    let mut running = Running {
        handle,
        threads: Vec::new(),
        console,
        system,
        guest,
        keyboard: None,
        tracer,
        deadline,
        halts,
        timeline: Timeline::begin(),
        statistics: observe.statistics,
        ended: Vec::new(),
        _vm: vm,
    };
    let cpus = affinity.into_iter().map(Some).chain(std::iter::repeat(None));
    for ((vcpu, cpu), control) in vcpus.into_iter().zip(cpus).zip(controls.iter()) {
        let index = vcpu.index();
        let task = Task {
            cpu,
            stopper: Stopper {
                dispatcher: running.guest.dispatcher(control.clone(), deadline),
                control: control.clone(),
                events: running.handle.debug.clone(),
                is_limited: layers.budget.is_some(),
            },
            ram: running.handle.ram.clone(),
            control: control.clone(),
            shared: shared.clone(),
            layers: layers.clone(),
            deadline,
        };
        let thread =
            thread::Builder::new().name(format!("vcpu{index}")).spawn(move || vcpu_thread::run(vcpu, task));
        match thread {
            Ok(thread) => running.threads.push(thread),
            Err(source) => {
                running.abandon();
                return Err(Error::Host { what: "starting a vCPU's thread", source });
            }
        }
    }
    if let Err(source) = running.start_keyboard() {
        running.abandon();
        return Err(Error::Host { what: "starting the thread for input", source });
    }
    timeline.done("start the vCPUs");
    log::info!("{timeline}");
    running.timeline = timeline;
    Ok(running)
}
