//! One thing for each of the two hypervisors.

/// One of the two hypervisors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one whose time-stamp counter the guest has.
    First,
    /// The other one.
    Second,
}

impl Side {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// One thing for each hypervisor.
#[derive(Debug, Clone)]
pub(crate) struct Pair<T> {
    pub(crate) first: T,
    pub(crate) second: T,
}

impl<T> Pair<T> {
    /// Makes one for each side, in order.
    pub(crate) fn try_new<E>(mut make: impl FnMut(Side) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { first: make(Side::First)?, second: make(Side::Second)? })
    }

    /// The one of a side.
    pub(crate) const fn get(&self, side: Side) -> &T {
        match side {
            Side::First => &self.first,
            Side::Second => &self.second,
        }
    }

    /// The one of a side.
    pub(crate) const fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::First => &mut self.first,
            Side::Second => &mut self.second,
        }
    }

    /// Both, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.first, &self.second].into_iter()
    }
}
