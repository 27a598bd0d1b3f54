//! Names the hypercalls behind port numbers: `cargo run -p nerite-hypercall --example decode 0x1100
//! 0x540`. Without arguments: the whole table.

use std::process::ExitCode;

use nerite_hypercall::{v1, v2};

fn line(port: u16) -> Option<String> {
    let (version, name, size) = if let Some(call) = v1::Call::from_port(port) {
        (1, call.name(), call.param_size())
    } else {
        let call = v2::Call::from_port(port)?;
        (2, call.name(), call.param_size())
    };
    Some(format!("{port:#06x}  version {version}  {name:<18} {size:>4} bytes of parameters"))
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]
fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        (0..=u16::MAX).filter_map(line).for_each(|text| println!("{text}"));
    }
    for arg in args {
        let parsed = match arg.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16),
            None => arg.parse(),
        };
        match parsed.map(line) {
            Ok(Some(text)) => println!("{text}"),
            Ok(None) => println!("{arg}: no hypercall"),
            Err(error) => {
                eprintln!("{arg}: not a port number: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
