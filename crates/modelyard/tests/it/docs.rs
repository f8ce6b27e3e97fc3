//! What the documentation tells people to type, typed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use modelyard_testkit::run;
use tokio::process::Command;

use crate::support::program::{BINARY, Program, plain, serve};

/// Pages with commands for a running service.
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
