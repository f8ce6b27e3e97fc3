//! What the documentation tells people to type, typed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use modelyard_testkit::run;
use tokio::process::Command;

use crate::support::program::{BINARY, Program, plain, serve};

/// What somebody types who is asked for a password.
const PASSWORD: &str = "nine correct horses with batteries";

/// Pages with commands for a running service that knows nobody.
const PAGES: [&str; 6] = [
    "README.md",
    "docs/api.md",
    "docs/jobs.md",
    "docs/schedules.md",
    "docs/batches.md",
    "examples/dengue/README.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of shell commands of a page.
fn blocks(page: &str) -> Vec<String> {
    let text = fs_err::read_to_string(root().join(page)).unwrap();
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line.trim_end()) {
            (None, "```console" | "```bash" | "```sh") => block = Some(String::new()),
            (Some(_), "```") => found.extend(block.take()),
            (Some(it), line) => {
                it.push_str(line);
                it.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

#[test]
fn every_request_in_the_documentation_succeeds() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join("examples"), dir.path().join("examples")).unwrap();
        fs_err::write(dir.path().join("model.bin"), b"any bytes").unwrap();
        let project = root().join("examples/dengue");
        let mut serve = serve(&project, &dir.path().join("data"));
        serve.env("MODELYARD_TASKS__SHELL", "true");
        let program = Program::start(serve).await;
        let address = program.client.base().strip_prefix("http://").unwrap();

        let mut run = 0;
        for page in PAGES {
            for block in blocks(page).iter().filter(|it| it.contains("curl ")) {
                let script = block
                    .replace("localhost:9090", address)
                    .replace("127.0.0.1:9090", address)
                    .replace("curl -s", "curl -sS --fail-with-body");
                let done = Command::new("bash")
                    .args(["-euo", "pipefail", "-c", &script])
                    .current_dir(dir.path())
                    .output()
                    .await
                    .unwrap();
                let output = String::from_utf8_lossy(&done.stdout);
                let trouble = String::from_utf8_lossy(&done.stderr);
                assert!(done.status.success(), "{page}:\n{block}\n{output}\n{trouble}");
                assert!(!output.contains("failed"), "{page}:\n{block}\n{output}");
                run += 1;
            }
        }
        assert!(run >= 4, "only {run} blocks were found");
    });
}

#[test]
fn a_new_project_is_served_as_the_readme_says() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut init = Command::new(BINARY);
        init.args(["init", "my-model"]).current_dir(dir.path()).stdout(Stdio::null());
        assert!(plain(init).status().await.unwrap().success());
        let project = dir.path().join("my-model");
        let program = Program::start(serve(&project, &dir.path().join("data"))).await;
        let info = program.client.get("/api/v1/info").await.expect(200).body;
        assert_eq!(info["id"], "my-model");
    });
}

/// The page on access begins with nobody, so its commands are typed from first to last: those before
/// the service runs, the one that serves, and all others in one shell.
#[test]
fn whoever_follows_the_page_on_access_comes_in() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join("examples"), dir.path().join("examples")).unwrap();
        let blocks = blocks("docs/access.md");
        let (first, rest) = blocks.split_first().unwrap();
        let (before, serves) = first.split_once("modelyard serve ").unwrap();
        let typed = type_in(dir.path(), before).await;
        assert!(typed.contains("ada@example.org may log in as system-admin"), "{typed}");

        let mut serve = Command::new(BINARY);
        serve.arg("serve").args(serves.split_whitespace()).current_dir(dir.path());
        let mut serve = plain(serve);
        serve.env("MODELYARD_SERVER__PORT", "0");
        let program = Program::start(serve).await;
        program.client.get("/api/v1/configs").await.expect(401);

        let address = program.client.base().strip_prefix("http://").unwrap();
        let script = rest.concat().replace("localhost:9090", address);
        let commands = script.lines().filter(|it| it.contains("modelyard ")).count();
        let requests = script.lines().filter(|it| it.contains("curl ")).count();
        assert!(commands >= 14 && requests >= 7, "{commands} commands, {requests} requests");
        let script = script.replace("curl -s", "curl -sS --fail-with-body");
        // What the page promises of a key that was revoked, and of one that took its place.
        let script = format!(
            "{script}
            status() {{ curl -s -o /dev/null -w '%{{http_code}}' {address}/api/v1/configs -H \"X-API-Key: $1\"; }}
            echo \"the new key: $(status $KEY)\"
            modelyard key revoke $(modelyard key list | awk '/nightly run/ {{id = $1}} END {{print id}}')
            sleep 1
            echo \"the revoked key: $(status $KEY)\"
            "
        );
        let typed = type_in(dir.path(), &script).await;
        for part in [
            "bo@example.org",
            "\"email\":\"ada@example.org\"",
            "forecaster        dengue",
            "the new key: 200",
            "the revoked key: 401",
        ] {
            assert!(typed.contains(part), "no {part} in:\n{typed}");
        }
    });
}

/// What is printed when this is typed in a shell by somebody who has the program on the path.
async fn type_in(dir: &Path, script: &str) -> String {
    let programs = Path::new(BINARY).parent().unwrap().display();
    let script = format!(
        "PATH={programs}:$PATH
        modelyard() {{ command modelyard \"$@\" <<< '{PASSWORD}'; }}
        {script}"
    );
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &script]).current_dir(dir);
    let done = plain(shell).output().await.unwrap();
    let (output, trouble) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{script}\n{output}\n{trouble}");
    output.into_owned()
}
