//! What a client received, in a few characters.

use std::fmt::Write as _;

/// Names each HTTP/1 response by its status, with `c` if it announces the close, and `..` if it is
/// not complete. Repetitions are counted.
pub(super) fn http1(mut bytes: &[u8]) -> String {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let (name, rest) = next_response(bytes);
        responses.push(name);
        bytes = rest;
    }
    let mut text = String::new();
    for same in responses.chunk_by(|one, next| one == next) {
        let separator = if text.is_empty() { "" } else { " " };
        match same.len() {
            1 => write!(text, "{separator}{}", same[0]).unwrap(),
            count => write!(text, "{separator}{count}x{}", same[0]).unwrap(),
        }
    }
    if text.is_empty() { "-".to_owned() } else { text }
}

fn next_response(bytes: &[u8]) -> (String, &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head_length)) = head.parse(bytes) else {
        return ("..".to_owned(), &[]);
    };
    let field = |name: &str| {
        let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| std::str::from_utf8(field.value).unwrap().to_owned())
    };
    let close = if field("connection").as_deref() == Some("close") { "c" } else { "" };
    let name = format!("{}{close}", head.code.unwrap());
    let body = &bytes[head_length..];
    let length = match field("content-length") {
        Some(length) => length.parse().unwrap(),
        None if field("transfer-encoding").is_some() => {
            let end = b"0\r\n\r\n";
            body.windows(end.len()).position(|at| at == end).map_or(usize::MAX, |at| at + end.len())
        }
        None => 0,
    };
    match body.split_at_checked(length) {
        Some((_, rest)) => (name, rest),
        None => (format!("{name}.."), &[]),
    }
}

/// Names each HTTP/2 frame but SETTINGS and WINDOW_UPDATE: `H1` for the headers of stream 1, `.`
/// after the last frame of a stream, with the last stream of a GOAWAY and the code of a RST_STREAM.
pub(super) fn http2(mut bytes: &[u8]) -> String {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let end = if head[3] <= 1 && head[4] & 1 == 1 { "." } else { "" };
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            frames.push("..".to_owned());
            break;
        };
        match head[3] {
            0 => frames.push(format!("D{stream}{end}")),
            1 => frames.push(format!("H{stream}{end}")),
            3 => frames.push(format!("R{stream}/{}", payload[3])),
            6 => frames.push("P".to_owned()),
            7 => {
                let last = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                let last = if last == u32::MAX >> 1 { "max".to_owned() } else { last.to_string() };
                frames.push(format!("G{last}/{}", payload[7]));
            }
            _ => {}
        }
        bytes = rest;
    }
    if frames.is_empty() { "-".to_owned() } else { frames.join(" ") }
}
