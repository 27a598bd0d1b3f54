//! Counting the instructions of a guest's functions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nerite_loader::Symbols;
use nerite_vcpu::Executions;
use parking_lot::Mutex;

/// Maximum number of functions in the table for people.
const MAX_ROWS: usize = 40;

/// Number of instructions that a guest has completed. A repeated string instruction is one, and one
/// that faults is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstructionCounts {
    /// Those of each vCPU, in order of their index.
    pub vcpus: Vec<u64>,
    /// Functions by number of instructions, largest first. Those without any are left out.
    pub functions: Vec<FunctionCount>,
    /// Instructions of code that belongs to no function with a name.
    pub elsewhere: u64,
}

/// Instructions of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCount {
    /// Name, demangled and safe to print.
    pub name: String,
    /// Guest-virtual address of its first instruction.
    pub address: u64,
    /// Number of instructions, those of callees not included.
    pub instructions: u64,
}

impl InstructionCounts {
    /// Sum of all vCPUs.
    pub fn total(&self) -> u64 {
        sum(self.vcpus.iter().copied())
    }
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// A table for people, as `--count` prints it.
impl fmt::Display for InstructionCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let mut row = |instructions: u64, what: &dyn fmt::Display| {
            let tenths = u128::from(instructions)
                .saturating_mul(1000)
                .checked_div(total.into())
                .unwrap_or(0);
            writeln!(f, "{instructions:>16} {:>4}.{} %  {what}", tenths / 10, tenths % 10)
        };
        let (shown, others) =
            self.functions.split_at_checked(MAX_ROWS).unwrap_or((&self.functions, &[]));
        for function in shown {
            row(function.instructions, &function.name)?;
        }
        if !others.is_empty() {
            let rest = sum(others.iter().map(|function| function.instructions));
            row(rest, &format_args!("{} other functions", others.len()))?;
        }
        if self.elsewhere > 0 {
            row(self.elsewhere, &"code without a name")?;
        }
        if let [_, _, ..] = *self.vcpus {
            writeln!(f)?;
            for (index, instructions) in self.vcpus.iter().enumerate() {
                writeln!(f, "{instructions:>16}          vCPU {index}")?;
            }
            writeln!(f, "{total:>16}          all vCPUs; with several, each run can differ")
        } else {
            writeln!(f, "{total:>16}          instructions")
        }
    }
}

/// Counters of a guest's functions.
#[derive(Debug)]
pub(crate) struct FunctionCounters {
    symbols: Symbols,
    /// Distance from the addresses of symbols to those of the guest.
    offset: u64,
    counts: Mutex<Counts>,
    /// Instructions that vCPUs had executed when counting began, by index.
    before: Mutex<BTreeMap<usize, u64>>,
}

#[derive(Debug)]
struct Counts {
    /// By index of the symbol.
    functions: Vec<u64>,
    elsewhere: u64,
}

impl FunctionCounters {
    pub(crate) fn new(symbols: Symbols, offset: u64) -> Self {
        let counts = Counts { functions: vec![0; symbols.len()], elsewhere: 0 };
        Self { symbols, offset, counts: Mutex::new(counts), before: Mutex::default() }
    }

    /// Begins to count a vCPU that has executed so many instructions before.
    pub(crate) fn begin(&self, vcpu: usize, before: u64) {
        self.before.lock().insert(vcpu, before);
    }

    /// Number of instructions that are counted, of a vCPU that has executed so many.
    pub(crate) fn counted(&self, vcpu: u32, executed: u64) -> u64 {
        let before = usize::try_from(vcpu).ok().and_then(|it| self.before.lock().get(&it).copied());
        executed.saturating_sub(before.unwrap_or(0))
    }

    /// Counts nothing of vCPUs before they [begin](Self::begin).
    pub(crate) fn wait(&self, vcpus: usize) {
        (0..vcpus).for_each(|vcpu| self.begin(vcpu, u64::MAX));
    }

    /// Adds the executions that a vCPU reports.
    pub(crate) fn executions(self: &Arc<Self>) -> Executions {
        let counters = self.clone();
        Box::new(move |address, times| counters.add(address, times))
    }

    fn add(&self, address: u64, times: u64) {
        let index = self.symbols.find(address.wrapping_sub(self.offset));
        let counts = &mut *self.counts.lock();
        let count = match index.and_then(|index| counts.functions.get_mut(index)) {
            Some(count) => count,
            None => &mut counts.elsewhere,
        };
        *count = count.saturating_add(times);
    }

    /// The counts, for vCPUs that have completed so many instructions.
    pub(crate) fn finish(&self, vcpus: Vec<u64>) -> InstructionCounts {
        let counts = self.counts.lock();
        let executed = counts.functions.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut functions: Vec<_> = executed
            .filter_map(|(index, instructions)| {
                let (address, name) = self.symbols.get(index)?;
                let address = address.wrapping_add(self.offset);
                Some(FunctionCount { name, address, instructions: *instructions })
            })
            .collect();
        functions
            .sort_by_key(|function| (std::cmp::Reverse(function.instructions), function.address));
        InstructionCounts { vcpus, functions, elsewhere: counts.elsewhere }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, instructions: u64) -> FunctionCount {
        FunctionCount { name: name.to_owned(), address: 0, instructions }
    }

    #[test]
    fn the_table_has_the_largest_first_and_the_sum_last() {
        let counts = InstructionCounts {
            vcpus: vec![1000],
            functions: vec![function("one", 900), function("two", 99)],
            elsewhere: 1,
        };
        let expected = [
            "             900   90.0 %  one",
            "              99    9.9 %  two",
            "               1    0.1 %  code without a name",
            "            1000          instructions",
        ];
        assert_eq!(counts.to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn many_functions_and_vcpus_are_summed_up() {
        let functions = (0..100).rev().map(|count| function("f", count + 1)).collect();
        let counts = InstructionCounts { vcpus: vec![5000, 50], functions, elsewhere: 0 };
        let text = counts.to_string();
        assert!(text.contains("1830   36.2 %  60 other functions\n"), "{text}");
        assert!(text.ends_with(
            "50          vCPU 1\n            5050          all vCPUs; with several, each run can differ\n"
        ));
        assert_eq!(text.lines().count(), MAX_ROWS + 5);
    }
}
