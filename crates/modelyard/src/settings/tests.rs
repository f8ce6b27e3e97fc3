use std::time::Duration;

use super::{Options, Settings};

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("modelyard.toml");
    fs_err::write(&path, file).unwrap();
    let options = Options { file: Some(path), ..Options::default() };
    let environment = environment.iter().map(|it| (it.0.to_owned(), it.1.to_owned()));
    let shorten = |error: super::SettingsError| {
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    Settings::from_sources(&options, environment).map_err(shorten)
}

#[test]
fn defaults_are_complete_and_a_file_changes_what_it_names() {
    let settings = load("[server]\nport = 8080\nrequest_timeout = \"5s\"\n[service]\nid = 3\n", &[]);
    let settings = settings.unwrap();
    assert_eq!(settings.server.port, 8080);
    assert_eq!(settings.server.request_timeout, Duration::from_secs(5));
    assert_eq!(settings.server.host, "127.0.0.1");
}

#[test]
fn what_is_unknown_or_mistyped_is_named_with_its_line() {
    let wrong = |file, environment: &[(&str, &str)]| load(file, environment).unwrap_err();
    assert_eq!(
        wrong("[server]\n\nprot = 1\n", &[]),
        "modelyard.toml:3: there is no setting `server.prot`, did you mean `server.port`?"
    );
    assert_eq!(
        wrong("[server]\nport = \"x\"\n", &[]),
        "modelyard.toml:2: `server.port` is a whole number, not a text"
    );
    assert_eq!(
        wrong("", &[("MODELYARD_SERVER__PORT", "x")]),
        "variable MODELYARD_SERVER__PORT: `server.port` is a whole number"
    );
    assert_eq!(
        wrong("", &[("MODELYARD_JOBS__CONCURENCY", "1")]),
        "variable MODELYARD_JOBS__CONCURENCY: there is no setting `jobs.concurency`, did you mean `jobs.concurrency`?"
    );
    assert!(wrong("[server]\nport = 70000\n", &[]).contains("whole number"));
    assert!(wrong("[server]\ndrain = \"soon\"\n", &[]).contains("duration"));
}

#[test]
fn the_environment_wins_over_the_file_and_ours_over_the_contracts() {
    let environment = [
        ("PORT", "1111"),
        ("MODELYARD_SERVER__PORT", "2222"),
        ("HOST", "0.0.0.0"),
        ("SERVICEKIT_API_KEYS", "one, two"),
        ("DATABASE_URL", "sqlite+aiosqlite:///data/chapkit.db"),
        ("MODELYARD_WORKSPACE", "not a setting"),
    ];
    let settings = load("[server]\nport = 3333\nhost = \"h\"\n", &environment).unwrap();
    assert_eq!((settings.server.port, settings.server.host.as_str()), (2222, "0.0.0.0"));
    assert_eq!(settings.auth.api_keys, ["one", "two"]);
    assert_eq!(settings.database.url, "sqlite:data/chapkit.db");
}

#[test]
fn secrets_are_masked_and_origins_shown() {
    let environment =
        [("SERVICEKIT_API_KEYS", "canary-1"), ("DATABASE_URL", "postgres://u:canary-2@h/db")];
    let file = "[registration]\nkey = \"canary-3\"\n[blobs.options]\naws_secret = \"canary-4\"\n";
    let settings = load(file, &environment).unwrap();
    let shown = format!("{:?}", settings.effective());
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("variable SERVICEKIT_API_KEYS"));
    assert_eq!(settings.blobs.options, [("aws_secret".to_owned(), "canary-4".to_owned())]);
}

#[test]
fn a_key_file_without_keys_does_not_open_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs_err::write(&path, "# nothing yet\n").unwrap();
    let file = format!("[auth]\napi_key_file = \"{}\"\n", path.display());
    assert!(load(&file, &[]).unwrap_err().contains("at least one key"));
    fs_err::write(&path, "secret # of the first client\n").unwrap();
    assert_eq!(load(&file, &[]).unwrap().auth.api_keys, ["secret"]);
}
