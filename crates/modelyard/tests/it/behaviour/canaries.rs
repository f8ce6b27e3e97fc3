//! Secrets go in everywhere, and come out nowhere: not in the log, however much it says, not in answers,
//! not in the database, not in files, in none of the ways in which bytes are written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use http::Method;
use modelyard_kernel::db::{Dialect, Row, Value as Stored, query};
use modelyard_kernel::{Background, Clock};
use modelyard_testkit::{TestClient, TestDatabase, TestResponse, on_both_databases};
use ring::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::support::post_office::{mailed, post_office};
use crate::support::program::{BINARY, Program, Project, plain, serve};
use crate::support::{files, text, until};

const ADA: &str = "ada@example.org";
const LOGIN: &str = "/api/v1/auth/login";

/// What was put in, and what came out.
#[derive(Default)]
struct Canaries {
    secrets: Vec<(String, Vec<u8>)>,
    heard: Vec<(String, Vec<u8>)>,
}

impl Canaries {
    /// A secret of a kind; it is made, so that it is nowhere else.
    fn plant(&mut self, kind: &str) -> String {
        let number = self.secrets.len();
        let secret = format!("Wren {kind}/{number:02}+{}!", STANDARD.encode(kind));
        self.know(kind, &secret);
        secret
    }

    /// A secret that the program has made.
    fn know(&mut self, kind: &str, secret: &str) {
        assert!(secret.len() >= 16, "{kind}: found by chance");
        self.secrets.push((kind.to_owned(), secret.as_bytes().to_vec()));
    }

    fn hear(&mut self, place: impl Into<String>, said: impl Into<Vec<u8>>) {
        self.heard.push((place.into(), said.into()));
    }

    fn hear_answer(&mut self, place: String, answer: &TestResponse) {
        self.hear(place, [format!("{:?}\n", answer.headers).as_bytes(), &answer.bytes].concat());
    }

    /// Where what was put in came out, and what is around it there.
    fn found(&self) -> Vec<String> {
        let (mut any_case, mut one_case) = (Needles::new(), Needles::new());
        for (kind, secret) in &self.secrets {
            let (in_any, in_one) = written(secret);
            in_any.into_iter().for_each(|it| any_case.add(kind, it));
            in_one.into_iter().for_each(|it| one_case.add(kind, it));
        }
        let mut found = BTreeSet::new();
        for (place, said) in &self.heard {
            let lower = said.to_ascii_lowercase();
            for (kind, at) in any_case.found(&lower).into_iter().chain(one_case.found(said)) {
                let around = &said[at.saturating_sub(120)..said.len().min(at + 80)];
                found.insert(format!("{kind} is in {place}: {}", String::from_utf8_lossy(around)));
            }
        }
        found.into_iter().collect()
    }
}

/// What is looked for, all of it at once: there is much to look at.
struct Needles<'a> {
    /// Whether something begins with these three bytes.
    begins: Vec<bool>,
    by_beginning: HashMap<usize, Vec<(&'a str, Vec<u8>)>>,
}

impl<'a> Needles<'a> {
    fn new() -> Self {
        Self { begins: vec![false; 1 << 24], by_beginning: HashMap::new() }
    }

    fn add(&mut self, kind: &'a str, needle: Vec<u8>) {
        let begins = beginning(&needle);
        self.begins[begins] = true;
        self.by_beginning.entry(begins).or_default().push((kind, needle));
    }

    /// The kinds that are in a text, each where it is first.
    fn found(&self, text: &[u8]) -> BTreeMap<&'a str, usize> {
        let mut found = BTreeMap::new();
        for at in 0..text.len().saturating_sub(2) {
            let begins = beginning(&text[at..at + 3]);
            if !self.begins[begins] {
                continue;
            }
            for (kind, needle) in &self.by_beginning[&begins] {
                if text[at..].starts_with(needle) {
                    found.entry(*kind).or_insert(at);
                }
            }
        }
        found
    }
}

fn beginning(it: &[u8]) -> usize {
    usize::from(it[0]) << 16 | usize::from(it[1]) << 8 | usize::from(it[2])
}

/// The ways in which bytes are written: those in which case does not matter, in lower case, and others.
fn written(secret: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let hex: String = secret.iter().map(|it| format!("{it:02x}")).collect();
    let percent = |space: &str| -> String {
        let one = |it: &u8| match it {
            b' ' => space.to_owned(),
            it if it.is_ascii_alphanumeric() => char::from(*it).to_string(),
            it => format!("%{it:02x}"),
        };
        secret.iter().map(one).collect()
    };
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    let texts = [hex, percent("%20"), percent("+"), list.join(", "), list.join(",")];
    let any_case = texts.into_iter().map(String::into_bytes).chain([secret.to_vec()]);
    let any_case = any_case.map(|it| it.to_ascii_lowercase()).collect();
    let mut one_case = Vec::new();
    for engine in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            // As a part of something longer, of which the first and last characters are shared.
            let padded = [&vec![0; before][..], secret].concat();
            let whole = padded.len() / 3 * 4;
            let encoded = engine.encode(&padded);
            one_case.push(encoded.as_bytes()[(before * 4).div_ceil(3)..whole].to_vec());
        }
    }
    (any_case, one_case)
}

#[test]
fn what_is_written_in_any_way_is_found() {
    let secret = "A secret/of some+length";
    let ways: [(&str, String); 9] = [
        ("plain", format!("x{secret}y")),
        ("in lower case", secret.to_lowercase()),
        ("hex", secret.bytes().map(|it| format!("{it:02X}")).collect()),
        ("base64", STANDARD.encode(secret)),
        ("base64 of a part", STANDARD.encode(format!("user:{secret}:more"))),
        ("base64url of a part", URL_SAFE.encode(format!("\0user\0{secret}?"))),
        ("percent", "A%20secret%2Fof%20some%2Blength".to_owned()),
        ("form", "A+secret%2fof+some%2blength".to_owned()),
        ("bytes", format!("{:?}", secret.as_bytes())),
    ];
    for (way, said) in ways {
        let mut it = Canaries::default();
        it.know("a secret", secret);
        it.hear("something else", "A secret of some length");
        it.hear(way, said);
        let found = it.found();
        assert_eq!(found.len(), 1, "{way}: {found:?}");
        assert!(found[0].contains(way), "{found:?}");
    }
}

/// Asks, and remembers what came back.
struct Asking<'a> {
    client: &'a TestClient,
    canaries: &'a mut Canaries,
}

impl Asking<'_> {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> TestResponse {
        let answer = self.ask_quietly(method.clone(), path, headers, body).await;
        self.canaries.hear_answer(format!("the answer to {method} {path}"), &answer);
        answer
    }

    /// Asks for what has to show a secret, once; or with one in the address, which the contract has every
    /// refusal repeat to whoever asked.
    async fn ask_quietly(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> TestResponse {
        let mut request = self.client.request(method, path);
        if headers.iter().all(|it| it.0 != "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(body).send().await
    }

    async fn post(&mut self, path: &str, token: &str, body: Value) -> TestResponse {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] =
            if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
        self.ask(Method::POST, path, headers, body.to_string()).await
    }

    async fn post_quietly(&self, path: &str, token: &str, body: Value) -> TestResponse {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] =
            if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
        self.ask_quietly(Method::POST, path, headers, body.to_string()).await
    }

    /// Tokens of a login.
    async fn login(&mut self, email: &str, password: &str, code: Option<&str>) -> (String, String) {
        let body = json!({"email": email, "password": password, "code": code});
        let body = self.post_quietly(LOGIN, "", body).await.expect(200).body;
        let tokens = (text(&body["access_token"]), text(&body["refresh_token"]));
        self.canaries.know("access token", &tokens.0);
        self.canaries.know("refresh token", &tokens.1);
        tokens
    }
}

/// The code of an authenticator (RFC 6238) some steps from now.
pub(super) fn code(secret: &str, steps: u64) -> String {
    let mut bits = 0_u64;
    let (mut count, mut key) = (0, Vec::new());
    for symbol in secret.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            _ => symbol - b'2' + 26,
        };
        bits = bits << 5 | u64::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            key.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    let now = u64::try_from(Clock::system().now().micros() / 1_000_000).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = hmac::sign(&key, &(now / 30 + steps).to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 0xf);
    let four: [u8; 4] = tag.as_ref()[at..at + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

/// Every row of every table, as text and bytes.
async fn dump(database: &TestDatabase, canaries: &mut Canaries) {
    let mut conn = database.db.conn().await.unwrap();
    for table in modelyard_schema::TABLES.iter().chain(modelyard_schema::PASSING) {
        let all = query(format!("SELECT * FROM {table}")).with_names();
        for row in all.fetch_all::<Row>(&mut conn).await.unwrap() {
            for (column, value) in row.into_columns() {
                let bytes = match value {
                    Stored::Text(it) => it.into_bytes(),
                    Stored::Bytes(it) => it,
                    other => format!("{other:?}").into_bytes(),
                };
                canaries.hear(format!("{table}.{column}"), bytes);
            }
        }
    }
}

fn hear_files(directory: &Path, canaries: &mut Canaries) {
    for file in files(directory) {
        let read = fs_err::read(&file).unwrap();
        canaries.hear(file, read);
    }
}

/// What a command of the program says.
async fn command(
    canaries: &mut Canaries,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> bool {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    let mut command = plain(command);
    command.envs(environment.iter().copied()).env("LOG_LEVEL", "trace");
    let output = command.output().await.unwrap();
    canaries.hear(format!("what {arguments:?} says"), [output.stdout, output.stderr].concat());
    output.status.success()
}

/// Everything that can be asked with a secret in a place where none belongs.
async fn misuse(it: &mut Asking<'_>, token: &str) {
    let bodies = [
        "auth/login",
        "auth/refresh",
        "auth/revoke",
        "auth/introspect",
        "auth/$step-up",
        "auth/$forgot-password",
        "auth/$reset-password",
        "auth/$accept-invitation",
        "account/$change-password",
        "account/factor/$confirm",
        "users",
    ];
    let bearer = format!("Bearer {token}");
    for path in bodies {
        let path = format!("/api/v1/{path}");
        let secret = it.canaries.plant("misplaced");
        let fields = [
            "email",
            "password",
            "code",
            "token",
            "refresh_token",
            "old_password",
            "new_password",
            "name",
            "cookie",
            "factor_required",
        ];
        let shapes: [fn(&str) -> Value; 4] = [
            |it| json!([it]),
            |it| json!({"deep": it}),
            |it| json!(it.repeat(200)),
            |it| json!(format!("{it}\u{0}")),
        ];
        for shape in shapes {
            let wrong = shape(&secret);
            let body: Value = fields.iter().map(|field| (*field, wrong.clone())).collect();
            let headers = [("authorization", bearer.as_str())];
            it.ask(Method::POST, &path, &headers, body.to_string()).await;
        }
        for (kind, body) in [
            ("application/json", format!("{{\"password\": \"{secret}\", ")),
            ("application/json", format!("\"{secret}\"")),
            ("application/json", secret.clone()),
            ("text/plain", secret.clone()),
            ("application/x-www-form-urlencoded", format!("password={secret}&token={secret}")),
            ("multipart/form-data; boundary=x", format!("--x\r\n\r\n{secret}\r\n--x--")),
        ] {
            let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
            it.ask(Method::POST, &path, &headers, body).await;
        }
    }
    let secret = it.canaries.plant("in a header");
    for name in [
        "authorization",
        "x-api-key",
        "cookie",
        "x-csrf-token",
        "x-anything",
        "if-match",
        "idempotency-key",
        "origin",
        "forwarded",
        "accept",
        "range",
    ] {
        for value in [
            secret.clone(),
            format!("Bearer {secret}"),
            format!("Basic {}", STANDARD.encode(&secret)),
        ] {
            it.ask(Method::GET, "/api/v1/configs", &[(name, &value)], "").await;
            it.ask(Method::POST, LOGIN, &[(name, &value)], "{}").await;
        }
    }
}

on_both_databases! {
    async fn a_secret_that_goes_in_comes_out_nowhere(database: TestDatabase) {
        let mut canaries = Canaries::default();
        let background = Background::default();
        let (port, mut mails) = post_office(&background).await;
        let project = Project::new("touch model\n");

        // What the settings have.
        let mut secret = [0; 32];
        secret[..26].copy_from_slice(b"Wren of the access secret!");
        canaries.secrets.push(("access.secret".to_owned(), secret.to_vec()));
        let (mail, settings_key) = (canaries.plant("mail.password"), canaries.plant("auth.api_keys"));
        let settings_key = settings_key.replace(' ', "-");
        canaries.know("auth.api_keys", &settings_key);
        let mut url = url::Url::parse(&database.url).unwrap();
        if database.db.dialect() == Dialect::Postgres {
            let password = canaries.plant("database.url").replace(['/', ' ', '+'], "-");
            canaries.know("database.url", &password);
            url.set_password(Some(&password)).unwrap();
        }
        let settings = project.data().with_extension("toml");
        fs_err::write(&settings, format!(
            "[auth]\napi_keys = [\"{settings_key}\"]\n[access]\nsecret = \"{}\"\n\
             [mail]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\nuser = \"mailer\"\n\
             password = \"{mail}\"\n[database]\nurl = \"{url}\"\n[logging]\nlevel = \"trace\"\n",
            STANDARD.encode(secret),
        )).unwrap();
        let config = settings.to_str().unwrap();
        let (directory, data) = (project.path(), project.data());
        let of = [directory.to_str().unwrap(), "--config", config, "--data-dir", data.to_str().unwrap()];

        // The first administrator.
        let password = canaries.plant("password");
        let file = project.data().with_extension("password");
        fs_err::write(&file, &password).unwrap();
        let create = ["admin", "create", "--email", ADA, "--password-file", file.to_str().unwrap()];
        assert!(command(&mut canaries, &[&create[..], &of].concat(), &[]).await, "{}", String::from_utf8_lossy(&canaries.heard[0].1));
        assert!(command(&mut canaries, &[&["settings"][..], &of].concat(), &[]).await);
        for wrong in ["MODELYARD_ACCESS__SECRET", "MODELYARD_DATABASE__URL", "MODELYARD_SERVER__TLS_KEY"] {
            let wrong_secret = canaries.plant("a setting that is wrong");
            let value = match wrong {
                "MODELYARD_DATABASE__URL" => format!("postgres://u:{}@127.0.0.1:1/x", wrong_secret.replace(['/', ' ', '+'], "-")),
                _ => wrong_secret.clone(),
            };
            canaries.know("a setting that is wrong", &wrong_secret.replace(['/', ' ', '+'], "-"));
            if wrong != "MODELYARD_SERVER__TLS_KEY" {
                assert!(!command(&mut canaries, &[&["user", "list"][..], &of].concat(), &[(wrong, &value)]).await);
            }
        }

        let log = project.data().with_extension("log");
        let mut serve = serve(&directory, &project.data());
        serve.args(["--config", config]).stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
        serve.env("MODELYARD_SERVER__DRAIN", "100ms").env("MODELYARD_JOBS__DRAIN", "1ms");
        let mut program = Program::start(serve).await;
        let client = program.client.clone();
        let mut it = Asking { client: &client, canaries: &mut canaries };
        use_everything(&mut it, &password, &settings_key, &mut mails).await;

        // What is no secret is found, so that it is known to be looked for.
        let shown = "Robin in plain sight";
        let (token, _) = it.login("root@example.org", &text(&json!(ROOT)), None).await;
        it.post("/api/v1/configs", &token, json!({"name": shown, "data": {}})).await.expect(201);
        it.ask(Method::GET, "/metrics", &[("authorization", &format!("Bearer {token}"))], "").await.expect(200);
        it.ask(Method::GET, &format!("/{}", shown.replace(' ', "-")), &[], "").await;
        let _checked_below = it.ask(Method::GET, "/api/v1/configs", &[("x-api-key", &settings_key)], "").await.expect(200);

        // While it runs SQLite has what is new in a file of its own.
        dump(&database, &mut canaries).await;
        hear_files(database.dir(), &mut canaries);
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(20)).await;
        hear_files(database.dir(), &mut canaries);
        hear_files(&project.data(), &mut canaries);
        let log = fs_err::read(&log).unwrap();
        assert!(log.len() > 20_000, "it says everything");
        canaries.hear("the log", log);

        let found = canaries.found();
        assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
        let mut control = Canaries { secrets: Vec::new(), heard: canaries.heard };
        control.know("a name", shown);
        control.know("a path", &shown.replace(' ', "-"));
        let found = control.found().join("\n");
        let mut places = vec!["a name is in configs.name", "a path is in the log", "a name is in the answer"];
        if database.db.dialect() == Dialect::Sqlite {
            places.push("test.db");
        }
        for place in places {
            assert!(found.contains(place), "{place}: {found}");
        }
        background.shutdown(Duration::from_secs(5)).await;
    }
}

/// A password that is not looked for, of somebody who is to look.
const ROOT: &str = "nine correct horses with batteries";

/// Every way to show who one is, right and wrong.
async fn use_everything(
    it: &mut Asking<'_>,
    password: &str,
    settings_key: &str,
    mails: &mut mpsc::Receiver<String>,
) {
    let (token, refresh) = it.login(ADA, password, None).await;
    let root = json!({"email": "root@example.org", "name": "Root", "password": ROOT});
    let root = it.post("/api/v1/users", &token, root).await.expect(201).body;
    let path = format!("/api/v1/roles/$bindings/{}", text(&root["id"]));
    let bearer = format!("Bearer {token}");
    let admin = json!([{"role": "system-admin"}]).to_string();
    it.ask(Method::PUT, &path, &[("authorization", &bearer)], admin).await.expect(200);

    // Logins that fail, also with the password in the place of the address.
    for number in 0..3 {
        let wrong = it.canaries.plant("wrong password");
        let email = if number == 0 { ADA } else { "nobody@example.org" };
        it.post(LOGIN, "", json!({"email": email, "password": wrong, "code": wrong}))
            .await
            .expect(401);
        it.post(LOGIN, "", json!({"email": wrong, "password": "x"})).await.expect(401);
        it.post("/api/v1/auth/$forgot-password", "", json!({"email": wrong})).await;
    }

    // Keys: right, nearly right, and in every wrong place.
    let key = json!({"name": "k", "roles": [{"role": "viewer"}]});
    let key = it.post_quietly("/api/v1/keys", &token, key).await.expect(201).body;
    let (id, key) = (text(&key["id"]), text(&key["key"]));
    it.canaries.know("key", &key);
    let rotated = format!("/api/v1/keys/{id}/$rotate");
    let rotated = it.post_quietly(&rotated, &token, json!({})).await.body;
    it.canaries.know("rotated key", &text(&rotated["key"]));
    let nearly = format!("{}{}", &key[..key.len() - 1], if key.ends_with('A') { 'B' } else { 'A' });
    it.canaries.know("nearly a key", &nearly);
    for shown in [key.as_str(), &nearly, &key[..key.len() - 3], settings_key, &token, &refresh] {
        let ways = [
            ("x-api-key", shown.to_owned()),
            ("authorization", format!("Bearer {shown}")),
            ("authorization", format!("Basic {}", STANDARD.encode(format!("user:{shown}")))),
            ("cookie", format!("__Host-session={shown}; session={shown}; modelyard={shown}")),
        ];
        for (name, value) in ways {
            it.ask(Method::GET, "/api/v1/configs", &[(name, &value)], "").await;
            it.ask(Method::POST, "/api/v1/configs", &[(name, &value)], "{\"name\": 1}").await;
        }
        let encoded: String = shown.bytes().map(|it| format!("%{it:02X}")).collect();
        for path in [
            format!("/api/v1/configs?api_key={encoded}&token={encoded}&access_token={encoded}"),
            format!("/api/v1/configs?page=x&password={encoded}"),
            format!("/reset-password?token={encoded}"),
            format!("/nowhere?key={encoded}"),
        ] {
            it.ask_quietly(Method::GET, &path, &[("authorization", &bearer)], "").await;
            it.ask_quietly(Method::GET, &path, &[], "").await;
        }
    }
    for shown in [&key, &nearly, &token, &refresh] {
        for path in [
            format!("/reset-password/{shown}"),
            format!("/api/v1/keys/{shown}"),
            format!("/api/v1/roles/{shown}"),
            format!("/api/v1/users/{shown}"),
            format!("/{shown}"),
        ] {
            it.ask_quietly(Method::GET, &path, &[("authorization", &bearer)], "").await;
            it.ask_quietly(Method::GET, &path, &[], "").await;
        }
    }

    // Tokens: looked at, taken back, used again.
    for shown in [&token, &refresh, &key] {
        it.post("/api/v1/auth/introspect", &token, json!({"token": shown})).await;
    }
    let turned = json!({"refresh_token": refresh});
    let turned = it.post_quietly("/api/v1/auth/refresh", "", turned).await.expect(200).body;
    it.canaries.know("access token", &text(&turned["access_token"]));
    it.canaries.know("refresh token", &text(&turned["refresh_token"]));
    it.post("/api/v1/auth/refresh", "", json!({"refresh_token": refresh})).await.expect(401);
    it.post("/api/v1/auth/revoke", "", json!({"token": turned["refresh_token"]})).await;

    // A browser.
    let browser = json!({"email": ADA, "password": password, "cookie": true});
    let browser = it.post_quietly(LOGIN, "", browser).await.expect(200);
    let cookie = browser.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    it.canaries.know("cookie", cookie.split_once('=').unwrap().1);
    let csrf = text(&browser.body["csrf_token"]);
    it.canaries.know("CSRF token", &csrf);
    let shown = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    it.ask(Method::GET, "/api/v1/configs", &shown[..1], "").await.expect(200);
    it.ask(Method::POST, "/api/v1/configs", &shown[..1], "{}").await.expect(403);
    it.ask(Method::POST, "/api/v1/auth/logout", &shown, "").await;
    it.ask(Method::GET, "/api/v1/account", &shown[..1], "").await;

    // A second factor.
    let (token, _) = it.login(ADA, password, None).await;
    let setup = it.post_quietly("/api/v1/account/factor", &token, json!({})).await.expect(200).body;
    let factor = text(&setup["secret"]);
    it.canaries.know("secret of a second factor", &factor);
    it.post("/api/v1/account/factor/$confirm", &token, json!({"code": "Wren of a code"})).await;
    let confirm = json!({"code": code(&factor, 0)});
    let confirm = it.post_quietly("/api/v1/account/factor/$confirm", &token, confirm).await;
    let codes: Vec<String> =
        confirm.expect(200).body["recovery_codes"].as_array().unwrap().iter().map(text).collect();
    for code in &codes {
        it.canaries.know("recovery code", code);
    }
    let (token, _) = it.login(ADA, password, Some(&codes[0])).await;
    let again = json!({"email": ADA, "password": password, "code": codes[0]});
    it.post(LOGIN, "", again).await.expect(401);
    let step = json!({"password": password, "code": code(&factor, 1)});
    it.post("/api/v1/auth/$step-up", &token, step).await;

    // Links that are mailed.
    let bo = json!({"email": "bo@example.org", "name": "Bo"});
    let bo = it.post("/api/v1/users", &token, bo).await.expect(201).body;
    let invite = format!("/api/v1/users/{}/$invite", text(&bo["id"]));
    it.post(&invite, &token, json!({})).await.expect(202);
    let link = mailed(mails).await;
    it.canaries.know("invitation", &link);
    let (weak, chosen) = ("short", it.canaries.plant("password of an invitation"));
    let accept = |password: &str| json!({"token": link, "name": "Bo", "password": password});
    it.post("/api/v1/auth/$accept-invitation", "", accept(weak)).await.expect(400);
    it.post("/api/v1/auth/$accept-invitation", "", accept(&chosen)).await.expect(204);
    it.post("/api/v1/auth/$accept-invitation", "", accept(&chosen)).await.expect(400);
    let (own, _) = it.login("bo@example.org", &chosen, None).await;
    let new = it.canaries.plant("changed password");
    let wrong = it.canaries.plant("wrong old password");
    for (old, new, status) in [(&wrong, &new, 403), (&chosen, &new, 204)] {
        let change = json!({"old_password": old, "new_password": new});
        it.post("/api/v1/account/$change-password", &own, change).await.expect(status);
    }
    let forgot = json!({"email": "bo@example.org"});
    it.post("/api/v1/auth/$forgot-password", "", forgot).await.expect(202);
    let link = mailed(mails).await;
    it.canaries.know("reset", &link);
    let reset = it.canaries.plant("password of a reset");
    let path = format!("/reset-password/{link}");
    it.ask_quietly(Method::GET, &path, &[], "").await;
    let body = json!({"token": link, "password": reset});
    it.post("/api/v1/auth/$reset-password", "", body.clone()).await.expect(204);
    it.post("/api/v1/auth/$reset-password", "", body).await.expect(400);
    it.login("bo@example.org", &reset, None).await;
    let client = it.client.clone();
    until("mails are sent", async || {
        let health = client.get("/health").await;
        health.status == 200 && mails.is_empty()
    })
    .await;
    misuse(it, &token).await;
}
