//! Files: what the host has mounted, and what is created where it has not.

use std::fs;
use std::io::{Read, Write};

pub fn run(path: &str) {
    match fs::File::open(path) {
        Ok(mut file) => {
            let mut text = String::new();
            file.read_to_string(&mut text).expect("what can be opened can be read");
            println!("read: {text}");
        }
        Err(error) => println!("cannot open {path}: error {}", error.raw_os_error().unwrap_or(0)),
    }
    match fs::File::create(path) {
        Ok(mut file) => {
            file.write_all(b"written by the guest").expect("what can be created can be written");
            println!("created {path}");
        }
        Err(error) => println!("cannot create {path}: error {}", error.raw_os_error().unwrap_or(0)),
    }
    println!("going on");
}
