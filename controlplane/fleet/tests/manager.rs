//! Goal: calls to the Manager are signed as it wants them, bounded, and read with their problems.
//! Method: a Manager of the test's own on loopback, which checks signatures by its own code and
//! answers what each test tells it.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use proxy_core::token::Secret;
use proxy_fleet::manager::{Manager, ManagerError, ManagerSettings};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const ACCESS: &str = "AKTEST";
const SECRET: &str = "secret of the test";
const FOLDER: Uuid = Uuid::from_u128(0x1111_2222);
const USER: Uuid = Uuid::from_u128(0x3333);

/// Status and body; `None`: the connection is cut.
type Reply = Option<(u16, String)>;

struct Fake {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers the replies in turn, and the last one for ever.
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (replies, log) = (replies.clone(), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &replies, &log));
            }
        });
        Self { url, seen }
    }

    fn manager(&self, change: impl FnOnce(&mut ManagerSettings)) -> Manager {
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = self.url.parse().unwrap();
        let mut settings = ManagerSettings::new(endpoint, ACCESS, Secret::new(SECRET));
        change(&mut settings);
        Manager::new(settings).unwrap()
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn serve(stream: TcpStream, replies: &[Reply], log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = HashMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let number = {
            let mut log = log.lock().unwrap();
            log.push(format!("{line}{}", String::from_utf8(body).unwrap()));
            log.len() - 1
        };
        let reply = replies.get(number).unwrap_or(replies.last().unwrap());
        let Some((status, text)) = reply else { return };
        let (status, text) = match is_signed(&line, &headers) {
            true => (*status, text.clone()),
            false => (
                401,
                r#"{"type": "https://x/unauthorized", "title": "no"}"#.into(),
            ),
        };
        let length = text.len();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}");
        writer.write_all(head.as_bytes()).unwrap();
    }
}

/// What the Manager does with the headers, written down once more.
fn is_signed(line: &str, headers: &HashMap<String, String>) -> bool {
    let of = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let mac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes()
    };
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let nothing: String = Sha256::digest([])
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let text = format!(
        "{method}\n{target}\n{}\nhost:{}\ncontent-type:{}\nx-backendai-version:{}\n{nothing}",
        of("date"),
        of("host"),
        of("content-type"),
        of("x-backendai-version"),
    );
    let day = of("date")[..10].replace('-', "");
    let key = mac(&mac(SECRET.as_bytes(), &day), of("host"));
    let want: String = mac(&key, &text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let credential = format!("BackendAI signMethod=HMAC-SHA256, credential={ACCESS}:{want}");
    of("authorization") == credential
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn good(body: &str) -> Vec<Reply> {
    vec![Some((200, body.to_owned()))]
}

#[test]
fn answers_become_values() {
    let fake = Fake::start(good(r#"{"version": "v9.20250722", "manager": "26.9.6"}"#));
    assert_eq!(
        block(fake.manager(|_| ()).version()).unwrap().manager,
        "26.9.6"
    );
    let folder = format!(
        r#"{{"data": {{"vfolder": {{"id": "{FOLDER}", "host": "local:volume1",
        "quota_scope_id": "user:{USER}", "user": "{USER}", "group": null, "permission": "rw",
        "ownership_type": "user", "status": "ready"}}}}}}"#
    );
    let fake = Fake::start(good(&folder));
    let found = block(fake.manager(|_| ()).folder(FOLDER)).unwrap();
    assert_eq!(
        (found.user, found.permission.as_deref()),
        (Some(USER), Some("rw"))
    );
    let asked = fake.seen.lock().unwrap()[0].clone();
    assert!(asked.starts_with("POST /admin/gql ") && asked.contains(&FOLDER.to_string()));
    let shared = format!(
        r#"{{"shared": [{{"vfolder_id": "x", "perm": "ro", "shared_to":
        {{"uuid": "{USER}", "email": "u@example.com"}}}}]}}"#
    );
    let fake = Fake::start(good(&shared));
    let shares = block(fake.manager(|_| ()).shares(FOLDER)).unwrap();
    assert_eq!(
        (shares[0].user, shares[0].permission.as_str()),
        (USER, "ro")
    );
    let key = format!(
        r#"{{"data": {{"keypair": {{"access_key": "{ACCESS}", "user_id": "u@example.com",
        "user": "{USER}", "is_active": true, "is_admin": false}}}}}}"#
    );
    let fake = Fake::start(good(&key));
    assert_eq!(block(fake.manager(|_| ()).who_am_i()).unwrap().user, USER);
}

#[test]
fn refusals_carry_what_the_manager_says() {
    let problem = r#"{"type": "https://api.backend.ai/probs/x", "title": "Because."}"#;
    for (status, want, calls) in [
        (400, "refuses: 400 Because.", 1),
        (403, "denies: 403 Because.", 1),
        (404, "does not know /folders/_/shared", 1),
        (500, "failed: 500 Because.", 3),
        (503, "failed: 503 Because.", 3),
    ] {
        let fake = Fake::start(vec![Some((status, problem.to_owned()))]);
        let error = block(fake.manager(|_| ()).shares(FOLDER))
            .unwrap_err()
            .to_string();
        assert!(error.contains(want), "{status}: {error}");
        assert_eq!(fake.calls(), calls, "{status}");
    }
    let fake = Fake::start(good(r#"{"data": {"vfolder": null}}"#));
    let error = block(fake.manager(|_| ()).folder(FOLDER)).unwrap_err();
    assert!(matches!(error, ManagerError::Unknown(_)), "{error}");
    let fake = Fake::start(good("not json"));
    let error = block(fake.manager(|_| ()).folder(FOLDER)).unwrap_err();
    assert!(matches!(error, ManagerError::Strange(_)), "{error}");
}

#[test]
fn a_wrong_key_is_denied_and_never_shown() {
    let fake = Fake::start(good("{}"));
    let manager = fake.manager(|settings| settings.secret_key = Secret::new("another"));
    let error = block(manager.version()).unwrap_err();
    assert!(matches!(error, ManagerError::Denied(_)), "{error}");
    let shown = format!("{error:?} {manager:?}");
    assert!(
        !shown.contains("another") && !shown.contains(ACCESS),
        "{shown}"
    );
}

#[test]
fn what_breaks_is_tried_again_and_then_left_alone() {
    let body = r#"{"version": "v9", "manager": "26.9.6"}"#.to_owned();
    let fake = Fake::start(vec![None, Some((502, String::new())), Some((200, body))]);
    assert!(block(fake.manager(|_| ()).version()).is_ok());
    let fake = Fake::start(vec![Some((500, String::new()))]);
    let manager = fake.manager(|settings| {
        settings.failures_max = 4;
        settings.rest = Duration::from_secs(600);
    });
    block(async {
        assert!(matches!(
            manager.version().await,
            Err(ManagerError::Failed(_))
        ));
        assert!(matches!(
            manager.version().await,
            Err(ManagerError::Resting(_))
        ));
        assert!(matches!(
            manager.version().await,
            Err(ManagerError::Resting(_))
        ));
    });
    assert_eq!(fake.calls(), 4);
}

#[test]
fn a_silent_manager_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fake = Fake {
        url: format!("http://{}", listener.local_addr().unwrap()),
        seen: Arc::default(),
    };
    let manager = fake.manager(|settings| {
        settings.call_time_max = Duration::from_millis(100);
        settings.retries_max = 0;
    });
    assert!(matches!(block(manager.version()), Err(ManagerError::Late)));
}
