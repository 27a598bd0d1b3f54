//! Small device models without a hypervisor: the console, an empty PCI host.
