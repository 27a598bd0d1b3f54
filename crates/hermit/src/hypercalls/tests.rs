//! Hypercalls, without a hypervisor: the guest's side is played here.

mod hostile;
mod v1;
mod v2;
