//! Says what the host's KVM is good for: `cargo run -p nerite-kvm --example probe`.

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() {
    println!("{}", nerite_kvm::probe::host());
}
