//! Socket activation: sockets that the manager bound, listens on, and keeps for the successor.
//!
//! A socket named `internal` is the internal server's. All others are the main server's, and
//! replace its configured addresses. At a stop the listener leaves them as they are, including
//! their queues (P5a).

use crate::{
    os::OsNetwork,
    runtime::{ListenAddress, ServerRole},
    settings::Settings,
};
use std::{
    os::fd::OwnedFd,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// The first inherited descriptor; the others follow it.
const FIRST: usize = 3;
/// More sockets than this are a mistake in `LISTEN_FDS`.
const HANDED_MAX: usize = 64;
/// Name of the internal server's socket (`FileDescriptorName=`).
const INTERNAL: &str = "internal";

/// A descriptor inherited from the manager.
#[derive(Debug)]
pub(super) struct InheritedSocket {
    number: usize,
    name: String,
    descriptor: OwnedFd,
}

/// Counts the sockets that `LISTEN_FDS` hands to this process, and takes none of them. Call it
/// before anything else is opened, so that a wrong `LISTEN_FDS` cannot name one of our descriptors.
pub(crate) fn inspect() {
    let _ = inspected();
}

fn inspected() -> &'static Result<usize, String> {
    static INSPECTED: OnceLock<Result<usize, String>> = OnceLock::new();
    INSPECTED.get_or_init(|| {
        let pid = std::env::var("LISTEN_PID").unwrap_or_default();
        let count = std::env::var("LISTEN_FDS").unwrap_or_default();
        if count.is_empty() || pid != std::process::id().to_string() {
            return Ok(0);
        }
        let number = count.parse::<usize>().ok().filter(|number| *number <= HANDED_MAX);
        let number = number.ok_or_else(|| {
            format!("LISTEN_FDS={count}: expected a number of sockets, at most {HANDED_MAX}")
        })?;
        // A descriptor that is not open must not be owned, and so not be closed.
        match (FIRST..FIRST + number).find(|descriptor| !is_a_socket(*descriptor)) {
            Some(other) => Err(format!("LISTEN_FDS={count}: descriptor {other} is not a socket")),
            None => Ok(number),
        }
    })
}

/// Returns the sockets of this process's environment on the first call; later calls return none.
pub(super) fn take() -> Result<Vec<InheritedSocket>, String> {
    static TAKEN: AtomicBool = AtomicBool::new(false);

    let number = inspected().clone()?;
    if number == 0 || TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let descriptors =
        sd_listen_fds::get().map_err(|error| format!("LISTEN_FDS={number}: {error}"))?;
    Ok(descriptors
        .into_iter()
        .enumerate()
        .map(|(n, (name, descriptor))| InheritedSocket {
            number: FIRST + n,
            name: name.unwrap_or_default(),
            descriptor: descriptor.into_std(),
        })
        .collect())
}

/// Replaces the configured addresses by the inherited sockets. The addresses that require a PROXY
/// header stay: an inherited socket with one of these requires it, too.
pub(super) fn inherit(
    handed: Vec<InheritedSocket>,
    settings: &mut Settings,
    network: &OsNetwork,
) -> Result<(), String> {
    let (mut main, mut proxied, mut internal) = (Vec::new(), Vec::new(), None);
    for InheritedSocket { number, name, descriptor } in handed {
        let role = if name == INTERNAL { ServerRole::Internal } else { ServerRole::Main };
        let address = network.inherit(role, descriptor).map_err(|error| {
            format!("cannot use descriptor {number} ({name:?}) from LISTEN_FDS: {error}")
        })?;
        match role {
            ServerRole::Main if settings.proxy_protocol_addresses.contains(&address) => {
                proxied.push(address);
            }
            ServerRole::Main => main.push(address),
            ServerRole::Internal if internal.is_none() => internal = Some(address),
            ServerRole::Internal => {
                return Err(format!(
                    "descriptor {number} is the second {name:?} in LISTEN_FDNAMES; only one is \
                     allowed"
                ));
            }
        }
    }
    if main.is_empty() && proxied.is_empty() && internal.is_none() {
        return Ok(());
    }
    let text = |addresses: &[ListenAddress]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    crate::log::info!(
        main = text(&main),
        proxy_protocol = text(&proxied),
        internal = text(internal.as_slice()),
        "sockets inherited"
    );
    if !main.is_empty() || !proxied.is_empty() {
        settings.main_addresses = main;
    }
    if let Some(address) = internal {
        settings.internal_address = address;
    }
    Ok(())
}

/// Returns whether the descriptor is open and a socket; yes, where `/proc` is not available.
fn is_a_socket(descriptor: usize) -> bool {
    let links = std::path::Path::new("/proc/self/fd");
    match std::fs::read_link(links.join(descriptor.to_string())) {
        Ok(target) => target.to_string_lossy().starts_with("socket:"),
        Err(_) => !links.exists(),
    }
}
