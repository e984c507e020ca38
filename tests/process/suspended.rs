//! P6, P8: a process that was suspended (SIGSTOP) and continues with expired timers.

use crate::support::{Client, Service, block};
use rustix::process::Signal;
use std::time::Duration;

// The rest of a head arrived while the process was suspended. When it continued its timers had
// expired, and it sent a 408 before it read. It must read first (P6).
#[test]
fn bytes_that_arrived_while_the_process_was_suspended_are_read_before_timers_expire() {
    let mut service = Service::start(&["--header-timeout=500ms", "--lame-duck=0s"]);
    let half = || {
        let mut client = Client::connect(service.main);
        client.send("GET / HTTP/1.1\r\nhost: te");
        client
    };
    let served = |mut clients: Vec<Client>| {
        service.suspend();
        block(Duration::from_millis(1_500));
        for client in &mut clients {
            client.send("st\r\n\r\n");
        }
        service.signal(Signal::CONT);
        for mut client in clients {
            assert_eq!(client.answer().status, 200);
        }
    };
    for _ in 0..3 {
        let clients: Vec<_> = (0..20).map(|_| half()).collect();
        block(Duration::from_millis(100));
        served(clients);
    }
    let clients: Vec<_> = (0..20).map(|_| half()).collect();
    block(Duration::from_millis(100));
    service.signal(Signal::TERM);
    service.wait_for_phase("draining");
    served(clients);
    assert_eq!(service.exit_code(), 0);
}
