//! P5d, P15: the fuzzed bodies, replayed with the stable toolchain: the corpus, and a few hundred
//! inputs drawn from fixed seeds.

use lameduck::runtime::Seed;
use lameduck_fuzz_bodies::{BODIES, same};
use std::path::Path;

#[test]
fn every_input_of_the_corpus_still_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, body) in BODIES {
        let mut inputs: Vec<_> = std::fs::read_dir(corpus.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            eprint_on_failure(name, &format!("{}", input.display()), || {
                body(&std::fs::read(&input).unwrap());
            });
        }
    }
}

#[test]
fn drawn_inputs_hold() {
    for (name, body) in BODIES {
        for n in 0..150 {
            let input = draw(Seed(n), vocabulary(name));
            eprint_on_failure(name, &format!("drawn input {n}: {input:?}"), || body(&input));
        }
    }
}

#[test]
fn a_client_cannot_tell_the_host_from_hyper() {
    for n in 0..2000 {
        let input = draw_requests(Seed(n));
        eprint_on_failure("same", &format!("drawn requests {n}: {}", input.escape_ascii()), || {
            same(&input);
        });
    }
}

/// Names the input of a body that fails; its own panic names the promise.
fn eprint_on_failure(name: &str, input: &str, body: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    assert!(result.is_ok(), "body {name} fails on {input}");
}

/// Random bytes alone get no further than the first parser; words of the protocol get through.
fn draw(seed: Seed, words: &[&[u8]]) -> Vec<u8> {
    let mut input = Vec::new();
    let length = 8 + seed.nth(0) % 40;
    for n in 1..length {
        let chance = seed.nth(n);
        if n < 8 || chance.is_multiple_of(4) {
            input.push(chance.to_be_bytes()[3]);
        } else {
            let word = usize::try_from(chance >> 8).unwrap_or(0) % words.len();
            input.extend_from_slice(words[word]);
        }
    }
    input
}

/// Requests that a parser mostly accepts: the code after it is of interest here.
fn draw_requests(seed: Seed) -> Vec<u8> {
    let mut taken = 0;
    let mut one_of = |words: &[&'static [u8]]| {
        taken += 1;
        words[usize::try_from(seed.nth(taken) % words.len() as u64).unwrap_or(0)]
    };
    let mut input = Vec::new();
    for _ in 0..3 {
        input.extend_from_slice(one_of(&[
            b"\0", b"\0", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05",
        ]));
    }
    let requests = one_of(&[b"1", b"12", b"123", b"12345678"]).len();
    for _ in 0..requests {
        input.extend_from_slice(one_of(METHODS));
        for _ in 0..one_of(&[b"", b"123456", b"1234567", b"1234567"]).len() {
            input.extend_from_slice(one_of(&[
                b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"h", b"h",
            ]));
        }
        input.extend_from_slice(one_of(&[b"", b"", b"?a=b"]));
        input.extend_from_slice(one_of(&[
            b" HTTP/1.1\r\n",
            b" HTTP/1.1\r\n",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b" HTTP/1.1\n",
        ]));
        input.extend_from_slice(one_of(&[
            b"host: x\r\n",
            b"host: x\r\n",
            b"Host:  x\t \r\n",
            b"host: x:80\r\n",
            b"hOst:x\n",
            b"host: [::1]:80\r\n",
            b"host: a b\r\n",
            b"",
        ]));
        for _ in 0..one_of(&[b"", b"1", b"12"]).len() {
            input.extend_from_slice(one_of(&[
                b"host: x\r\n",
                b"x-a: \xe4\r\nx-A: b\r\n",
                b"connection: close\r\n",
                b"Connection: Keep-Alive\r\n",
                b"connection: Close, x\r\n",
                b"upgrade: x\r\n",
                b"content-length: 0\r\n",
                b"content-length: 2\r\n",
                b"transfer-encoding: chunked\r\n",
                b"content-length: 2\r\ncontent-length: 2\r\n",
                b"content-length: 2\r\ncontent-length: 3\r\n",
                b"content-length: 200000\r\n",
                b"expect: 100-continue\r\n",
                b"x-empty:\r\n",
                b"bad header\r\n",
                b"x-folded: a\r\n b\r\n",
                b"x-space : a\r\n",
                b"x-cr: a\rb\r\n",
                b"x-nul: a\0b\r\n",
                b" x-first: a\r\n",
            ]));
        }
        input.extend_from_slice(one_of(&[
            b"\r\n",
            b"\r\n",
            b"\r\n",
            b"\r\n",
            b"\r\nab",
            b"\r\nab\r\n",
            b"\r\n\r\n",
            b"\r\n\n\n",
            b"\r\n2\r\nab\r\n0\r\n\r\n",
            b"\r\n2\r\nab\r\n0\r\na: b\r\n\r\n",
            b"\r\n0\r\na: b\n\n",
            b"\n",
            b"",
        ]));
    }
    input
}

const METHODS: &[&[u8]] = &[
    b"GET /",
    b"GET /",
    b"GET /",
    b"GET /",
    b"POST /",
    b"HEAD /",
    b"DELETE /",
    b"CONNECT x/",
    b"CONNECT x:80",
    b"GET x/",
    b"GET http://x/",
    b"\r\nGET /",
    b"\nGET /",
    b"\rGET /",
    b"G\0T /",
];

fn vocabulary(name: &str) -> &'static [&'static [u8]] {
    match name {
        "http1" | "raw" | "same" => &[
            b"GET /aaa HTTP/1.1\r\nhost: x\r\n\r\n",
            b"POST /abc HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
            b"POST /abc HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
              5\r\nhello\r\n0\r\n\r\n",
            b"GET /ab HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nho",
            b"HEAD /a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\r\n",
            b"connection: close\r\n",
        ],
        "http2" => &[
            b"\0\0\x0a\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01x\x0f\x0d\x01\x30",
            b"\0\0\x05\x01\x05\0\0\0\x03\x82\x86\x84\x41\x00",
            b"\0\0\x05\x01\x04\0\0\0\x05\x83\x86\x84\x41\x00",
            b"\0\0\x05\0\x01\0\0\0\x05hello",
            b"\0\0\0\x04\x01\0\0\0\0",
            b"\0\0\x08\x06\0\0\0\0\x0012345678",
            b"\0\0\x04\x08\0\0\0\0\0\0\0\xff\xff",
            b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
            b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ],
        "settings" => &[
            b"port=8080\n",
            b"a=5s\n",
            b"b=unix:/x\n",
            b"c=tcp://10.0.0.1:80\n",
            b"d=99999999999999999h\n",
            b"e=\n",
            b"f=0\n",
            b"g=1m 30s\n",
            b"h=[::]:0\n",
        ],
        _ => &[
            b"\x03\x00\x00",
            b"\x01\x00\x00",
            b"\x04\x00\x00",
            b"\x00\x00\x00",
            b"\x05\x00\x00",
            b"\x06\x00\x00",
            b"\x28",
        ],
    }
}
