//! What an operator types, and what is said back.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use modelyard_testkit::run;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::files;
use crate::support::program::{BINARY, Program, Project, plain, serve};

async fn modelyard(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(directory);
    plain(command).output().await.unwrap()
}

fn said(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// What a program that serves this has said in its log when it ends.
async fn log_of(mut command: Command) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    command.stderr(Stdio::from(std::fs::File::create(&path).unwrap()));
    let mut program = Program::start(command).await;
    program.signal(Signal::TERM);
    assert_eq!(program.ended(Duration::from_secs(8)).await.code(), Some(0));
    fs_err::read_to_string(&path).unwrap()
}

#[test]
fn a_stop_while_the_database_does_not_answer_is_a_stop() {
    run(async {
        // Takes connections, and says nothing on them.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("postgres://u:s@{}/x", silent.local_addr().unwrap());
        for (url, signal) in
            [("postgres://u:s@127.0.0.1:1/x", Signal::TERM), (&silent, Signal::INT)]
        {
            let project = Project::new("");
            let mut command = project.serve();
            command.args(["--database", url]).env("LOG_LEVEL", "debug").stderr(Stdio::piped());
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            // It holds the directory first, then looks for the database.
            let held = project.data().join("node");
            crate::support::until("it starts", async || held.is_file()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
            kill_process(pid, signal).unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(3), child.wait()).await;
            assert_eq!(ended.expect("it ends").unwrap().code(), Some(0), "{url}");
            drop(lines);
            // Nobody holds the directory any more.
            let mut program = Program::start(project.serve()).await;
            program.signal(Signal::TERM);
            assert_eq!(program.ended(Duration::from_secs(8)).await.code(), Some(0));
        }
    });
}

#[test]
fn looking_at_a_database_that_is_not_there_makes_none() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        for arguments in [
            &["db", "status"][..],
            &["db", "backup", "x.zip"],
            &["user", "disable", "ada@example.org"],
            &["key", "list"],
            &["role", "show", "viewer"],
        ] {
            let output = modelyard(directory.path(), arguments).await;
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let error = said(&output.stderr);
            assert!(error.contains("there is no database at .modelyard/modelyard.db; "), "{error}");
        }
        assert_eq!(files(directory.path()), Vec::<String>::new());
        assert!(!directory.path().join(".modelyard").exists());
    });
}

#[test]
fn commands_for_the_database_read_the_settings_of_the_project_as_serve_does() {
    run(async {
        let project = Project::new("");
        let manifest = project.path().join("modelyard.toml");
        let elsewhere = project.path().parent().unwrap().join("elsewhere");
        let settings = format!("\n[data]\ndir = \"{}\"\n", elsewhere.display());
        let text = fs_err::read_to_string(&manifest).unwrap() + &settings;
        fs_err::write(&manifest, text).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("serve").arg(project.path()).args(["--port", "0"]);
        let mut program = Program::start(plain(command)).await;
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(8)).await;

        let directory = project.path().parent().unwrap().to_owned();
        let status = modelyard(&directory, &["db", "status", "project"]).await;
        assert_eq!(status.status.code(), Some(0), "{status:?}");
        assert!(!said(&status.stdout).contains("pending"), "{status:?}");
        let backup = modelyard(&directory, &["db", "backup", "x.zip", "project"]).await;
        assert_eq!(backup.status.code(), Some(0), "{backup:?}");
        let settings = modelyard(&directory, &["settings", "project"]).await;
        let shown = said(&settings.stdout);
        assert!(
            shown.contains("elsewhere") && shown.contains("project/modelyard.toml:"),
            "{shown}"
        );
    });
}

#[test]
fn all_that_is_wrong_in_a_file_is_said_at_once() {
    run(async {
        let project = Project::new("");
        let manifest = project.path().join("modelyard.toml");
        let text = fs_err::read_to_string(&manifest).unwrap();
        fs_err::write(&manifest, text + "\n[server]\nprot = 1\ndrain = \"soon\"\n[jbos]\n")
            .unwrap();
        let output = modelyard(&project.path(), &["serve", "."]).await;
        let error = said(&output.stderr);
        assert_eq!(error.lines().count(), 3, "{error}");
        for part in ["`server.prot`", "`server.drain`", "`jbos`"] {
            assert!(error.contains(part), "{error}");
        }
    });
}

#[test]
fn a_door_is_not_opened_to_the_network_without_an_identity() {
    run(async {
        let project = Project::new("");
        let mut command = project.serve();
        command.args(["--host", "0.0.0.0"]);
        let output = command.output().await.unwrap();
        assert!(!output.status.success(), "{output:?}");
        let error = said(&output.stderr);
        for part in ["0.0.0.0", "`scripts`", "`modelyard admin create`", "`auth.api_keys`"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(said(&output.stdout), "");
        for (host, keys) in [("0.0.0.0", "sesame"), ("127.0.0.1", "")] {
            let mut command = project.serve();
            command.args(["--host", host]).env("SERVICEKIT_API_KEYS", keys);
            log_of(command).await;
        }
    });
}

#[test]
fn mails_whose_links_lead_nowhere_are_not_sent() {
    run(async {
        let project = Project::new("");
        fs_err::write(project.path().join("password"), "a password\n").unwrap();
        let serve = |host: &str| {
            let mut command = project.serve();
            command.args(["--host", host]).env("SERVICEKIT_API_KEYS", "sesame");
            command.env("MODELYARD_MAIL__HOST", "mail.example.org");
            command.env("MODELYARD_MAIL__USER", "models");
            command.env("MODELYARD_MAIL__PASSWORD_FILE", project.path().join("password"));
            command
        };
        let output = serve("0.0.0.0").output().await.unwrap();
        assert!(!output.status.success(), "{output:?}");
        let error = said(&output.stderr);
        assert!(error.contains("`server.public_url`"), "{error}");
        log_of(serve("127.0.0.1")).await;
        let mut command = serve("0.0.0.0");
        command.env("MODELYARD_SERVER__PUBLIC_URL", "https://models.example.org");
        log_of(command).await;
    });
}

#[test]
fn a_period_type_that_older_orchestrators_refuse_is_warned_of() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let project = "name: simple\nentry_points:\n  train:\n    command: \"true {train_data} {model}\"\n  predict:\n    command: \"cp {future_data} {out_file}\"\n";
        for (more, warned) in [("", true), ("supported_period_type: month\n", false)] {
            fs_err::write(directory.path().join("MLproject"), format!("{project}{more}")).unwrap();
            let log = log_of(serve(directory.path(), &directory.path().join("data"))).await;
            assert_eq!(log.contains("the period type is `any`"), warned, "{log}");
        }
    });
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named_once() {
    run(async {
        let project = Project::new("");
        let mut command = Command::new(BINARY);
        command.arg("serve").arg(project.path()).args(["--port", "0", "--data-dir", "/proc/none"]);
        let output = plain(command).output().await.unwrap();
        let error = said(&output.stderr);
        assert_eq!(error.matches("/proc/none").count(), 1, "{error}");
        assert_eq!(error.matches("No such file").count(), 1, "{error}");
    });
}
