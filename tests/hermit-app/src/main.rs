//! A Hermit application that uses `std` as an ordinary program does. Its first argument says what
//! to try; what it finds goes to standard output, one fact a line, and what must not happen ends it
//! with a panic.

use std::env;
use std::process::ExitCode;

mod files;
mod memory;
mod serve;
mod threads;
mod time;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let what = args.next();
    let number = |text: Option<String>| {
        text.and_then(|text| text.parse().ok()).expect("a number is missing")
    };
    match what.as_deref() {
        None => println!("Hello from a Hermit application"),
        Some("args") => print_args(),
        Some("threads") => threads::run(number(args.next())),
        Some("time") => time::run(number(args.next())),
        Some("file") => files::run(&args.next().expect("a path is missing")),
        Some("memory") => memory::run(number(args.next()) as usize),
        Some("serve") => serve::run(u16::try_from(number(args.next())).expect("a port")),
        Some("panic") => panic!("this panic was asked for"),
        Some("exit") => std::process::exit(exit_code(args.next())),
        Some("exit-busy") => {
            std::thread::spawn(spin);
            std::thread::spawn(sleep);
            println!("leaving the others");
            std::process::exit(exit_code(args.next()));
        }
        Some("return") => {
            return ExitCode::from(u8::try_from(number(args.next())).expect("a byte"));
        }
        Some("forever") => {
            println!("running until stopped");
            spin();
        }
        Some("sleep") => {
            println!("going to sleep");
            sleep();
        }
        Some(other) => panic!("what is {other:?}?"),
    }
    ExitCode::SUCCESS
}

fn exit_code(text: Option<String>) -> i32 {
    text.and_then(|text| text.parse().ok()).expect("an exit code is missing")
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

fn sleep() {
    std::thread::sleep(std::time::Duration::from_secs(3600));
}

/// Prints the remaining arguments and the environment, each with its length so that no byte can
/// hide.
fn print_args() {
    for (index, arg) in env::args().enumerate().skip(2) {
        println!("arg {index} {} [{arg}]", arg.len());
    }
    let mut vars: Vec<_> = env::vars().collect();
    vars.sort();
    for (name, value) in vars {
        println!("env {name} {} [{value}]", value.len());
    }
    println!("that is all");
}
