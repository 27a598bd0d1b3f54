//! Guest RAM for a KVM virtual machine: regions, backing, checked access and the Hermit address layout.
