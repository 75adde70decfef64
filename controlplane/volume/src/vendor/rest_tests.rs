//! The REST client against a small server of its own, with faults.

use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderMap;
use parking_lot::Mutex;
use proxy_simulators::{Fault, Reply, Request, Route, Simulator, Vendor as Simulated, What};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::auth::{Auth, Basic, BearerToken, HeaderToken, SessionCookie};
use super::call::{Answer, Call, Next};
use super::options::{BackendOption, OptionKind, Options, Secret, optional};
use super::rest::{Bounds, Explained, Rest, Tls, Vendor};
use super::{Cause, VendorError};
use crate::volumes::Spec;

/// Knows one password, and any token that it gave out itself since the last expiry.
#[derive(Default)]
struct Scripted {
    tokens: Mutex<Vec<String>>,
    given: Mutex<u64>,
}

const PASSWORD: &str = "xyzzy";

impl Scripted {
    fn token(&self) -> String {
        let mut given = self.given.lock();
        *given += 1;
        let token = format!("token-{given}");
        self.tokens.lock().push(token.clone());
        token
    }

    fn knows(&self, token: &str) -> bool {
        self.tokens.lock().iter().any(|known| known == token)
    }

    fn login(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let secret = told["password"].as_str().or(ask.header("api-token"));
        if secret != Some(PASSWORD) {
            return self.error(400, "who are you");
        }
        let token = self.token();
        let tokens = json!({"access": token, "refresh": "zyzzyva", "seconds": 3600});
        Reply::json(200, tokens)
            .header("x-auth-token", &token)
            .header("set-cookie", &format!("isisessid={token}; Path=/; Secure"))
            .header("set-cookie", &format!("isicsrf=guard-{token}; Path=/"))
    }

    fn thing(&self, ask: &Request) -> Reply {
        Reply::json(
            200,
            json!({"echo": ask.json(), "query": format!("{:?}", ask.query)}),
        )
    }

    /// Seven items, three a page, by any of three ways to go on.
    fn pages(&self, ask: &Request) -> Reply {
        let from = ask
            .query("from")
            .or(ask.query("token"))
            .or(ask.query("resume"));
        let from: usize = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        let items: Vec<_> = (from..7).take(3).collect();
        let mut body = json!({ "items": items });
        if from + 3 < 7 {
            body["next"] = json!(from + 3);
        }
        Reply::json(200, body)
    }
}

impl Simulated for Scripted {
    const NAME: &'static str = "scripted";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&Scripted, &Request) -> Reply,
        ) -> Route<Scripted> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        const ROUTES: &[Route<Scripted>] = &[
            on("POST", "/base/login", Scripted::login),
            on(
                "POST",
                "/base/renew",
                |sim, ask| match ask.json()["refresh"].as_str() {
                    Some("zyzzyva") => Reply::json(200, json!({"access": sim.token()})),
                    _ => sim.error(401, "too old"),
                },
            ),
            on("GET", "/base/thing", Scripted::thing),
            on("POST", "/base/thing", Scripted::thing),
            on("GET", "/base/pages", Scripted::pages),
        ];
        ROUTES
    }

    fn admit(&self, ask: &Request) -> Result<(), Reply> {
        let login = ask.path == "/base/login" || ask.path == "/base/renew";
        let basic = ask
            .basic()
            .is_some_and(|(_, password)| password == PASSWORD);
        let bearer = ask
            .header("authorization")
            .and_then(|t| t.strip_prefix("Bearer "));
        let header = ask.header("x-auth-token").or(bearer);
        let by_token = header.is_some_and(|token| self.knows(token));
        let by_cookie = ask.cookie("isisessid").is_some_and(|token| {
            let guard = format!("guard-{token}");
            let guarded = ask.header("x-csrf-token") == Some(guard.as_str());
            guarded && ask.header("referer").is_some() && self.knows(token)
        });
        if login || basic || by_token || by_cookie {
            return Ok(());
        }
        Err(self.error(401, "log in"))
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        Reply::json(status, json!({"code": status * 10, "message": text}))
    }

    fn expire(&self) {
        self.tokens.lock().clear();
    }
}

fn explain(answer: &Answer) -> Explained {
    Explained {
        code: answer.body["code"].as_u64().map(|code| code.to_string()),
        text: answer.text("/message").map(str::to_owned),
        cause: None,
    }
}

const TABLE: &[BackendOption] = &[
    optional("verify", OptionKind::Flag, "true", ""),
    optional("ca", OptionKind::Path, "", ""),
];

struct Scene {
    sim: Simulator<Scripted>,
    rest: Rest,
    _home: TempDir,
}

fn bounds() -> Bounds {
    let ms = Duration::from_millis;
    Bounds {
        retry_wait: ms(2),
        retry_wait_max: ms(4),
        pause_min: ms(1),
        refusal_time: ms(50),
        calls_per_second: 10_000,
        ..Bounds::default()
    }
}

fn tls(verify: bool, ca: Option<PathBuf>) -> Tls {
    let mut options = Map::new();
    options.insert("verify".to_owned(), json!(verify));
    if let Some(ca) = ca {
        options.insert("ca".to_owned(), json!(ca));
    }
    let spec = Spec {
        name: "v".to_owned(),
        backend: "scripted".to_owned(),
        path: PathBuf::from("/"),
        fsprefix: ".".to_owned(),
        options,
    };
    Tls::of(&Options::of(&spec, &[TABLE]).unwrap(), "verify", "ca").unwrap()
}

fn rest(url: &str, tls: &Tls, bounds: Bounds, auth: Box<dyn Auth>) -> Rest {
    let vendor = Vendor {
        system: "Scripted",
        backend: "scripted",
        volume: "v".to_owned(),
        base: format!("{url}/base/"),
        explain,
        headers: HeaderMap::new(),
    };
    Rest::new(vendor, tls, bounds, auth).unwrap()
}

fn scene_with(bounds: Bounds, auth: Box<dyn Auth>) -> Scene {
    let home = tempfile::tempdir().unwrap();
    let sim = Simulator::start(Scripted::default(), home.path());
    let tls = tls(true, Some(sim.ca_file().to_owned()));
    let rest = rest(&sim.url(), &tls, bounds, auth);
    Scene {
        sim,
        rest,
        _home: home,
    }
}

fn scene() -> Scene {
    scene_with(bounds(), basic())
}

fn basic() -> Box<dyn Auth> {
    Box::new(Basic::new("admin", &Secret::new(PASSWORD)))
}

fn login(password: &str) -> Call {
    Call::post("log in", "/login")
        .json(json!({ "password": password }))
        .repeatable()
}

fn thing() -> Call {
    Call::get("look", "/thing").query("a b", "c&d")
}

fn make() -> Call {
    Call::post("make", "/thing").json(json!({"x": 1}))
}

#[tokio::test]
async fn a_call_carries_its_parts() {
    let scene = scene();
    let answer = scene.rest.call(make().query("a b", "c&d")).await.unwrap();
    assert_eq!(answer.body["echo"], json!({"x": 1}));
    assert_eq!(answer.text("/query"), Some(r#"[("a b", "c&d")]"#));
    let asked = &scene.sim.requests()[0].request;
    assert!(asked.header("x-request-id").is_some());
    let stats = scene.rest.ledger().stats();
    assert_eq!((stats.calls, stats.tries, stats.failures), (1, 1, 0));
    assert_eq!((stats.in_flight, stats.is_suspended), (0, false));
}

/// What goes wrong, how often; whether the call is a GET; what comes of it, after how many tries.
#[tokio::test]
async fn calls_are_repeated_where_that_is_safe() {
    let ok = None;
    for (what, times, get, want, tries) in [
        (What::Drop, 1, true, ok, 2),
        (What::Drop, 1, false, Some(Cause::Unreachable), 1),
        (What::DropAfter, 1, true, ok, 2),
        (What::DropAfter, 1, false, Some(Cause::Unreachable), 1),
        (What::Status(500), 2, true, ok, 3),
        (What::Status(500), 9, true, Some(Cause::Failed), 4),
        (What::Status(500), 1, false, Some(Cause::Failed), 1),
        (What::Status(429), 1, false, ok, 2),
        (What::Throttle(429, 0), 3, false, ok, 4),
        (What::Throttle(503, 0), 1, false, ok, 2),
        (What::Status(503), 1, false, Some(Cause::Throttled), 1),
        (What::Status(503), 1, true, ok, 2),
        (
            What::Throttle(429, 3600),
            1,
            true,
            Some(Cause::Throttled),
            1,
        ),
        (What::Status(400), 1, true, Some(Cause::Refused), 1),
        (What::Status(401), 1, true, Some(Cause::Unauthorized), 1),
        (What::Status(403), 1, true, Some(Cause::Forbidden), 1),
        (What::Status(404), 1, true, Some(Cause::NotFound), 1),
        (What::Status(409), 1, false, Some(Cause::Conflict), 1),
        (What::Garbage, 1, true, Some(Cause::Malformed), 1),
        (What::Huge(70_000), 1, true, Some(Cause::Malformed), 1),
        (What::Status(302), 1, true, Some(Cause::Malformed), 1),
    ] {
        let bounds = Bounds {
            answer_bytes_max: 65_536,
            ..bounds()
        };
        let scene = scene_with(bounds, basic());
        scene.sim.inject(Fault::new(what.clone()).times(times));
        let call = if get { thing() } else { make() };
        let got = scene.rest.call(call).await;
        let cause = got.as_ref().err().map(|error| error.cause);
        assert_eq!(cause, want, "{what:?} get={get}: {got:?}");
        assert_eq!(scene.sim.count("", "/thing"), tries, "{what:?} get={get}");
    }
}

#[tokio::test]
async fn errors_carry_the_vendors_words_and_stay_short() {
    let scene = scene();
    scene.sim.inject(Fault::new(What::Status(422)));
    let error = scene.rest.call(thing()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "look: Scripted refuses the request: a fault on demand (code 4220)"
    );
    let error = scene
        .rest
        .error("look", Cause::Failed, "x\n".repeat(10_000));
    assert!(error.text.len() <= 400 && !error.text.contains('\n'));
    let nothing = scene
        .rest
        .find(Call::get("look", "/nothing"))
        .await
        .unwrap();
    assert!(nothing.is_none());
}

#[tokio::test]
async fn a_late_answer_is_an_error_in_time() {
    let bounds = Bounds {
        try_time: Duration::from_millis(60),
        tries_max: 2,
        ..bounds()
    };
    let scene = scene_with(bounds, basic());
    let hour = Duration::from_secs(3600);
    scene.sim.inject(Fault::new(What::Delay(hour)).always());
    let error = scene.rest.call(thing()).await.unwrap_err();
    assert_eq!(
        (error.cause, scene.sim.count("", "/thing")),
        (Cause::Late, 2)
    );
    assert_eq!(scene.rest.ledger().stats().in_flight, 0);
}

#[tokio::test]
async fn what_is_down_is_left_alone_until_it_is_back() {
    let bounds = Bounds {
        failures_max: 3,
        tries_max: 1,
        pause_min: Duration::from_millis(200),
        ..bounds()
    };
    let scene = scene_with(bounds, basic());
    scene.rest.call(thing()).await.unwrap();
    scene.sim.stop();
    let mut causes = Vec::new();
    for _ in 0..4 {
        causes.push(scene.rest.call(make()).await.unwrap_err().cause);
    }
    let (gone, left) = (Cause::Unreachable, Cause::Suspended);
    assert_eq!(causes, [gone, gone, gone, left]);
    assert!(scene.rest.ledger().stats().is_suspended);
    scene.sim.resume();
    let mut pace = super::pace::Pace::new(
        Duration::from_millis(5),
        Duration::from_millis(20),
        Duration::from_secs(20),
    );
    while scene.rest.call(thing()).await.is_err() {
        assert!(pace.next().await, "it is asked again after the pause");
    }
    assert!(!scene.rest.ledger().stats().is_suspended);
}

#[tokio::test]
async fn a_restart_is_waited_for() {
    let scene = scene_with(
        Bounds {
            tries_max: 60,
            failures_max: 100,
            retry_wait: Duration::from_millis(20),
            retry_wait_max: Duration::from_millis(20),
            ..bounds()
        },
        basic(),
    );
    scene.sim.stop();
    // A call that changes something may be repeated as long as it cannot be sent.
    let (made, ()) = tokio::join!(scene.rest.call(make()), async { scene.sim.resume() });
    made.unwrap();
    assert_eq!(scene.sim.count("POST", "/thing"), 1);
}

fn flows() -> Vec<(&'static str, Box<dyn Auth>)> {
    let header = HeaderToken {
        login: Call::post("log in", "/login")
            .secret_header("api-token", &Secret::new(PASSWORD))
            .repeatable(),
        header: "x-auth-token",
    };
    let cookie = SessionCookie {
        login: login(PASSWORD),
        session: "isisessid",
        guard: Some(("isicsrf", "x-csrf-token")),
        life: None,
    };
    vec![
        ("header", Box::new(header)),
        ("cookie", Box::new(cookie)),
        ("bearer", Box::new(bearer(PASSWORD, None))),
    ]
}

fn bearer(password: &str, life: Option<Duration>) -> BearerToken {
    BearerToken {
        login: login(password),
        renew: Some(|token| Call::post("renew", "/renew").json(json!({"refresh": token}))),
        access: "/access",
        refresh: Some("/refresh"),
        seconds: life.is_none().then_some("/seconds"),
        life,
    }
}

#[tokio::test]
async fn credentials_are_shared_and_renewed_when_they_are_refused() {
    for (name, auth) in flows() {
        let scene = scene_with(bounds(), auth);
        let calls = std::iter::repeat_with(|| scene.rest.call(thing())).take(5);
        let mut all: Vec<_> = calls.map(Box::pin).collect();
        for call in &mut all {
            call.await.unwrap();
        }
        assert_eq!(scene.sim.count("POST", "/login"), 1, "{name}: one login");
        scene.sim.expire();
        scene.rest.call(make()).await.unwrap();
        let asked = scene.sim.count("POST", "/login") + scene.sim.count("POST", "/renew");
        assert_eq!(asked, 2, "{name}: and one after they were refused");
        assert_eq!(scene.rest.ledger().stats().logins, 2, "{name}");
        scene
            .sim
            .inject(Fault::new(What::Status(401)).on("GET", "/thing").always());
        let error = scene.rest.call(thing()).await.unwrap_err();
        assert_eq!(error.cause, Cause::Unauthorized, "{name}: once per call");
    }
}

#[tokio::test]
async fn tokens_are_renewed_before_they_expire_and_with_the_password_if_need_be() {
    let scene = scene_with(bounds(), Box::new(bearer(PASSWORD, Some(Duration::ZERO))));
    scene.rest.call(thing()).await.unwrap();
    scene.rest.call(thing()).await.unwrap();
    let count = |path| scene.sim.count("POST", path);
    assert_eq!((count("/login"), count("/renew")), (1, 1));
    scene
        .sim
        .inject(Fault::new(What::Status(401)).on("POST", "/renew"));
    scene.rest.call(thing()).await.unwrap();
    assert_eq!((count("/login"), count("/renew")), (2, 2));
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_for_a_while() {
    let auth = bearer("wrong", None);
    let scene = scene_with(bounds(), Box::new(auth));
    for _ in 0..3 {
        let error = scene.rest.call(thing()).await.unwrap_err();
        assert_eq!(
            (error.cause, error.operation),
            (Cause::Unauthorized, "look")
        );
    }
    assert_eq!(scene.sim.count("POST", "/login"), 1);
    let mut pace = super::pace::Pace::new(
        Duration::from_millis(20),
        Duration::from_millis(20),
        Duration::from_secs(20),
    );
    while scene.sim.count("POST", "/login") < 2 {
        assert!(pace.next().await, "later it is");
        scene.rest.call(thing()).await.unwrap_err();
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let scene = scene();
    let next = |answer: &Answer| answer.body["next"].as_u64().map(|at| at.to_string());
    type Go = fn(String) -> Next;
    let ways: [Go; 3] = [
        |at| Next::Link(format!("https://elsewhere/base/pages?from={at}")),
        |at| Next::Query("token", at),
        |at| Next::QueryAlone("resume", at),
    ];
    for go in ways {
        let call = Call::get("list", "/pages").query("limit", "3");
        let all = scene
            .rest
            .list(call, "/items", |a| next(a).map(go))
            .await
            .unwrap();
        assert_eq!(all, (0..7).map(Value::from).collect::<Vec<_>>());
    }
    assert_eq!(scene.sim.count("GET", "/pages"), 9);
    let forever = |_: &Answer| Some(Next::Query("token", "0".to_owned()));
    let call = Call::get("list", "/pages");
    let error = scene.rest.list(call, "/items", forever).await.unwrap_err();
    assert_eq!(error.text, "a list without end");
}

#[tokio::test]
async fn certificates_are_verified_unless_that_is_switched_off() {
    let scene = scene();
    let stranger = tempfile::tempdir().unwrap();
    let other = Simulator::start(Scripted::default(), stranger.path());
    for (tls, want) in [
        (tls(true, None), false),
        (tls(true, Some(other.ca_file().to_owned())), false),
        (tls(true, Some(scene.sim.ca_file().to_owned())), true),
        (tls(false, None), true),
    ] {
        let rest = rest(&scene.sim.url(), &tls, bounds(), basic());
        let got: Result<Answer, VendorError> = rest.call(thing()).await;
        assert_eq!(got.is_ok(), want, "{tls:?}");
        if let Err(error) = got {
            assert_eq!(
                (error.cause, rest.ledger().stats().tries),
                (Cause::Unreachable, 1)
            );
            let text = error.to_string();
            assert!(text.contains("the option ca names a file"), "{text}");
        }
    }
}

/// Takes what the log would show.
#[derive(Clone, Default)]
struct Taken(std::sync::Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Taken {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_shows_calls_and_no_secrets() {
    // For the whole process: with one for this thread alone, other tests decide what is logged.
    let taken = Taken::default();
    let writer = taken.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    for (_, auth) in flows().into_iter().chain([("basic", basic())]) {
        let scene = scene_with(bounds(), auth);
        scene.rest.call(thing()).await.unwrap();
        scene.sim.inject(Fault::new(What::Status(500)).always());
        scene.rest.call(thing()).await.unwrap_err();
    }
    let log = String::from_utf8(taken.0.lock().clone()).unwrap();
    for part in [
        "operation=\"look\"",
        "volume=\"v\"",
        "status=200",
        "elapsed_ms=",
        "request_id=",
    ] {
        assert!(log.contains(part), "{part} is in the log");
    }
    for secret in [PASSWORD, "token-1", "zyzzyva", "eHl6enk"] {
        assert!(!log.contains(secret), "{secret} is not in the log");
    }
}
