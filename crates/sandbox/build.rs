//! Compiles the tables of system calls to BPF programs, so that a start has only to load them.

#[path = "src/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use rules::{Condition, Kind, Rule};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// The offset of the system call's number in `struct seccomp_data` (seccomp(2)).
const NUMBER_OFFSET: u32 = 0;
/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K` and `BPF_RET | BPF_K` of `<linux/bpf_common.h>`.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/rules.rs");
    let mut source = String::new();
    for (kind, files) in [Kind::Main, Kind::Vcpu].into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let program = compile(&rules::rules(kind, files))?;
        let name = format!("{kind:?}{}", if files { "_files" } else { "" }).to_uppercase();
        writeln!(source, "pub(crate) static {name}: [Instruction; {}] = [", program.len())?;
        for (code, jt, jf, k) in program {
            writeln!(source, "    Instruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")?;
        }
        writeln!(source, "];")?;
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("filters.rs");
    Ok(std::fs::write(out, source)?)
}

fn compile(rules: &[Rule]) -> Result<Vec<(u16, u8, u8, u32)>, Box<dyn Error>> {
    let mut program = Vec::new();
    // What is refused comes first: the C library tries these calls and does without them.
    program.push((LOAD, 0, 0, NUMBER_OFFSET));
    for &(call, errno) in
        rules::REFUSED.iter().filter(|(call, _)| !rules.iter().any(|rule| rule.call == *call))
    {
        program.push((JUMP_EQUAL, 0, 1, u32::try_from(call)?));
        program.push((RETURN, 0, 0, u32::from(SeccompAction::Errno(errno.cast_unsigned()))));
    }
    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let chain = table.entry(rule.call).or_default();
        for conditions in alternatives(rule)? {
            chain.push(SeccompRule::new(conditions)?);
        }
    }
    let filter = SeccompFilter::new(table, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    let compiled: BpfProgram = filter.try_into()?;
    program.extend(compiled.iter().map(|i| (i.code, i.jt, i.jf, i.k)));
    Ok(program)
}

/// A rule as a list of alternatives, each a list of conditions that must all be met. None at all: always allowed.
fn alternatives(rule: &Rule) -> Result<Vec<Vec<SeccompCondition>>, Box<dyn Error>> {
    let word = SeccompCmpArgLen::Dword;
    let mut lists: Vec<Vec<SeccompCondition>> = Vec::new();
    for condition in rule.conditions {
        let choices = match *condition {
            Condition::OneOf(argument, values) => values
                .iter()
                .map(|&value| SeccompCondition::new(argument, word.clone(), SeccompCmpOp::Eq, value.into()))
                .collect::<Result<Vec<_>, _>>()?,
            Condition::Bits { argument, mask, value } => {
                vec![SeccompCondition::new(
                    argument,
                    word.clone(),
                    SeccompCmpOp::MaskedEq(mask.into()),
                    value.into(),
                )?]
            }
            Condition::OwnProcess(argument) => {
                vec![SeccompCondition::new(
                    argument,
                    word.clone(),
                    SeccompCmpOp::Eq,
                    rules::OWN_PROCESS.into(),
                )?]
            }
            Condition::Null(argument) => {
                vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?]
            }
        };
        lists = match lists.as_slice() {
            [] => choices.into_iter().map(|choice| vec![choice]).collect(),
            lists => lists
                .iter()
                .flat_map(|list| choices.iter().map(|choice| [list.as_slice(), &[choice.clone()]].concat()))
                .collect(),
        };
    }
    Ok(lists)
}
