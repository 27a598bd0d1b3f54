//! Properties of a process that, besides the kind of a thread, select system calls.

/// Optional activities of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features {
    /// Opening files, because something is mounted.
    pub(crate) files: bool,
    /// Answering a control socket.
    pub(crate) control: bool,
    /// Working on the queues of network cards.
    pub(crate) network: bool,
    /// Opening connections of the host for network cards; only with `network`.
    pub(crate) sockets: bool,
    /// Answering a debugger.
    pub(crate) debug: bool,
    /// Working on the queues of disks and of other devices like them.
    pub(crate) devices: bool,
    /// Connecting devices to Unix sockets of the host; only with `devices`.
    pub(crate) unix_sockets: bool,
    /// Running the guest on KVM.
    pub(crate) kvm: bool,
    /// Giving vCPUs a saved state while the machine runs, for a restart or to hand the guest over
    /// between KVM and another hypervisor; only with `kvm`.
    pub(crate) switch: bool,
    /// Giving a directory that was made before its name, and saving the machine to files there.
    pub(crate) naming: bool,
}

/// Number of combinations.
pub(crate) const COMBINATIONS: usize = 432;

impl Features {
    /// All combinations, each at its own [`Features::index`].
    pub(crate) fn all() -> [Self; COMBINATIONS] {
        std::array::from_fn(|index| {
            let (devices, network, kvm) = (index / 16 % 3, index / 48 % 3, index / 144);
            Self {
                files: index & 1 != 0,
                control: index & 2 != 0,
                debug: index & 4 != 0,
                naming: index & 8 != 0,
                devices: devices >= 1,
                unix_sockets: devices >= 2,
                network: network >= 1,
                sockets: network >= 2,
                kvm: kvm >= 1,
                switch: kvm >= 2,
            }
        })
    }

    /// Its place among all combinations.
    pub(crate) const fn index(self) -> usize {
        let flags = self.files as usize
            | (self.control as usize) << 1
            | (self.debug as usize) << 2
            | (self.naming as usize) << 3;
        let devices = degree(self.devices, self.unix_sockets);
        let network = degree(self.network, self.sockets);
        let kvm = degree(self.kvm, self.switch);
        let degrees = kvm.saturating_mul(3).saturating_add(network);
        flags | degrees.saturating_mul(3).saturating_add(devices) << 4
    }
}

/// Number of an activity that has a stronger form: 0 without, 1 with it, 2 in its stronger form.
const fn degree(with: bool, strong: bool) -> usize {
    match (with, strong) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}
