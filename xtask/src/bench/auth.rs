//! `cargo xtask bench auth`: what it costs to know who asks, how many log in beside how many passwords
//! Argon2id hashes by itself, and whether the time of a refused login tells that there is such a user.
//!
//! Two processes of `modelyard` take turns: one that knows nobody and lets everyone do everything, and
//! one that has users and keys.

mod page;
mod pairs;

use std::{
    collections::HashMap,
    io::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::{
    contestant::Server,
    load,
    measure::{self, Cost},
    process,
    report::{self, show},
    serve::CLIENTS,
};
use pairs::Pairs;

use crate::{
    http::{self, Connection},
    shell::{self, cargo},
};

const ADMIN: &str = "admin@example.org";
const PASSWORD: &str = "nine correct horses with batteries";
const LOGIN: &str = "/api/v1/auth/login";

/// Users that log in in turn.
const USERS: usize = 32;
/// Clients that log in at once: a core never waits for one of them.
const LOGINS_AT_ONCE: usize = 8;
/// Keys that are shown in turn, so that the gate has forgotten each before it comes again.
const KEYS: usize = 1000;
/// How often each of them is shown.
const ROUNDS: usize = 10;
/// Longer than the gate remembers anybody.
const FORGETS: Duration = Duration::from_secs(1);
/// Refused logins that one account and one address have, both below what locks them.
const PER_ACCOUNT: usize = 3;
const PER_ADDRESS: usize = 16;

/// How somebody shows who it is.
const WAYS: [(&str, &str); 4] = [
    ("nobody", "nobody is known, so nothing"),
    ("key", "a key"),
    ("bearer", "an access token"),
    ("cookie", "a cookie"),
];

/// Routes that cost little by themselves.
const ROUTES: [&str; 2] = ["info", "config"];

/// How the command was called.
#[derive(Debug)]
struct Options {
    /// The day of the run, as it shall stand in `docs/benchmarks.md`; without one nothing is
    /// written.
    date: Option<String>,
    repeats: usize,
    /// How long each load lasts.
    seconds: u64,
    /// Refused logins of known and unknown users that are compared.
    pairs: usize,
}

type Figures = HashMap<String, Vec<f64>>;

/// A header that shows who somebody is.
type Shown = Option<(&'static str, String)>;

pub fn run(arguments: &[&str]) -> Result<()> {
    let options = read(arguments)?;
    shell::run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "modelyard",
        "--bin",
        "modelyard",
    ]))?;
    let example = ["build", "--release", "--package", "xtask", "--example", "bare_argon2"];
    shell::run(&mut cargo(&example))?;

    let mut figures = Figures::new();
    for repeat in 0..options.repeats {
        println!("repeat {} of {}", repeat + 1, options.repeats);
        let before = (process::machine_cpu_time(), process::cpu_time(std::process::id()));
        let began = Instant::now();
        let (open, known) = (start()?, Known::start()?);
        let mut add = |what: &str, figure: f64| {
            println!("  {what:28} {}", show(Some(figure)));
            figures.entry(what.to_owned()).or_default().push(figure);
        };
        requests(&open, &known, repeat, options.seconds, &mut add)?;
        forgotten(&open, &known, &mut add)?;
        logins(&known, options.seconds, &mut add)?;
        // What neither we nor the servers used of the machine: how noisy the run was.
        let machine = process::machine_cpu_time().saturating_sub(before.0);
        let own = process::cpu_time(std::process::id()).saturating_sub(before.1);
        let others = machine.saturating_sub(own).as_secs_f64() / began.elapsed().as_secs_f64();
        add("others", others);
    }
    println!("{} pairs of refused logins, twice", options.pairs);
    let known = Known::start()?;
    known.users("known", options.pairs.div_ceil(PER_ACCOUNT))?;
    let refused = refused_logins(&known, ["known", "other"], 8, options.pairs)?;
    let control = refused_logins(&known, ["third", "ghost"], 9, options.pairs)?;
    let text = page::render(&options, &figures, &refused, &control)?;
    println!("\n{text}");
    if options.date.is_some() {
        report::write("auth", &text)?;
    }
    Ok(())
}

fn read(arguments: &[&str]) -> Result<Options> {
    let mut options = Options { date: None, repeats: 5, seconds: 3, pairs: 2000 };
    let (pairs, rest) = arguments.as_chunks::<2>();
    for [option, value] in pairs {
        match *option {
            "--date" => options.date = Some((*value).to_owned()),
            "--repeats" => options.repeats = value.parse().context("--repeats takes a number")?,
            "--seconds" => options.seconds = value.parse().context("--seconds takes a number")?,
            "--pairs" => options.pairs = value.parse().context("--pairs takes a number")?,
            other => bail!("`cargo xtask bench auth` has no option `{other}`"),
        }
    }
    if !rest.is_empty() || options.repeats == 0 || options.seconds == 0 || options.pairs < 2 {
        bail!("cannot read `{}`: see `cargo xtask help`", arguments.join(" "));
    }
    Ok(options)
}

fn program() -> Command {
    Command::new(shell::target().join("release/modelyard"))
}

/// A server with a database of its own that knows nobody.
fn start() -> Result<Server> {
    let (directory, port) = (TempDir::with_prefix("modelyard-bench-")?, http::free_port()?);
    serve(directory, port)
}

fn serve(directory: TempDir, port: u16) -> Result<Server> {
    let mut command = program();
    command.arg("serve").arg(shell::root().join("examples/dengue"));
    command.args(["--port", &port.to_string(), "--data-dir"]).arg(directory.path().join("data"));
    // So that one client can have many addresses: else one is soon locked out.
    command.env("MODELYARD_SERVER__TRUSTED_PROXIES", "127.0.0.1/32");
    command.current_dir(directory.path());
    Server::start(&mut command, directory, port)
}

/// A server that knows its administrator.
struct Known {
    server: Server,
    bearer: String,
}

impl Known {
    fn start() -> Result<Known> {
        let (directory, port) = (TempDir::with_prefix("modelyard-bench-")?, http::free_port()?);
        let file = directory.path().join("password");
        std::fs::File::create(&file)?.write_all(PASSWORD.as_bytes())?;
        let mut command = program();
        command.args(["admin", "create", "--email", ADMIN, "--password-file"]).arg(&file);
        command.arg("--data-dir").arg(directory.path().join("data"));
        command.arg(shell::root().join("examples/dengue")).current_dir(directory.path());
        shell::read(&mut command)?;
        let server = serve(directory, port)?;
        let body = json!({"email": ADMIN, "password": PASSWORD}).to_string();
        let mut connection = Connection::open(port)?;
        let answer = connection.send("POST", LOGIN, body.as_bytes())?.json()?;
        let token = answer["access_token"].as_str().context("no access token")?;
        Ok(Known { server, bearer: format!("Bearer {token}") })
    }

    /// Makes something, as the administrator.
    fn make(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let shown = [("authorization", self.bearer.as_str())];
        let body = body.to_string();
        Connection::open(self.server.port)?.send_with("POST", path, &shown, body.as_bytes())?.json()
    }

    fn key(&self, number: usize) -> Result<Shown> {
        let body = json!({"name": format!("key {number}"), "roles": [{"role": "viewer"}]});
        let made = self.make("/api/v1/keys", &body)?;
        Ok(Some(("x-api-key", made["key"].as_str().context("no key")?.to_owned())))
    }

    fn cookie(&self) -> Result<Shown> {
        let body = json!({"email": ADMIN, "password": PASSWORD, "cookie": true}).to_string();
        let mut connection = Connection::open(self.server.port)?;
        let answer = connection.send("POST", LOGIN, body.as_bytes())?;
        ensure!(answer.status == 200, "a login gave {}", answer.status);
        Ok(Some(("cookie", answer.cookie.context("no cookie")?)))
    }

    fn users(&self, name: &str, count: usize) -> Result<()> {
        for number in 0..count {
            let body = json!({"email": email(name, number), "name": name, "password": PASSWORD});
            self.make("/api/v1/users", &body)?;
        }
        Ok(())
    }
}

fn email(name: &str, number: usize) -> String {
    format!("{name}-{number}@example.org")
}

/// What requests cost, by how who asks is known.
fn requests(
    open: &Server,
    known: &Known,
    repeat: usize,
    seconds: u64,
    add: &mut impl FnMut(&str, f64),
) -> Result<()> {
    let bearer = Some(("authorization", known.bearer.clone()));
    let all: [(&Server, Shown); 4] = [
        (open, None),
        (&known.server, known.key(0)?),
        (&known.server, bearer),
        (&known.server, known.cookie()?),
    ];
    for route in ROUTES {
        let mut ways: Vec<_> = WAYS.iter().zip(&all).collect();
        ways.rotate_left(repeat % WAYS.len());
        for ((way, _), (server, shown)) in ways {
            let path = match route {
                "info" => "/api/v1/info".to_owned(),
                _ => format!("/api/v1/configs/{}", config(server, shown, known)?),
            };
            get(server, &path, shown, Duration::from_millis(300))?;
            let cost = get(server, &path, shown, Duration::from_secs(seconds))?;
            add(&format!("{route}.{way}.cpu_us"), cost.cpu_ms * 1e3);
            add(&format!("{route}.{way}.per_second"), cost.per_second);
        }
    }
    Ok(())
}

/// A config of a server: its id.
fn config(server: &Server, shown: &Shown, known: &Known) -> Result<String> {
    let body = json!({"name": "a config", "data": {}});
    let made = match shown {
        // A viewer and a cookie alone may make none.
        Some(_) => known.make("/api/v1/configs", &body)?,
        None => Connection::open(server.port)?
            .send("POST", "/api/v1/configs", body.to_string().as_bytes())?
            .json()?,
    };
    made["id"].as_str().map(str::to_owned).context("no config has an id")
}

fn get(server: &Server, path: &str, shown: &Shown, time: Duration) -> Result<Cost> {
    measure::cost(server, || {
        load::run(server.port, CLIENTS, time, |connection, _| ask(connection, path, shown))
    })
}

fn ask(connection: &mut Connection, path: &str, shown: &Shown) -> Result<()> {
    let headers: Vec<_> = shown.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = connection.send_with("GET", path, &headers, b"")?;
    ensure!(answer.status == 200, "GET {path} gave {}", answer.status);
    Ok(())
}

/// What requests cost whose sender the gate has forgotten: as many keys in turn as requests, and
/// between two rounds so long that none is remembered. Beside them the same without anybody.
fn forgotten(open: &Server, known: &Known, add: &mut impl FnMut(&str, f64)) -> Result<()> {
    let keys = (0..KEYS).map(|it| known.key(it)).collect::<Result<Vec<_>>>()?;
    for (what, server, shown) in [("nobody", open, vec![None; KEYS]), ("keys", &known.server, keys)]
    {
        // Once before it counts: the use of a key is written down once a minute.
        round(server, &shown)?;
        let before = server.cpu_time();
        for _ in 0..ROUNDS {
            thread::sleep(FORGETS);
            round(server, &shown)?;
        }
        let spent = server.cpu_time().saturating_sub(before);
        let requests = (ROUNDS * KEYS) as f64;
        add(&format!("rounds.{what}.cpu_us"), spent.as_secs_f64() * 1e6 / requests);
    }
    Ok(())
}

/// One request for each that is shown.
fn round(server: &Server, all: &[Shown]) -> Result<()> {
    thread::scope(|scope| {
        let clients: Vec<_> = all
            .chunks(all.len().div_ceil(CLIENTS))
            .map(|shown| {
                scope.spawn(move || {
                    let mut connection = Connection::open(server.port)?;
                    shown.iter().try_for_each(|it| ask(&mut connection, "/api/v1/info", it))
                })
            })
            .collect();
        clients.into_iter().try_for_each(|it| it.join().expect("a client does not panic"))
    })
}

/// Logins that are right and that are not, beside Argon2id by itself.
fn logins(known: &Known, seconds: u64, add: &mut impl FnMut(&str, f64)) -> Result<()> {
    let before = process::cpu_time(std::process::id());
    let mut argon = Command::new(shell::target().join("release/examples/bare_argon2"));
    let printed = shell::read(argon.arg(seconds.to_string()))?;
    // The servers are our children too; they have nothing to do meanwhile.
    let spent = process::cpu_time(std::process::id()).saturating_sub(before);
    let (computed, elapsed) = printed.trim().split_once(' ').context("no figures")?;
    let (computed, elapsed): (f64, f64) = (computed.parse()?, elapsed.parse()?);
    add("argon2.per_second", computed / elapsed);
    add("argon2.cpu_ms", measure::milliseconds(spent) / computed);

    known.users("right", USERS)?;
    known.users("wrong", USERS)?;
    for (block, (what, password, status)) in
        [("right", PASSWORD, 200), ("wrong", "wrong", 401), ("nobody", "wrong", 401)]
            .into_iter()
            .enumerate()
    {
        let cost = measure::cost(&known.server, || {
            let time = Duration::from_secs(seconds);
            load::run(known.server.port, LOGINS_AT_ONCE, time, |connection, number| {
                let email = email(what, number % USERS);
                let address = match status {
                    // From one place: each new one is told to the user.
                    200 => address(0, 0),
                    _ => address(block, number / PER_ADDRESS),
                };
                log_in(connection, &email, password, &address, status)
            })
        })?;
        add(&format!("login.{what}.per_second"), cost.per_second);
        add(&format!("login.{what}.cpu_ms"), cost.cpu_ms);
    }
    Ok(())
}

/// One of many addresses.
fn address(block: usize, number: usize) -> String {
    format!("10.{block}.{}.{}", number / 250, number % 250 + 1)
}

fn log_in(
    connection: &mut Connection,
    email: &str,
    password: &str,
    address: &str,
    status: u16,
) -> Result<()> {
    let body = json!({"email": email, "password": password}).to_string();
    let headers = [("x-forwarded-for", address)];
    let answer = connection.send_with("POST", LOGIN, &headers, body.as_bytes())?;
    ensure!(answer.status == status, "a login of {email} gave {}", answer.status);
    Ok(())
}

/// Logins with a wrong password, of somebody and of somebody else, one after the other. None meets a
/// lock, and the names are of one length.
fn refused_logins(known: &Known, names: [&str; 2], block: usize, count: usize) -> Result<Pairs> {
    let mut connection = Connection::open(known.server.port)?;
    let mut pairs = Pairs::default();
    for number in 0..count {
        let mut took = [0.0; 2];
        // Thue-Morse: which comes first goes with nothing else, such as addresses that are new.
        let first = (number.count_ones() % 2) as usize;
        for which in [first, 1 - first] {
            let email = email(names[which], number / PER_ACCOUNT);
            let address = address(block, number * 2 / PER_ADDRESS);
            let asked = Instant::now();
            log_in(&mut connection, &email, "wrong", &address, 401)?;
            took[which] = asked.elapsed().as_secs_f64() * 1e6;
        }
        pairs.0.push((took[0], took[1]));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn options_are_read() {
        let options = read(&["--repeats", "3", "--pairs", "100"]).unwrap();
        assert_eq!((options.repeats, options.pairs, options.date), (3, 100, None));
        assert!(read(&["--pairs", "1"]).is_err());
        assert!(read(&["--repeats"]).is_err());
    }

    #[test]
    fn addresses_do_not_repeat() {
        let all: HashSet<_> = (0..2000).map(|it| address(1, it)).collect();
        assert_eq!(all.len(), 2000);
        assert!(all.iter().all(|it| it.parse::<std::net::Ipv4Addr>().is_ok()));
    }
}
