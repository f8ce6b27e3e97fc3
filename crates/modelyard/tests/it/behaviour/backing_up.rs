//! Backups as an operator makes them.

use std::time::Duration;

use http::Method;
use modelyard_testkit::run;
use rustix::process::Signal;
use tokio::process::Command;

use crate::support::files;
use crate::support::program::{BINARY, Program, Project, plain};

#[test]
fn a_backup_that_lacks_content_says_what_and_is_no_success() {
    run(async {
        let project = Project::new("");
        let mut program = Program::start(project.serve()).await;
        let upload = program.client.request(Method::POST, "/api/v1/artifacts/$upload");
        upload.body(vec![7; 100_000]).send().await.expect(201);
        program.signal(Signal::TERM);
        program.ended(Duration::from_secs(20)).await;

        let backup = async |name: &str| {
            let mut command = Command::new(BINARY);
            command.args(["db", "backup", name, "--data-dir"]).arg(project.data());
            command.current_dir(project.path());
            plain(command).output().await.unwrap()
        };
        let whole = backup("whole.zip").await;
        assert_eq!(whole.status.code(), Some(0), "{whole:?}");

        let blobs = project.data().join("blobs");
        let object = files(&blobs).pop().unwrap();
        fs_err::write(&object, "damaged").unwrap();
        let lacking = backup("lacking.zip").await;
        assert_eq!(lacking.status.code(), Some(1), "{lacking:?}");
        let said = String::from_utf8(lacking.stderr).unwrap();
        let key = object.strip_prefix(&format!("{}/", blobs.display())).unwrap();
        assert!(said.lines().any(|it| it == format!("damaged or gone: {key}")), "{said}");
        assert!(said.contains("lacks 1 object"), "{said}");
        assert!(project.path().join("lacking.zip").exists());
    });
}
