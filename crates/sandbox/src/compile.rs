//! Compiles tables of system calls to BPF programs. The build script uses it for this crate's
//! tables, so that a start has only to load them; programs with tables of their own use it at their
//! start, or in build scripts of theirs.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::rules::{Condition, OWN_PROCESS, Rule};

/// Offsets in `struct seccomp_data` (seccomp(2)).
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
/// `AUDIT_ARCH_X86_64` of `<linux/audit.h>`.
const X86_64: u32 = 0xc000_003e;
/// A number above that of every system call there is; those of the x32 interface are far above.
const LAST_CALL: i64 = 1023;

/// Codes of `<linux/bpf_common.h>`: `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP` with `BPF_JEQ`, `BPF_JGE`
/// and `BPF_JA`, `BPF_RET`.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_LESS: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
/// A jump whose distance is not known yet: to where arguments are looked at.
const LOOK: Instruction = (JUMP, 0, 0, u32::MAX);

/// Code, two distances to jump, and a number.
pub(crate) type Instruction = (u16, u8, u8, u32);

/// Error of a table that cannot be compiled.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Treatment of a system call as far as its number decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// The arguments decide.
    Look,
    /// It fails with this error number.
    Refuse(i32),
    Trap,
}

/// First a tree over the numbers, which takes seven steps where a list takes hundreds: when a
/// filter is loaded, the kernel runs it for every number there is. Then what `seccompiler` makes of
/// the calls whose arguments count.
pub(crate) fn compile(rules: &[Rule], refused: &[(i64, i32)]) -> Result<Vec<Instruction>, Error> {
    let is_allowed =
        |call: i64| rules.iter().any(|rule| rule.call == call && rule.conditions.is_empty());
    // A table may allow always what another allows under conditions.
    let looked_at: Vec<&Rule> = rules.iter().filter(|rule| !is_allowed(rule.call)).collect();
    let verdict = |call: i64| {
        if is_allowed(call) {
            return Verdict::Allow;
        }
        if looked_at.iter().any(|rule| rule.call == call) {
            return Verdict::Look;
        }
        let refused = refused.iter().find(|(refused, _)| *refused == call);
        refused.map_or(Verdict::Trap, |(_, errno)| Verdict::Refuse(*errno))
    };
    // Where each stretch of numbers with the same verdict begins.
    let mut stretches: Vec<(u32, Verdict)> = Vec::new();
    for call in 0..=LAST_CALL {
        if stretches.last().is_none_or(|(_, last)| *last != verdict(call)) {
            stretches.push((u32::try_from(call)?, verdict(call)));
        }
    }
    let mut program = vec![
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_EQUAL, 1, 0, X86_64),
        (RETURN, 0, 0, SeccompAction::KillProcess.into()),
        (LOAD, 0, 0, NUMBER_OFFSET),
    ];
    program.extend(tree(&stretches)?);
    let end = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if *instruction == LOOK {
            instruction.3 = u32::try_from(end.saturating_sub(at).saturating_sub(1))?;
        }
    }

    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in looked_at {
        let chain = table.entry(rule.call).or_default();
        for conditions in alternatives(rule)? {
            let one = SeccompRule::new(conditions)?;
            // Tables have calls in common.
            if !chain.contains(&one) {
                chain.push(one);
            }
        }
    }
    let filter =
        SeccompFilter::new(table, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    let compiled: BpfProgram = filter.try_into()?;
    program.extend(compiled.iter().map(|i| (i.code, i.jt, i.jf, i.k)));
    Ok(program)
}

/// A search by halves.
fn tree(stretches: &[(u32, Verdict)]) -> Result<Vec<Instruction>, Error> {
    if let [(_, verdict)] = stretches {
        let action = match verdict {
            Verdict::Look => return Ok(vec![LOOK]),
            Verdict::Allow => SeccompAction::Allow,
            Verdict::Refuse(errno) => SeccompAction::Errno(errno.cast_unsigned()),
            Verdict::Trap => SeccompAction::Trap,
        };
        return Ok(vec![(RETURN, 0, 0, action.into())]);
    }
    let (low, high) = stretches.split_at_checked(stretches.len() >> 1).unwrap_or_default();
    let [(first, _), ..] = high else { return Err("an empty half".into()) };
    let low = tree(low)?;
    let mut program = vec![(JUMP_NOT_LESS, u8::try_from(low.len())?, 0, *first)];
    program.extend(low);
    program.extend(tree(high)?);
    Ok(program)
}

/// A rule as a list of alternatives, each a list of conditions that must all be met. None at all:
/// always allowed.
fn alternatives(rule: &Rule) -> Result<Vec<Vec<SeccompCondition>>, Error> {
    let word = SeccompCmpArgLen::Dword;
    let mut lists: Vec<Vec<SeccompCondition>> = Vec::new();
    for condition in rule.conditions {
        let choices = match *condition {
            Condition::OneOf(argument, values) => values
                .iter()
                .map(|&value| {
                    SeccompCondition::new(argument, word.clone(), SeccompCmpOp::Eq, value.into())
                })
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
                    OWN_PROCESS.into(),
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
                .flat_map(|list| {
                    choices
                        .iter()
                        .map(|choice| [list.as_slice(), std::slice::from_ref(choice)].concat())
                })
                .collect(),
        };
    }
    Ok(lists)
}
