//! Shows what an image is: `cargo run -p nerite-loader --example inspect -- IMAGE`.
//!
//! Without an image it looks at itself, which is an ordinary Linux program, and says why that is no
//! Hermit image.

use std::env;
use std::path::PathBuf;

use nerite_loader::{Image, Limits};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = match env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()?,
    };
    match Image::read(&path, &Limits::default()) {
        Ok(image) => report(&image.inspect().to_string()),
        Err(error) => report(&format!("{error}\n")),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
fn report(text: &str) {
    print!("{text}");
}
