//! A service with a start hook that waits and a handler that blocks its worker: this test binary,
//! started again with a role.

use crate::support::{MAX_WAIT, block, pause, scratch_path, until};
use axum::{Router, routing::get};
use lameduck::{Hook, Host, Settings, runtime::ListenAddress};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const ROLE: &str = "LAMEDUCK_TEST_VICTIM";
/// With this variable the victim does not call `Builder::systemd`.
pub(crate) const WITHOUT_SYSTEMD: &str = "LAMEDUCK_TEST_WITHOUT_SYSTEMD";

/// A victim. It is killed when it is dropped.
pub(crate) struct Victim {
    pub(crate) child: Child,
    directory: PathBuf,
}

impl Victim {
    /// Starts the victim. Its start hook waits until it is [allowed](Self::allow) to finish.
    pub(crate) fn spawn(variables: &[(&str, &str)]) -> Self {
        let directory = scratch_path("victim");
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "systemd::victim::victim", "--nocapture"])
            .env(ROLE, &directory)
            .envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let victim = Self { child, directory };
        until("the victim's internal server", || victim.ask("internal", "/liveness").ok());
        victim
    }

    /// Lets the start hook finish.
    pub(crate) fn allow(&self) {
        std::fs::write(self.directory.join("go"), "").unwrap();
    }

    /// Returns the response of the main or internal server, up to the end of the connection.
    pub(crate) fn ask(&self, server: &str, path: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.directory.join(server))?;
        stream.set_read_timeout(Some(MAX_WAIT))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Requests that the main server blocks a worker for `span`, and does not wait for the
    /// response.
    pub(crate) fn block_for(&self, span: Duration) -> UnixStream {
        let mut stream = UnixStream::connect(self.directory.join("main")).unwrap();
        let target = format!("/block/{}", span.as_millis());
        stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).unwrap();
        stream
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn victim() {
    let Some(directory) = std::env::var_os(ROLE) else { return };
    live(Path::new(&directory));
}

fn live(directory: &Path) -> ! {
    let address = |name: &str| ListenAddress::Unix(directory.join(name));
    let go = directory.join("go");
    let settings = Settings::default()
        .main_address(address("main"))
        .internal_address(address("internal"))
        .request_timeout(None);
    let builder = match std::env::var_os(WITHOUT_SYSTEMD) {
        Some(_) => Host::builder(settings),
        None => Host::builder(settings).systemd(),
    };
    let host = builder
        .hook(Hook::pair(
            "gate",
            move || async move {
                while !go.exists() {
                    pause(5).await;
                }
                Ok::<(), io::Error>(())
            },
            |()| async { Ok::<(), io::Error>(()) },
        ))
        .serve(Router::new().route(
            "/block/{ms}",
            get(|axum::extract::Path(ms): axum::extract::Path<u64>| async move {
                block(Duration::from_millis(ms));
            }),
        ));
    lameduck::run(|| Ok(host))
}
