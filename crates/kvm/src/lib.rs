//! The KVM backend of Nerite's vCPU trait: VM, vCPU, capability probe.
