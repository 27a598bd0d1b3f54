//! A small HTTP server: `GET /N` is answered with N bytes, and `GET /end` ends the program.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

pub fn run(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    println!("ready");
    let mut requests = 0;
    let mut is_over = false;
    while !is_over {
        let (stream, _) = listener.accept().expect("a connection");
        is_over = serve(stream, &mut requests);
    }
    println!("served {requests} requests");
}

/// Answers all requests of one connection. Returns `true` after the last request of all.
fn serve(stream: TcpStream, requests: &mut u32) -> bool {
    let mut reader = BufReader::new(stream);
    loop {
        let head = head(&mut reader);
        let Some(first) = head.first() else { return false };
        let path = first.strip_prefix("GET /").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        let path = path.unwrap_or_else(|| panic!("what is {first:?}?"));
        let length = if path == "end" { 0 } else { path.parse().expect("a number of bytes") };
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.extend((0..length).map(|at: usize| (at % 251) as u8));
        reader.get_mut().write_all(&answer).expect("the client takes the answer");
        *requests += 1;
        if head.iter().any(|line| line == "Connection: close") {
            return path == "end";
        }
    }
}

/// The lines of a request up to the empty one; none after the last request of a connection.
fn head(reader: &mut impl BufRead) -> Vec<String> {
    let lines = reader.by_ref().lines().map(|line| line.expect("a line of a request"));
    lines.take_while(|line| !line.is_empty()).collect()
}
