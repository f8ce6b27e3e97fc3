//! What the documentation tells people to type, typed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Pages with commands for a running service.
const PAGES: [&str; 3] = ["README.md", "docs/api.md", "examples/dengue/README.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The command, serving a directory on a free port.
struct Serving {
    process: Child,
    address: String,
}

impl Serving {
    fn start(project: &Path, data_dir: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_modelyard"))
            .arg("serve")
            .arg(project)
            .args(["--port", "0", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let greeting = BufReader::new(process.stdout.take().unwrap());
        let line = greeting.lines().map(Result::unwrap).find(|it| it.contains(" is served at "));
        let line = line.expect("the greeting says where it listens");
        let address = line.rsplit("http://").next().unwrap().trim().to_owned();
        Self { process, address }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
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
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("examples"), dir.path().join("examples")).unwrap();
    fs_err::write(dir.path().join("model.bin"), b"any bytes").unwrap();
    let serving = Serving::start(&root().join("examples/dengue"), &dir.path().join("data"));

    let mut run = 0;
    for page in PAGES {
        for block in blocks(page).iter().filter(|it| it.contains("curl ")) {
            let script = block
                .replace("localhost:9090", &serving.address)
                .replace("127.0.0.1:9090", &serving.address)
                .replace("curl -s", "curl -sS --fail-with-body");
            let done = Command::new("bash")
                .args(["-euo", "pipefail", "-c", &script])
                .current_dir(dir.path())
                .output()
                .unwrap();
            let output = String::from_utf8_lossy(&done.stdout);
            let trouble = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{page}:\n{block}\n{output}\n{trouble}");
            assert!(!output.contains("failed"), "{page}:\n{block}\n{output}");
            run += 1;
        }
    }
    assert!(run >= 4, "only {run} blocks were found");
}

#[test]
fn a_new_project_is_served_as_the_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_modelyard"))
        .args(["init", "my-model"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(made.success());
    let project = dir.path().join("my-model");
    let serving = Serving::start(&project, &dir.path().join("data"));
    let body = get(&serving.address, "/api/v1/info");
    assert!(body.contains("\"id\":\"my-model\""), "{body}");
}

/// One plain request.
fn get(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
