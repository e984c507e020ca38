//! P7, P14: the operating system refuses a thread, a descriptor or a system call. The service exits
//! with an error, or it serves and stops as usual.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod limits;
mod syscalls;

use crate::support::service::{ANYWHERE, command};
use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

const REFUSED: &str = "LAMEDUCK_TEST_REFUSED";
const FLAGS: &str = "LAMEDUCK_TEST_FLAGS";
const BINARY: &str = "LAMEDUCK_TEST_BINARY";

/// Returns a command for the service with these flags, which override the usual ones, in a process
/// with the restriction `refused`.
pub(crate) fn service_without(refused: &str, flags: &[&str]) -> Command {
    let mut restricted = Command::new(std::env::current_exe().unwrap());
    restricted.args(["--exact", "refused::restricted", "--nocapture", "--test-threads=1"]);
    for (name, value) in command().get_envs() {
        match value {
            Some(value) => restricted.env(name, value),
            None => restricted.env_remove(name),
        };
    }
    let name = |flag: &str| flag.split('=').next().map(str::to_owned);
    let usual = ANYWHERE.iter().filter(|usual| flags.iter().all(|own| name(own) != name(usual)));
    let flags: Vec<_> = usual.chain(flags).copied().collect();
    restricted
        .env(REFUSED, refused)
        .env(FLAGS, flags.join("\n"))
        .env(BINARY, env!("CARGO_BIN_EXE_lameduck"));
    restricted.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    restricted
}

/// Does nothing without a role. With one, the process restricts itself and executes the service.
#[test]
fn restricted() {
    let Ok(refused) = std::env::var(REFUSED) else { return };
    let mut service = Command::new(std::env::var_os(BINARY).unwrap());
    let (kind, value) = refused.split_once('=').unwrap();
    match kind {
        "descriptors" => limits::descriptors(value),
        "threads" => limits::threads(value, &mut service),
        "calls" => syscalls::refuse(value),
        _ => panic!("{refused}"),
    }
    let flags = std::env::var(FLAGS).unwrap();
    let error = service.args(flags.lines()).env_remove(REFUSED).env_remove(FLAGS).exec();
    panic!("{error}");
}
