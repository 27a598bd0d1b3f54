//! The port and MMIO address spaces of a virtual machine: checked, non-overlapping ranges and one device trait.
