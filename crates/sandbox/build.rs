//! Compiles the tables of system calls to BPF programs, so that a start has only to load them.

#[path = "src/compile.rs"]
mod compile;
#[allow(dead_code, reason = "the library uses more of it")]
#[path = "src/rules.rs"]
mod rules;

use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    println!("cargo::rerun-if-changed=src/compile.rs");
    println!("cargo::rerun-if-changed=src/rules.rs");
    println!("cargo::rerun-if-changed=src/rules");
    let mut source = String::new();
    writeln!(
        source,
        "static PROGRAMS: [[&[Instruction]; {}]; {}] = [",
        rules::features::COMBINATIONS,
        rules::KINDS.len()
    )?;
    for kind in rules::KINDS {
        writeln!(source, "    [")?;
        for features in rules::Features::all() {
            writeln!(source, "        &[")?;
            for (code, jt, jf, k) in
                compile::compile(&rules::rules(kind, features), rules::REFUSED)?
            {
                writeln!(
                    source,
                    "            Instruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},"
                )?;
            }
            writeln!(source, "        ],")?;
        }
        writeln!(source, "    ],")?;
    }
    writeln!(source, "];")?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("filters.rs");
    Ok(std::fs::write(out, source)?)
}
