//! Enters the sandbox and tries something: `cargo run -p nerite-sandbox --example try -- read
//! /etc/passwd`.

use std::os::fd::AsFd as _;
use std::time::Instant;

use nerite_sandbox::{Policy, Reachable, Rights, enter};

const USAGE: &str =
    "usage: try read PATH | write PATH | run PROGRAM | connect ADDRESS [REACHABLE_DIRECTORY]";

#[allow(clippy::print_stdout, reason = "it is a program")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [action, target, directory @ ..] = words.as_slice() else {
        println!("{USAGE}");
        return Ok(());
    };
    let directory = directory.first().map(std::fs::File::open).transpose()?;
    let reachable = directory.as_ref().map(|directory| Reachable {
        file: directory.as_fd(),
        rights: Rights::Read,
        is_directory: true,
    });

    let start = Instant::now();
    let confinement = enter(&Policy::default(), reachable)?;
    for missing in confinement.missing() {
        println!("not confined as it should be: {missing}");
    }
    println!("confined in {} us", start.elapsed().as_micros());
    match action.as_str() {
        "read" => println!("read {} bytes", std::fs::read(target)?.len()),
        "write" => std::fs::write(target, "something")?,
        "run" => drop(std::process::Command::new(target).spawn()?),
        "connect" => drop(std::net::TcpStream::connect(target)?),
        _ => return Err(USAGE.into()),
    }
    println!("{action} {target}: done");
    Ok(())
}
