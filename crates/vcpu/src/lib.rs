//! A hypervisor-neutral vCPU: typed exits, one step, kicks that are never lost.
