//! A vCPU of KVM.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::KVM_MP_STATE_HALTED;
use kvm_ioctls::{SyncReg, VcpuFd};
use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_memory::GuestRam;
use nerite_vcpu::{EngineDebug, Entry, Error, Exit, Kicker, Vcpu};

use crate::convert;
use crate::exits::{self, Pending};
use crate::kick::KickFlag;
use crate::pages::SharedPages;
use crate::timer::KickTimer;

/// A vCPU of KVM.
///
/// It may be created on one thread and run on another; the thread that runs it is the one that kicks reach.
pub struct KvmVcpu {
    index: u32,
    pub(crate) fd: VcpuFd,
    pub(crate) pages: Arc<SharedPages>,
    kick: Arc<KickFlag>,
    pending: Pending,
    /// Whether KVM leaves the general registers in the shared page at every exit, which makes reading them free.
    syncs_regs: bool,
    /// Whether the registers in the shared page are those of the guest now.
    regs_are_fresh: bool,
    /// An open vCPU keeps its VM alive in the kernel, and the VM refers to this memory by address.
    _ram: Arc<GuestRam>,
}

/// What entering the guest is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// To run it.
    Run,
    /// To complete a pending access: `immediate_exit` is set, and a kick stays for the next run.
    Drain,
}

impl KvmVcpu {
    pub(crate) fn new(
        index: u32,
        mut fd: VcpuFd,
        syncs_regs: bool,
        ram: Arc<GuestRam>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Engine { index, operation: "mapping the vCPU's kvm_run", source };
        let pages = Arc::new(SharedPages::new(&fd).map_err(failed)?);
        let kick = KickFlag::new(pages.clone()).map_err(failed)?;
        if syncs_regs {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        Ok(Self {
            index,
            fd,
            pages,
            kick,
            pending: Pending::None,
            syncs_regs,
            regs_are_fresh: false,
            _ram: ram,
        })
    }

    /// Kicks this vCPU once after `delay`, unless the timer is dropped before. To be called on the thread that runs it.
    ///
    /// # Errors
    /// If the host has no timer left.
    pub fn kick_after(&self, delay: Duration) -> Result<KickTimer, Error> {
        self.kick_every(delay, Duration::ZERO)
    }

    /// Kicks this vCPU after `first`, and from then on every `interval`, until the timer is dropped or set to something else. To
    /// be called on the thread that runs it.
    ///
    /// # Errors
    /// If the host has no timer left.
    pub fn kick_every(&self, first: Duration, interval: Duration) -> Result<KickTimer, Error> {
        KickTimer::start(&self.kick, first, interval).map_err(|source| Error::Engine {
            index: self.index,
            operation: "starting a timer",
            source,
        })
    }

    pub(crate) fn engine_error(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(kvm_ioctls::Error) -> Error + use<> {
        let index = self.index;
        move |error| Error::Engine { index, operation, source: error.into() }
    }

    /// Enters the guest until there is an exit, or until a kick.
    fn enter(&mut self, mode: Mode) -> Result<Exit, Error> {
        self.kick.bind();
        loop {
            let raw = match self.fd.run() {
                Ok(exit) => exits::copy(&exit),
                Err(error) => {
                    let error = io::Error::from(error);
                    match error.kind() {
                        // A signal: by now KVM has completed the pending access. Without a kick it was meant for others.
                        io::ErrorKind::Interrupted => {
                            self.regs_are_fresh = false;
                            if mode == Mode::Drain || self.kick.take() {
                                return Ok(Exit::Kicked);
                            }
                            continue;
                        }
                        // A processor that still waits for its start was woken: let it look again.
                        io::ErrorKind::WouldBlock => continue,
                        _ => {
                            return Err(Error::Engine {
                                index: self.index,
                                operation: "KVM_RUN",
                                source: error,
                            });
                        }
                    }
                }
            };
            let (exit, pending) = exits::finish(raw, &mut self.fd);
            self.pending = pending;
            self.regs_are_fresh = self.syncs_regs;
            return Ok(exit);
        }
    }
}

impl Vcpu for KvmVcpu {
    fn index(&self) -> u32 {
        self.index
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        match self.pending.answer(&mut self.fd, entry) {
            Some(next) => Ok(next),
            None => self.enter(Mode::Run),
        }
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        if let Some(next) = self.pending.answer(&mut self.fd, entry) {
            return Ok(Some(next));
        }
        self.kick.begin_drain();
        let exit = self.enter(Mode::Drain);
        self.kick.end_drain();
        Ok(Some(exit?).filter(|exit| *exit != Exit::Kicked))
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        if self.regs_are_fresh {
            return Ok(convert::regs_from_kvm(&self.fd.sync_regs_mut().regs));
        }
        let regs = self.fd.get_regs().map_err(self.engine_error("KVM_GET_REGS"))?;
        Ok(convert::regs_from_kvm(&regs))
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.regs_are_fresh = false;
        self.fd.set_regs(&convert::regs_to_kvm(regs)).map_err(self.engine_error("KVM_SET_REGS"))
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        let sregs = self.fd.get_sregs().map_err(self.engine_error("KVM_GET_SREGS"))?;
        Ok(convert::special_regs_from_kvm(&sregs))
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        let mut sregs = self.fd.get_sregs().map_err(self.engine_error("KVM_GET_SREGS"))?;
        convert::special_regs_to_kvm(regs, &mut sregs);
        self.fd.set_sregs(&sregs).map_err(self.engine_error("KVM_SET_SREGS"))
    }

    fn kicker(&self) -> Kicker {
        Kicker::new(self.kick.clone())
    }

    fn take_kick(&mut self) -> bool {
        self.kick.take()
    }

    fn set_engine_debug(&mut self, debug: &EngineDebug) -> Result<(), Error> {
        self.regs_are_fresh = false;
        self.fd
            .set_guest_debug(&convert::debug_to_kvm(debug))
            .map_err(self.engine_error("KVM_SET_GUEST_DEBUG"))
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        let xsave = self.fd.get_xsave().map_err(self.engine_error("KVM_GET_XSAVE"))?;
        let bytes: Vec<u8> = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
        Ok(Fpu::from_xsave(&bytes))
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        let mut xsave = self.fd.get_xsave().map_err(self.engine_error("KVM_GET_XSAVE"))?;
        let bytes = fpu.to_xsave();
        for (to, from) in xsave.region.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = u32::from_le_bytes(*from);
        }
        // SAFETY: KVM reads as much as KVM_GET_XSAVE wrote, 4096 bytes, unless the process has asked for features with larger
        // state (arch_prctl), which nothing here does.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(self.engine_error("KVM_SET_XSAVE"))
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.fd.nmi().map_err(self.engine_error("KVM_NMI"))
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        let state = self.fd.get_mp_state().map_err(self.engine_error("KVM_GET_MP_STATE"))?;
        Ok(state.mp_state == KVM_MP_STATE_HALTED)
    }
}

impl fmt::Debug for KvmVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmVcpu")
            .field("index", &self.index)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
