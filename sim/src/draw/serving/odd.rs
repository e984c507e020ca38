//! Draws requests that are unusual, and responses of a wrong length.

use super::{Dice, Edges, http1_client};
use crate::scenario::{OddRequest, RequestKind, Scenario, WrongLength};

pub(super) fn odd_requests(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    for _ in 0..dice.between(1, 3) {
        let mut odd = dice.pick(&OddRequest::ALL);
        match &mut odd {
            OddRequest::EmptyLine(bytes) => *bytes = dice.pick(&[0, 0, 10, 5_000]),
            OddRequest::GetLength(bytes)
            | OddRequest::GetChunked(bytes)
            | OddRequest::ChunkedLength(bytes) => {
                *bytes = dice.pick(&[1, 100, 70_000]);
            }
            OddRequest::UpgradeBody(bytes) | OddRequest::InvalidHostBody(bytes) => {
                *bytes = dice.pick(&[10, 1_000, 90_000]);
            }
            OddRequest::NoHost
            | OddRequest::TwoHosts
            | OddRequest::InvalidHost
            | OddRequest::Close
            | OddRequest::CloseInCapitals
            | OddRequest::CloseAmongOptions
            | OddRequest::Http10
            | OddRequest::HeadTwoHosts
            | OddRequest::HeadClose
            | OddRequest::HeadHttp10
            | OddRequest::Http10KeepAlive
            | OddRequest::ConnectionOptions
            | OddRequest::TwoConnections
            | OddRequest::AbsoluteTarget
            | OddRequest::LengthZero
            | OddRequest::Expect
            | OddRequest::Upgrade
            | OddRequest::ManyFields
            | OddRequest::TwoLengths(_)
            | OddRequest::SignedLength(_)
            | OddRequest::Asterisk => {}
        }
        let client = http1_client(dice, scenario, edges, RequestKind::Odd(odd));
        scenario.clients.push(client);
    }
}

pub(super) fn wrong_lengths(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    for _ in 0..dice.between(1, 2) {
        let request_kind = RequestKind::Mismatch(dice.pick(&WrongLength::ALL));
        let client = http1_client(dice, scenario, edges, request_kind);
        scenario.clients.push(client);
    }
}
