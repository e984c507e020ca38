//! The statuses that a request expects.

use http::StatusCode;

/// Statuses of a response: a number, several numbers, or a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub(super) Vec<(u16, u16)>);

impl From<u16> for Statuses {
    fn from(status: u16) -> Self {
        Self(vec![(status, status)])
    }
}

impl From<StatusCode> for Statuses {
    fn from(status: StatusCode) -> Self {
        status.as_u16().into()
    }
}

impl<const N: usize> From<[u16; N]> for Statuses {
    fn from(statuses: [u16; N]) -> Self {
        Self(statuses.into_iter().map(|status| (status, status)).collect())
    }
}

impl From<std::ops::RangeInclusive<u16>> for Statuses {
    fn from(range: std::ops::RangeInclusive<u16>) -> Self {
        Self(vec![range.into_inner()])
    }
}
