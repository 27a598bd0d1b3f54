//! Requests, and what a server makes of them before it looks at the machine.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use nerite_control::protocol::{Command, Request, VERSION, parse};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request =
        Request { version: VERSION, id: Some(1), command: Command::Pause, ..Request::default() };
    let good = serde_json::to_string(&request)?;
    for line in [
        &*good,
        r#"{"version":1,"command":"explode"}"#,
        r#"{"version":2,"id":7,"command":"stop"}"#,
        "hello",
    ] {
        match parse(line.as_bytes()) {
            Ok(request) => println!("{line}\n  is {:?}", request.command),
            Err((id, failure)) => println!("{line}\n  is refused, id {id:?}: {failure}"),
        }
    }
    Ok(())
}
