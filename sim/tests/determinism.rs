//! P17: the same seed gives the same trace, byte for byte, also on a fresh thread. A different seed
//! gives a different trace.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

mod common;

use common::{LIMIT, ms, serve_http};
use lameduck::{lifecycle::Signal, runtime::Seed};
use lameduck_sim::{
    Trace,
    client::{
        AfterRequest, ClientId, ExchangePacing, First, Pace, RequestSpec, Retry, Route, Step,
    },
    client::{
        byte_less, connection_per_request, keep_alive, multiplexed, one_request, pipelined, raw,
    },
    network::{
        Attendance::{Awaited, Background},
        HostNetwork, LinkChange, TurmoilNetWorld, TurmoilWorld, World, WorldConfig,
    },
    scripted_signals,
};

/// Runs one client of each kind against a server that is sometimes slow, over a link that is held
/// for a while.
fn one_client_of_each_kind<W: World>(seed: u64) -> Trace {
    let trace = Trace::new();
    let config = WorldConfig::new(Seed(seed)).with_latency(ms(1), ms(20));
    let mut world = W::new(config, trace.clone());
    world.spawn("server", Background, |host| serve_http(host, 80));
    world.change_link_at(ms(300), ("server", "keep-alive"), LinkChange::Hold);
    world.change_link_at(ms(600), ("server", "keep-alive"), LinkChange::Release);

    let asks = |count: u64| {
        (0..count)
            .map(move |n| (ms(n * 37 % 100), RequestSpec::get(format!("/slow/{}", n * 53 % 200))))
    };
    let client_id = |name: &'static str| ClientId::new(name, trace.clone());
    let slow = ExchangePacing {
        head_pause: ms(100),
        upload: Pace::Trickle { bytes: 100, pause: ms(20) },
        download: Pace::Trickle { bytes: 100, pause: ms(10) },
        after: AfterRequest::Fin,
    };
    let me = client_id("keep-alive");
    world.spawn("keep-alive", Awaited, async move |host: W::Host| {
        keep_alive(&me, &Route::new(host, "server", 80), asks(10), Retry::AsAllowed).await;
    });
    let me = client_id("fresh");
    world.spawn("fresh", Awaited, async move |host: W::Host| {
        connection_per_request(&me, &Route::new(host, "server", 80), asks(10)).await;
    });
    let me = client_id("h2");
    world.spawn("h2", Awaited, async move |host: W::Host| {
        multiplexed(&me, &Route::new(host, "server", 80), asks(20), First::AtOnce).await;
    });
    let me = client_id("slow");
    world.spawn("slow", Awaited, async move |host: W::Host| {
        let ask = RequestSpec::post("/echo", vec![b'y'; 1000]);
        let done = one_request(&me, &Route::new(host, "server", 80), &ask, slow).await.unwrap();
        assert_eq!(done.body_bytes, 1000);
    });
    let me = client_id("pipelined");
    world.spawn("pipelined", Awaited, async move |host: W::Host| {
        let asks: Vec<_> = asks(5).map(|(_, ask)| ask).collect();
        let ends = pipelined(&me, &Route::new(host, "server", 80), &asks, ms(0)).await.unwrap();
        assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    });
    let me = client_id("silent");
    world.spawn("silent", Awaited, async move |host: W::Host| {
        byte_less(&me, &Route::new(host, "server", 80), ms(500)).await;
    });
    let me = client_id("raw");
    world.spawn("raw", Awaited, async move |host: W::Host| {
        let script = [
            Step::Send("nonsense\r\n\r\n".into()),
            Step::Pause(ms(10)),
            Step::ReadToEnd { at_most: ms(1000) },
        ];
        raw(&me, &Route::new(host, "server", 80), &script).await;
    });
    let (sender, _signals) = scripted_signals("server", trace.clone());
    world.spawn("operator", Awaited, async move |host: W::Host| {
        sender.play([(ms(250), Signal::Interrupt), (ms(100), Signal::Terminate)]).await;
        assert_eq!(host.name(), "operator");
    });
    world.run(LIMIT).unwrap();
    trace
}

fn on_a_fresh_thread(run: fn(u64) -> Trace, seed: u64) -> (u64, String) {
    let run = move || {
        let trace = run(seed);
        (trace.hash(), trace.text())
    };
    std::thread::Builder::new().spawn(run).unwrap().join().unwrap()
}

fn the_same_seed_gives_the_same_trace(run: fn(u64) -> Trace) {
    let mut hashes = Vec::new();
    for seed in 0..8 {
        let (hash, text) = {
            let trace = run(seed);
            (trace.hash(), trace.text())
        };
        let (again_hash, again) = on_a_fresh_thread(run, seed);
        assert_eq!(text, again, "seed {seed}");
        assert_eq!(hash, again_hash, "seed {seed}: same records, other bytes on the wire");
        hashes.push(hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 8, "different seeds must differ");
}

#[test]
fn the_same_seed_gives_the_same_trace_on_turmoil_net() {
    the_same_seed_gives_the_same_trace(one_client_of_each_kind::<TurmoilNetWorld>);
}

#[test]
fn the_same_seed_gives_the_same_trace_on_turmoil() {
    the_same_seed_gives_the_same_trace(one_client_of_each_kind::<TurmoilWorld>);
}

/// Runs itself in another process, which writes its hashes to a file, and compares them.
#[test]
fn another_process_gives_the_same_trace() {
    const ASKED: &str = "LAMEDUCK_SIM_PRINT_HASH";
    let hashes = || {
        format!(
            "{:016x}{:016x}",
            one_client_of_each_kind::<TurmoilNetWorld>(3).hash(),
            one_client_of_each_kind::<TurmoilWorld>(3).hash()
        )
    };
    if let Some(path) = std::env::var_os(ASKED) {
        std::fs::write(path, hashes()).unwrap();
        return;
    }
    let path = std::env::temp_dir().join(format!("lameduck-sim-{}.hash", std::process::id()));
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_gives_the_same_trace"])
        .env(ASKED, &path)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let theirs = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(theirs, hashes());
}

#[test]
fn every_request_ends_exactly_once() {
    for trace in
        [one_client_of_each_kind::<TurmoilNetWorld>(1), one_client_of_each_kind::<TurmoilWorld>(1)]
    {
        let observed = trace.events("asks");
        assert!(observed.len() >= 46, "{}", trace.text());
        for ask in observed {
            let request = ask.number("request").unwrap();
            let ends = [trace.events("completed"), trace.events("failed")].concat();
            let ends = ends
                .iter()
                .filter(|end| end.actor == ask.actor && end.number("request") == Some(request));
            assert_eq!(ends.count(), 1, "{ask}\n{}", trace.text());
        }
        assert_eq!(trace.events("failed"), [], "{}", trace.text());
    }
}
