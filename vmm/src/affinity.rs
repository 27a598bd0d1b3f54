//! Lists of host CPUs: `0-1,2`, `0 1 2`.

use std::str::FromStr;

use nerite_machine::config::MAX_CPUS;

/// The largest CPU number Linux knows (`CONFIG_NR_CPUS` goes up to 8192), so that a typing mistake
/// such as `0-99999999` is an error rather than a long list.
const MAX_HOST_CPU: usize = 8191;

/// The host CPU of each vCPU, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity(Vec<usize>);

impl Affinity {
    /// Checks a list of host CPUs.
    ///
    /// # Errors
    ///
    /// If it is empty, longer than the largest number of vCPUs, or names a CPU that Linux cannot
    /// have.
    pub fn new(cpus: Vec<usize>) -> Result<Self, AffinityError> {
        if cpus.is_empty() {
            return Err(AffinityError::Empty);
        }
        if cpus.len() > MAX_CPUS as usize {
            return Err(AffinityError::TooMany);
        }
        if let Some(&cpu) = cpus.iter().find(|&&cpu| cpu > MAX_HOST_CPU) {
            return Err(AffinityError::NoSuchCpu { cpu });
        }
        Ok(Self(cpus))
    }

    /// The host CPUs.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }

    /// The host CPUs.
    #[must_use]
    pub fn into_cpus(self) -> Vec<usize> {
        self.0
    }
}

/// Text that is not a list of host CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AffinityError {
    /// Something is neither a number nor a range.
    #[error("`{0}` is not a CPU number or a range such as 0-3")]
    Syntax(String),
    /// The end of a range is before its start.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
    /// The list names no CPU.
    #[error("the list of host CPUs is empty")]
    Empty,
    /// More CPUs than a guest can have.
    #[error("more than {MAX_CPUS} host CPUs are listed, which is the most vCPUs a guest has")]
    TooMany,
    /// A number that no Linux host has.
    #[error("there is no host CPU {cpu}: the largest number Linux has is {MAX_HOST_CPU}")]
    NoSuchCpu {
        /// The number.
        cpu: usize,
    },
}

impl FromStr for Affinity {
    type Err = AffinityError;

    fn from_str(text: &str) -> Result<Self, AffinityError> {
        let mut cpus = Vec::new();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (parse_cpu(first, part)?, parse_cpu(last, part)?);
            if last < first {
                return Err(AffinityError::Backwards(part.to_owned()));
            }
            cpus.extend(first..=last);
            if cpus.len() > MAX_CPUS as usize {
                break;
            }
        }
        Self::new(cpus)
    }
}

fn parse_cpu(digits: &str, part: &str) -> Result<usize, AffinityError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AffinityError::Syntax(part.to_owned()));
    }
    match digits.parse() {
        Ok(cpu) if cpu <= MAX_HOST_CPU => Ok(cpu),
        Ok(cpu) => Err(AffinityError::NoSuchCpu { cpu }),
        Err(_) => Err(AffinityError::Syntax(part.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Result<Vec<usize>, AffinityError> {
        text.parse().map(Affinity::into_cpus)
    }

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(cpus("0"), Ok(vec![0]));
        assert_eq!(cpus("0-1,2"), Ok(vec![0, 1, 2]));
        assert_eq!(cpus("0 1 2"), Ok(vec![0, 1, 2]));
        assert_eq!(cpus("4,0-2, 7"), Ok(vec![4, 0, 1, 2, 7]));
        assert_eq!(cpus("3-3"), Ok(vec![3]));
    }

    #[test]
    fn the_same_cpu_may_come_twice() {
        assert_eq!(cpus("1,1"), Ok(vec![1, 1]));
    }

    #[test]
    fn nonsense_names_the_part() {
        for bad in ["a", "1-", "-1", "1-2-3", "+1", "0x1", "99999999999999999999999"] {
            assert_eq!(
                cpus(&format!("0,{bad}")),
                Err(AffinityError::Syntax(bad.to_owned())),
                "{bad}"
            );
        }
        assert_eq!(cpus("3-1"), Err(AffinityError::Backwards("3-1".to_owned())));
        assert_eq!(cpus(""), Err(AffinityError::Empty));
        assert_eq!(cpus(" ,"), Err(AffinityError::Empty));
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(cpus("0-15").map(|c| c.len()), Ok(16));
        assert_eq!(cpus("0-16"), Err(AffinityError::TooMany));
        assert_eq!(cpus("0-99999999"), Err(AffinityError::NoSuchCpu { cpu: 99_999_999 }));
    }
}
