//! Compiles the tables of system calls to BPF programs, so that a start has only to load them.

#[path = "src/compile.rs"]
mod compile;
#[allow(dead_code, reason = "the library uses more of it")]
#[path = "src/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    println!("cargo::rerun-if-changed=src/compile.rs");
    println!("cargo::rerun-if-changed=src/rules.rs");
    println!("cargo::rerun-if-changed=src/rules");
    // Most combinations make no difference to most threads.
    let mut programs = BTreeMap::new();
    let mut table = String::new();
    for kind in rules::KINDS {
        writeln!(table, "    [")?;
        for features in rules::Features::all() {
            let program = compile::compile(&rules::rules(kind, features), rules::REFUSED)?;
            let number = programs.len();
            let number = *programs.entry(program).or_insert(number);
            writeln!(table, "        &PROGRAM_{number},")?;
        }
        writeln!(table, "    ],")?;
    }
    let mut source = String::new();
    for (program, number) in &programs {
        writeln!(source, "static PROGRAM_{number}: [Instruction; {}] = [", program.len())?;
        for (code, jt, jf, k) in program {
            writeln!(source, "    Instruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")?;
        }
        writeln!(source, "];")?;
    }
    writeln!(
        source,
        "static PROGRAMS: [[&[Instruction]; {}]; {}] = [\n{table}];",
        rules::features::COMBINATIONS,
        rules::KINDS.len()
    )?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("filters.rs");
    Ok(std::fs::write(out, source)?)
}
