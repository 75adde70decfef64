//! A scripted server: speaks just enough of both ports to be an upload's and a download's other
//! end, and misbehaves on request.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use proxy_testkit::wait;
use serde_json::{Value, json};

use crate::program::{BOUND, Home};

/// The secret that the fake wants to see.
const SECRET: &str = "the-manager-secret";

/// What one transfer request does.
#[derive(Clone, Debug)]
pub enum Turn {
    /// What it should.
    Serve,
    /// Takes or sends so many bytes, then closes the connection.
    Cut(usize),
    /// Takes or sends so many bytes, then nothing more.
    Stall(usize),
    /// Answers this at once.
    Refuse(u16, Value),
}

/// What the fake has, and what it has seen.
#[derive(Debug, Default)]
pub struct State {
    /// Coming PATCH and GET requests, in order; afterwards all are served.
    pub turns: VecDeque<Turn>,
    /// Bytes of the upload.
    pub received: Vec<u8>,
    /// Sessions that were made.
    pub sessions: usize,
    /// Bytes of the download.
    pub content: Vec<u8>,
    /// Version of the download.
    pub etag: String,
    /// Method, and offset or range, of every request to the client port.
    pub seen: Vec<String>,
    /// Stalled connections.
    held: Vec<TcpStream>,
}

pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// Starts one, and makes `home` believe that it is the server.
    pub fn start(home: &Home) -> Self {
        let state = Arc::new(Mutex::new(State {
            etag: "\"v1\"".into(),
            ..State::default()
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        // Ends with the test process: it waits for connections and holds nothing else.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        let data = ".local/share/storage-proxy";
        home.private_file(&format!("{data}/secrets/manager-secret"), SECRET.as_bytes());
        let runtime = json!({
            "pid": 1, "version": "fake", "client": url, "manager": url, "internal": url,
        });
        home.private_file(
            &format!("{data}/runtime.json"),
            runtime.to_string().as_bytes(),
        );
        Self(state)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn script(&self, turns: &[Turn]) {
        self.state().turns = turns.iter().cloned().collect();
    }

    /// Waits for something that the fake sees.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        wait::until(what, BOUND, || is(&self.state()).then_some(()));
    }
}

/// One request: its head, and a reader for its body.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl Request {
    fn read(stream: TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
                None => break,
            }
        }
        Some(Self {
            method,
            target,
            headers,
            reader,
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn length(&self) -> usize {
        self.header("content-length")
            .map_or(0, |text| text.parse().unwrap())
    }

    fn answer(self, status: u16, headers: &str, body: &[u8]) {
        let mut reader = self.reader;
        let stream = reader.get_mut();
        let head = format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        // The other side may be gone, which is its right.
        let _ = stream.write_all(head.as_bytes());
        if self.method != "HEAD" {
            let _ = stream.write_all(body);
        }
        // A request that is still being sent is read to its end: closing on it would reset the
        // connection, and the answer could be lost.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let Some(request) = Request::read(stream) else {
        return;
    };
    let path = request
        .target
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    match (request.method.as_str(), path.as_str()) {
        ("HEAD", "/upload") => head(request, &mut state.lock().unwrap()),
        ("PATCH", "/upload") => patch(request, state),
        ("GET", "/download") => get(request, state),
        ("POST", _) => post(request, &path, state),
        _ => request.answer(404, "", b""),
    }
}

fn post(mut request: Request, path: &str, state: &Mutex<State>) {
    let mut body = vec![0; request.length()];
    request.reader.read_exact(&mut body).unwrap();
    if request.header("x-backendai-storage-auth-token") != Some(SECRET) {
        return request.answer(403, "", br#"{"title":"Forbidden"}"#);
    }
    let mut state = state.lock().unwrap();
    let answer = match path {
        "/folder/file/upload" => {
            state.sessions += 1;
            state.received.clear();
            json!({"token": format!("s{}", state.sessions)})
        }
        "/folder/file/download" => json!({"token": "d"}),
        _ => Value::Null,
    };
    request.answer(200, "", answer.to_string().as_bytes());
}

/// Whether the token is that of the newest session.
fn current(request: &Request, state: &State) -> bool {
    request
        .target
        .ends_with(&format!("token=s{}", state.sessions))
}

fn offset_header(state: &State) -> String {
    format!("Upload-Offset: {}\r\n", state.received.len())
}

fn head(request: Request, state: &mut State) {
    state.seen.push("HEAD".into());
    if current(&request, state) {
        request.answer(200, &offset_header(state), b"");
    } else {
        request.answer(404, "", b"");
    }
}

fn next_turn(state: &Mutex<State>, seen: String) -> Turn {
    let mut state = state.lock().unwrap();
    state.seen.push(seen);
    state.turns.pop_front().unwrap_or(Turn::Serve)
}

fn patch(mut request: Request, state: &Mutex<State>) {
    let offset = request.header("upload-offset").unwrap_or("none").to_owned();
    let turn = next_turn(state, format!("PATCH {offset}"));
    if !current(&request, &state.lock().unwrap()) {
        return request.answer(404, "", b"");
    }
    let have = state.lock().unwrap().received.len();
    if offset != have.to_string() {
        return request.answer(409, "", br#"{"title":"Upload Offset Mismatch"}"#);
    }
    let take = match &turn {
        Turn::Serve => request.length(),
        Turn::Cut(bytes) | Turn::Stall(bytes) => *bytes,
        Turn::Refuse(status, body) => {
            let body = body.to_string();
            return request.answer(*status, "", body.as_bytes());
        }
    };
    let mut body = vec![0; take];
    request.reader.read_exact(&mut body).unwrap();
    let mut state = state.lock().unwrap();
    state.received.extend_from_slice(&body);
    match turn {
        Turn::Cut(_) => {}
        Turn::Stall(_) => state.held.push(request.reader.into_inner()),
        _ => request.answer(204, &offset_header(&state), b""),
    }
}

fn get(request: Request, state: &Mutex<State>) {
    let range = request.header("range").unwrap_or("all").to_owned();
    let turn = next_turn(state, format!("GET {range}"));
    let mut state = state.lock().unwrap();
    if let Turn::Refuse(status, body) = turn {
        return request.answer(status, "", body.to_string().as_bytes());
    }
    let size = state.content.len();
    let asked = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'));
    let start: usize = asked.map_or(0, |start| start.parse().unwrap());
    let same = request.header("if-range") == Some(state.etag.as_str());
    let (status, from, range) = if start != 0 && same {
        (
            206,
            start,
            format!("Content-Range: bytes {start}-{}/{size}\r\n", size - 1),
        )
    } else {
        (200, 0, String::new())
    };
    let body = &state.content[from..];
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\nEtag: {}\r\n{range}\r\n",
        body.len(),
        state.etag
    );
    let send = match turn {
        Turn::Cut(bytes) | Turn::Stall(bytes) => bytes.min(body.len()),
        _ => body.len(),
    };
    let mut stream = request.reader.into_inner();
    // The other side may be gone, which is its right.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body[..send]));
    if matches!(turn, Turn::Stall(_)) {
        state.held.push(stream);
    }
}
