//! [`Backing`]: options of the host memory behind guest RAM.

use std::fmt;

/// Options of the host memory behind guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backing {
    /// Ask for transparent huge pages (`MADV_HUGEPAGE`).
    pub thp: bool,
    /// Let the host merge equal pages (`MADV_MERGEABLE`).
    pub ksm: bool,
    /// Use reserved 2 MiB pages (`MAP_HUGETLB`). They are set aside at once, so a shortage is an
    /// error of [`GuestRam::new`](crate::GuestRam::new) and not a signal in the middle of a run.
    /// Excludes the other two.
    pub hugepages: bool,
}

/// A kind of memory that reserved huge pages exclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advised {
    /// Transparent huge pages: [`Backing::thp`].
    HugePages,
    /// Merging of equal pages: [`Backing::ksm`].
    Merging,
    /// Memory that is mapped from a file: [`crate::GuestRam::from_file`].
    File,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HugePages => "transparent huge pages",
            Self::Merging => "page merging",
            Self::File => "memory from a file",
        })
    }
}
