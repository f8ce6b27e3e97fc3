use std::collections::BTreeSet;
use std::time::Duration;

use modelyard_ml::project::manifest;

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
    let settings =
        load("[server]\nport = 8080\nrequest_timeout = \"5s\"\n[service]\nid = 3\n", &[]);
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
fn a_hash_within_a_key_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs_err::write(&path, "# ours\nab#cdef  # of the team\n  second\t#x\n#third\n").unwrap();
    let file = format!("[auth]\napi_key_file = \"{}\"\n", path.display());
    assert_eq!(load(&file, &[]).unwrap().auth.api_keys, ["ab#cdef", "second"]);
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

#[test]
fn a_table_that_is_neither_a_setting_nor_the_models_is_refused() {
    let error = load("[service]\nid = 1\n\n[sever]\nport = 1\n", &[]).unwrap_err();
    assert!(
        error.starts_with("modelyard.toml:4: there is no setting `sever`, did you mean `serve"),
        "{error}"
    );
    assert!(load("server = 3\n", &[]).unwrap_err().contains("modelyard.toml:1"));
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let error = load("[server]\nport = = 1\n", &[]).unwrap_err();
    assert!(error.starts_with("modelyard.toml:2: "), "{error}");
    let missing = Options { file: Some("/nowhere/settings.toml".into()), ..Options::default() };
    let error = Settings::from_sources(&missing, []).unwrap_err();
    assert!(
        std::error::Error::source(&error).unwrap().to_string().contains("/nowhere/settings.toml")
    );
}

#[test]
fn empty_variables_are_as_good_as_none() {
    let environment = [("PORT", ""), ("SERVICEKIT_API_KEYS", ""), ("MODELYARD_SERVER__DRAIN", "")];
    let settings = load("[server]\nport = 1234\n", &environment).unwrap();
    assert_eq!(settings.server.port, 1234);
    assert_eq!(settings.server.drain, Duration::from_secs(10));
}

#[test]
fn variables_that_others_set_are_left_alone_and_slips_are_not() {
    let kubernetes = [
        ("MODELYARD_SERVICE_HOST", "10.0.0.1"),
        ("MODELYARD_PORT", "tcp://10.0.0.1:9090"),
        ("MODELYARD_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ("MODELYARD_SERVER_PORT", "tcp://10.0.0.1:9090"),
    ];
    load("", &kubernetes).unwrap();
    let error = load("", &[("MODELYARD_SERVER_PORT", "8080")]).unwrap_err();
    assert!(error.contains("did you mean `MODELYARD_SERVER__PORT`?"), "{error}");
    let error = load("", &[("MODELYARD_SERVER_BODY_LIMIT", "1MiB")]).unwrap_err();
    assert!(error.contains("did you mean `MODELYARD_SERVER__BODY_LIMIT`?"), "{error}");
}

#[test]
fn addresses_of_databases_are_read_as_ours_and_as_sqlalchemys() {
    for (given, ours) in [
        ("", ""),
        ("sqlite:data/x.db", "sqlite:data/x.db"),
        ("sqlite:/data/x.db", "sqlite:/data/x.db"),
        ("sqlite:///data/x.db", "sqlite:data/x.db"),
        ("sqlite+aiosqlite:////data/x.db?timeout=5", "sqlite:/data/x.db"),
        ("sqlite+aiosqlite:///:memory:", "sqlite::memory:"),
        ("sqlite+aiosqlite://", "sqlite::memory:"),
        ("postgresql+asyncpg://u:p@h:5432/d", "postgres://u:p@h:5432/d"),
        ("postgres://h/d?sslmode=require", "postgres://h/d?sslmode=require"),
    ] {
        let options = Options { database: Some(given.to_owned()), ..Options::default() };
        let settings = Settings::with_options(&options).unwrap();
        assert_eq!(settings.database.url, ours, "{given}");
    }
    for given in ["mysql://h/d", "data/x.db", "sqlite:"] {
        let options = Options { database: Some(given.to_owned()), ..Options::default() };
        let error = Settings::with_options(&options).unwrap_err().to_string();
        assert!(error.starts_with("option --database: `database.url` is an address"), "{error}");
    }
}

#[test]
fn levels_of_the_log_are_those_of_python_too_and_nothing_else() {
    let level = |text| load("", &[("LOG_LEVEL", text)]).map(|it| it.logging.level);
    assert_eq!(level("WARNING").unwrap(), "warn");
    assert_eq!(level("CRITICAL").unwrap(), "error");
    assert_eq!(level("info,modelyard_flow=DEBUG").unwrap(), "info,modelyard_flow=debug");
    assert!(level("loud").unwrap_err().starts_with("variable LOG_LEVEL: `logging.level` is "));
    assert!(load("", &[("LOG_FORMAT", "xml")]).is_err());
}

#[test]
fn a_filter_of_the_log_that_is_none_is_refused_at_once() {
    for filter in ["info,hyper[=debug", "[{x}=debug"] {
        let error = load("", &[("LOG_LEVEL", filter)]).map(|it| it.logging.level).unwrap_err();
        assert!(error.starts_with("variable LOG_LEVEL: `logging.level` is "), "{error}");
    }
}

#[test]
fn the_address_that_clients_see_is_one_that_a_path_can_follow() {
    let public =
        |text| load("", &[("MODELYARD_SERVER__PUBLIC_URL", text)]).map(|it| it.server.public_url);
    assert_eq!(load("", &[]).unwrap().server.public_url, None);
    for (given, read) in [
        ("https://models.example.org/", "https://models.example.org"),
        ("http://models:8080/dengue/", "http://models:8080/dengue"),
        ("HTTPS://Models.example.org", "https://models.example.org"),
    ] {
        assert_eq!(public(given).unwrap().unwrap(), read);
    }
    for wrong in
        ["models.example.org", "ftp://models", "https://h/?q", "https://h/#f", "https://u:p@h"]
    {
        let error = public(wrong).unwrap_err();
        assert!(error.contains("`server.public_url` is an `http://`"), "{error}");
    }
}

/// A manifest may carry the settings, so it has to know their tables by name.
#[test]
fn a_manifest_knows_every_section_of_the_settings() {
    let defaults: toml::Table = include_str!("../../settings.default.toml").parse().unwrap();
    let sections: BTreeSet<&str> = defaults.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = manifest::SETTINGS.iter().copied().collect();
    assert_eq!(known, sections);
}

#[test]
fn passwords_in_addresses_are_masked_wherever_they_stand() {
    let environment = [
        ("DATABASE_URL", "postgres://u@h/db?password=canary-1"),
        ("SERVICEKIT_ORCHESTRATOR_URL", "http://u:canary-2@chap:8000/v2/services/$register"),
    ];
    let settings = load("", &environment).unwrap();
    let shown = format!("{:?}", settings.effective());
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("chap:8000"), "{shown}");
}

/// The table in the documentation is what the defaults say, word for word.
#[test]
fn the_documentation_lists_every_setting_with_its_default() {
    let documented = include_str!("../../../../docs/settings.md");
    let mut section = String::new();
    let mut about = Vec::new();
    for line in
        include_str!("../../settings.default.toml").lines().skip_while(|it| !it.starts_with('['))
    {
        if let Some(comment) = line.strip_prefix("# ") {
            about.push(comment);
        } else if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            name.clone_into(&mut section);
            assert!(documented.contains(&format!("## `[{section}]`")), "[{section}]");
            if !about.is_empty() {
                assert!(documented.contains(&about.join(" ")), "{about:?}");
            }
            about.clear();
        } else if let Some((key, default)) = line.split_once(" = ") {
            let row = format!("| `{key}` | `{default}` | {} |", about.join(" "));
            assert!(documented.contains(&row), "docs/settings.md lacks, under [{section}]:\n{row}");
            about.clear();
        }
    }
    let (_, variables) = documented.split_once("| Variable | Setting |\n|---|---|\n").unwrap();
    let rows: Vec<&str> = variables.lines().take_while(|it| it.starts_with('|')).collect();
    let contract = super::load::CONTRACT.map(|(name, key)| format!("| `{name}` | `{key}` |"));
    assert_eq!(rows, contract);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_their_lines() {
    let file = "[server]\nprot = 1\ndrain = \"soon\"\nport = \"x\"\n\n[sever]\na = 1\n\n[jobs]\nmax_pending = true\nconcurrency = 0\n";
    let environment = [("MODELYARD_DATABASE__POOL_SIZE", "many"), ("MODELYARD_SERVER_HOST", "h")];
    let error = load(file, &environment).unwrap_err();
    let said: Vec<&str> = error.lines().collect();
    assert_eq!(
        said,
        [
            "modelyard.toml:2: there is no setting `server.prot`, did you mean `server.port`?",
            "modelyard.toml:3: `server.drain` is a duration such as \"90s\", \"30m\" or \"2h\"",
            "modelyard.toml:4: `server.port` is a whole number, not a text",
            "modelyard.toml:6: there is no setting `sever`, did you mean `server`?",
            "modelyard.toml:10: `jobs.max_pending` is a whole number, not `true` or `false`",
            "modelyard.toml:11: `jobs.concurrency` is a whole number from 1",
            "variable MODELYARD_SERVER_HOST: there is no setting `MODELYARD_SERVER_HOST`, did you mean `MODELYARD_SERVER__HOST`?",
            "variable MODELYARD_DATABASE__POOL_SIZE: `database.pool_size` is a whole number",
        ]
    );
}

#[test]
fn whoever_names_keys_and_gives_none_is_told() {
    for blank in [", ,", " ", ","] {
        for name in ["SERVICEKIT_API_KEYS", "MODELYARD_AUTH__API_KEYS"] {
            let error = load("", &[(name, blank)]).unwrap_err();
            assert!(error.starts_with(&format!("variable {name}: `auth.api_keys` is ")), "{error}");
        }
    }
    assert!(load("[auth]\napi_keys = [\" \"]\n", &[]).unwrap_err().contains("none of them empty"));
    assert!(load("[auth]\napi_keys = [3]\n", &[]).unwrap_err().contains("a list of texts"));
    assert!(load("[auth]\napi_keys = []\n", &[]).unwrap().auth.api_keys.is_empty());
}

#[test]
fn what_a_program_brings_is_better_than_a_default_and_nothing_else() {
    let program = |given: &[(&str, &str)], file: &str, environment: &[(&str, &str)], port| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("modelyard.toml");
        fs_err::write(&path, file).unwrap();
        let program = given.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
        let options = Options { file: Some(path), program, port, ..Options::default() };
        let environment = environment.iter().map(|it| (it.0.to_owned(), it.1.to_owned()));
        Settings::from_sources(&options, environment)
    };
    let brought = [("server.port", "1111"), ("auth.header", "X-Model-Key")];
    let file = "[server]\nport = 2222\n";
    let variable = [("PORT", "3333")];
    for (file, variable, option, port) in [
        ("", &[][..], None, 1111),
        (file, &[], None, 2222),
        (file, &variable, None, 3333),
        (file, &variable, Some(4444), 4444),
    ] {
        let settings = program(&brought, file, variable, option).unwrap();
        assert_eq!((settings.server.port, settings.auth.header.as_str()), (port, "X-Model-Key"));
    }
    let shown = program(&brought, "", &[], None).unwrap();
    let shown = shown.effective().iter().find(|it| it.key == "auth.header").unwrap().clone();
    assert_eq!((shown.value.as_str(), shown.origin.as_str()), ("\"X-Model-Key\"", "program"));
    let error = program(&[("server.prot", "1")], "", &[], None).unwrap_err().to_string();
    assert_eq!(error, "program: there is no setting `server.prot`, did you mean `server.port`?");
}

#[test]
fn networks_are_read_and_a_list_that_names_none_is_refused() {
    let file = "[server]\nadmin_networks = [\"10.1.2.3/16\", \"192.0.2.7\", \"2001:db8::/32\"]\n";
    let server = load(file, &[("MODELYARD_SERVER__TRUSTED_PROXIES", "::1, 10.0.0.0/8")]);
    let server = server.unwrap().server;
    let shown = |it: &[ipnet::IpNet]| it.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&server.admin_networks), ["10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!(shown(&server.trusted_proxies), ["::1/128", "10.0.0.0/8"]);
    assert!(load("", &[]).unwrap().server.admin_networks.is_empty());
    for key in ["admin_networks", "trusted_proxies"] {
        let variable = format!("MODELYARD_SERVER__{}", key.to_uppercase());
        for wrong in [",", " ", "10.0.0.0/33", "here", "0.0.0.0/0", "::/0", "10.0.0.0/8, office"] {
            let error = load("", &[(&variable, wrong)]).unwrap_err();
            let expected = format!("variable {variable}: `server.{key}` is a list of networks");
            assert!(error.starts_with(&expected), "{wrong}: {error}");
        }
        let error = load(&format!("[server]\n{key} = [3]\n"), &[]).unwrap_err();
        assert!(error.starts_with(&format!("modelyard.toml:2: `server.{key}` is ")), "{error}");
    }
}

#[test]
fn origins_are_as_browsers_write_them_and_cookies_are_not_for_all() {
    let origins = |text, cookies| {
        let environment = [
            ("MODELYARD_SERVER__CORS_ORIGINS", text),
            ("MODELYARD_SERVER__CORS_CREDENTIALS", cookies),
        ];
        load("", &environment).map(|it| it.server.cors_origins)
    };
    assert_eq!(
        origins("https://Console.example.org:443/, http://localhost:3000", "true").unwrap(),
        ["https://console.example.org", "http://localhost:3000"]
    );
    assert_eq!(origins("*", "false").unwrap(), ["*"]);
    for wrong in
        ["console.example.org", "https://a.example/path", "ftp://a", "null", "https://u@a", ","]
    {
        let error = origins(wrong, "false").unwrap_err();
        assert!(error.contains("`server.cors_origins` is a list of origins"), "{error}");
    }
    let error = origins("https://a.example, *", "true").unwrap_err();
    assert!(error.contains("`server.cors_credentials` is `false` when"), "{error}");
}

#[test]
fn certificate_and_key_come_together() {
    let both = "[server]\ntls_certificate = \"a.crt\"\ntls_key = \"a.key\"\n";
    let tls = load(both, &[]).unwrap().server.tls.unwrap();
    assert_eq!((tls.certificate.to_str(), tls.key.to_str()), (Some("a.crt"), Some("a.key")));
    assert_eq!(load("", &[]).unwrap().server.tls, None);
    for (given, lacks) in [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")] {
        let error = load(&format!("[server]\n{given} = \"a\"\n"), &[]).unwrap_err();
        let expected = format!("`server.{lacks}` is a file when `server.{given}` is one");
        assert!(error.contains(&expected), "{error}");
    }
    let error = load("[server]\nforwarded_header = \"x-real-ip\"\n", &[]).unwrap_err();
    assert!(error.contains("`x-forwarded-for` or `forwarded`"), "{error}");
}
