//! The real process, with what an operator sets in its environment.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

/// Starts the process on addresses that no other test uses.
fn start(variable: &str, value: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_orders"))
        .env_clear()
        .envs([("APP_ADDR", "127.0.0.1:0"), ("INTERNAL_ADDR", "127.0.0.1:0"), (variable, value)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The version in the environment of the process was ignored.
#[test]
fn the_environment_sets_the_version() {
    for (version, logged) in [("", env!("CARGO_PKG_VERSION")), ("9.9.9", "9.9.9")] {
        let mut process = start("APP_VERSION", version);
        let log = BufReader::new(process.stderr.take().unwrap());
        let bound = log.lines().map_while(Result::ok).find(|line| line.contains("\"bound\""));
        process.kill().unwrap();
        process.wait().unwrap();
        let bound = bound.expect("the line of the start");
        assert!(bound.contains(&format!("\"app_version\":\"{logged}\"")), "{bound}");
    }
}

/// A misspelled log level was exit code 1, and its line was not one for an operator.
#[test]
fn a_bad_log_level_is_one_line_and_exit_code_2() {
    let mut process = start("RUST_LOG", "inof");
    let mut log = String::new();
    process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(2));
    assert!(log.starts_with("error: RUST_LOG=inof: ") && log.lines().count() == 1, "{log}");
}
