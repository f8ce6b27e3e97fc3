//! Disks that are full and directories that may not be written: clear errors, nothing half-written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use http::Method;
use modelyard_testkit::{TestClient, TestResponse, run};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::program::{BINARY, Program, Project, plain};
use crate::support::{
    assert_problem, config, ended, files, fill, running, text, train_with, until,
};

/// `modelyard serve` with its data on a disk of 16 megabytes.
///
/// Where mounting is allowed, that is a file system of the process's own, which goes with it.
/// Elsewhere it is a limit of the size of any file, which is met sooner but looks the same.
async fn on_a_small_disk(project: &Project) -> Command {
    let data = project.data();
    fs_err::create_dir_all(&data).unwrap();
    let mounted = || {
        // Name spaces of its own; for those who are not root, one of users as well.
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.args(["mount -t tmpfs -o size=16m none \"$1\" && shift && exec \"$@\"", "sh"]);
        command.arg(&data);
        command
    };
    let can_mount = mounted().arg("true").output().await;
    let mut command = if can_mount.is_ok_and(|it| it.status.success()) {
        mounted()
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -S -f 20000; exec \"$@\"", "sh"]);
        command
    };
    command.arg(BINARY).arg("serve").arg(project.path()).args(["--port", "0", "--data-dir"]);
    command.arg(&data);
    plain(command)
}

/// `modelyard` by someone whom permissions bind: root's right to write everywhere is dropped.
fn bound(arguments: &[&str]) -> Command {
    let mut command = if rustix::process::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search", BINARY]);
        command
    } else {
        Command::new(BINARY)
    };
    command.args(arguments);
    plain(command)
}

fn allow(directory: &Path, mode: u32) {
    fs_err::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn upload(client: &TestClient, size: usize) -> TestResponse {
    // Nothing that could be made smaller, or is there already.
    let mut state = size as u64 | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(size)
    .collect();
    client.request(Method::POST, "/api/v1/artifacts/$upload").body(bytes).send().await
}

#[track_caller]
fn assert_full(answer: &TestResponse) {
    assert_eq!(answer.status, 507, "{}", answer.body);
    assert_problem(answer, &"a full disk");
    assert_eq!(answer.body["code"], "storage_full");
    assert!(text(&answer.body["detail"]).contains("the disk is full"), "{}", answer.body);
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_written() {
    run(async {
        // Writes until nothing more fits.
        let project = Project::new("head -c 20000000 /dev/zero > large || exit 3; echo > model");
        let program = Program::start(on_a_small_disk(&project).await).await;
        let client = &program.client;
        // What is on its disk only the program sees.
        let inside = Path::new("/proc").join(program.pid().to_string()).join("root");
        let data = inside.join(project.data().strip_prefix("/").unwrap());
        let (blobs, ballast) = (data.join("blobs"), data.join("ballast"));
        fs_err::write(&ballast, vec![0; 8_000_000]).unwrap();
        let id = config(client, json!({})).await;
        let small = upload(client, 100_000).await.expect(201).body;
        let before = files(&blobs);
        assert_eq!(before.len(), 1);

        for size in [11_000_000, 30_000_000] {
            assert_full(&upload(client, size).await);
            until("nothing is left of it", async || files(&blobs) == before).await;
        }
        let list = client.get("/api/v1/artifacts").await.expect(200).body;
        assert_eq!(list.as_array().unwrap().len(), 1);

        // A script that runs out of disk fails, and is told of.
        let submitted = train_with(client, &id).await;
        let record = ended(client, &submitted.job).await;
        assert_eq!(record["status"], "failed", "{record}");

        // The database itself, by rows that are too large for what is left.
        let large = json!({"name": "n", "data": {"text": "x".repeat(500_000)}});
        let mut made = 1;
        loop {
            let answer = client.post("/api/v1/configs", &large).await;
            if answer.status != 201 {
                assert_full(&answer);
                break;
            }
            made += 1;
            assert!(made < 50, "the disk is not small");
        }
        // Reading goes on, and what is there is whole.
        let configs = client.get("/api/v1/configs?fields=id").await.expect(200).body;
        assert_eq!(configs.as_array().unwrap().len(), made);
        let path = format!("/api/v1/artifacts/{}/$download", text(&small["id"]));
        assert_eq!(client.get(&path).await.expect(200).bytes.len(), 100_000);

        // With room again it works again.
        fs_err::remove_file(&ballast).unwrap();
        let pid = program.pid().to_string();
        let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
        assert!(lifted.await.unwrap().success());
        for config in configs.as_array().unwrap() {
            let path = format!("/api/v1/configs/{}", text(&config["id"]));
            client.delete(&path).await.expect(204);
        }
        config(client, json!({})).await;
    });
}

#[test]
fn jobs_wait_for_room_on_a_full_disk_and_go_on() {
    run(async {
        let project = Project::new("sleep 0.5; head -c 200000 /dev/urandom > model");
        let program = Program::start(on_a_small_disk(&project).await).await;
        let client = &program.client;
        let inside = Path::new("/proc").join(program.pid().to_string()).join("root");
        let data = inside.join(project.data().strip_prefix("/").unwrap());
        let id = config(client, json!({})).await;
        let mut submitted = Vec::new();
        for _ in 0..4 {
            submitted.push(train_with(client, &id).await);
        }
        running(client, &submitted[1].job).await;
        let ballast = fill(&data);
        // The end of a job, its artifact, and the next claim all find no room.
        tokio::time::sleep(Duration::from_secs(3)).await;
        for it in &submitted {
            client.get(&format!("/api/v1/jobs/{}", it.job)).await.expect(200);
        }
        let health = client.get("/health").await;
        assert!(matches!(health.status.as_u16(), 200 | 503), "{}", health.body);

        fs_err::remove_file(&ballast).unwrap();
        for it in &submitted {
            let record = ended(client, &it.job).await;
            assert_eq!(record["status"], "completed", "{record}");
            let path = format!("/api/v1/artifacts/{}/$download", it.artifact);
            assert!(client.get(&path).await.expect(200).bytes.len() > 200_000);
        }
        until("the workspaces are gone", async || files(&data.join("work")).is_empty()).await;
        let list = client.get("/api/v1/artifacts").await.expect(200).body;
        assert_eq!(list.as_array().unwrap().len(), submitted.len());
        assert_eq!(files(&data.join("blobs")).len(), submitted.len());
    });
}

fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_data_directory_that_may_not_be_written_is_told_at_the_start() {
    run(async {
        let project = Project::new("");
        fs_err::create_dir(project.data()).unwrap();
        let (dir, data) = (project.path(), project.data());
        let below = data.join("below");
        let (dir, below, data) =
            (dir.to_str().unwrap(), below.to_str().unwrap(), data.to_str().unwrap());
        allow(Path::new(data), 0o500);
        for data in [data, below] {
            let serve = ["serve", dir, "--port", "0", "--data-dir", data];
            let said = told(&bound(&serve).output().await.unwrap());
            assert!(said.contains(data), "{said}");
            assert!(said.contains("data.dir"), "{said}");
            // Once: a cause is not in the sentence that it explains as well.
            assert_eq!(said.to_lowercase().matches("permission denied").count(), 1, "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
        assert_eq!(files(Path::new(data)), Vec::<String>::new());
        allow(Path::new(data), 0o700);

        // A file where a directory should be.
        let file = project.mark();
        fs_err::write(&file, "").unwrap();
        let serve = ["serve", dir, "--port", "0", "--data-dir", file.to_str().unwrap()];
        let said = told(&bound(&serve).output().await.unwrap());
        assert!(said.contains("data.dir"), "{said}");
    });
}

#[test]
fn parts_of_a_data_directory_that_may_not_be_written_are_told() {
    run(async {
        let project = Project::new("echo > model");
        let (dir, data) = (project.path(), project.data());
        let serve =
            ["serve", dir.to_str().unwrap(), "--port", "0", "--data-dir", data.to_str().unwrap()];
        let program = Program::start(bound(&serve)).await;
        let client = &program.client;
        let id = config(client, json!({})).await;
        let blobs = data.join("blobs");
        allow(&blobs, 0o500);
        let refused = upload(client, 100_000).await;
        assert_problem(&refused, &"no writing");
        assert_eq!(
            (refused.status.as_u16(), &refused.body["code"]),
            (503, &json!("storage_read_only"))
        );
        assert_eq!(client.get("/api/v1/artifacts").await.expect(200).body, json!([]));
        let record = ended(client, &train_with(client, &id).await.job).await;
        assert_eq!(record["status"], "failed", "{record}");
        assert!(text(&record["error"]).contains("cannot be written"), "{record}");
        allow(&blobs, 0o700);

        let work = data.join("work");
        allow(&work, 0o500);
        let record = ended(client, &train_with(client, &id).await.job).await;
        assert_eq!(record["status"], "failed", "{record}");
        assert!(!text(&record["error"]).contains(data.to_str().unwrap()), "{record}");
        allow(&work, 0o700);
        let record: Value = ended(client, &train_with(client, &id).await.job).await;
        assert_eq!(record["status"], "completed", "{record}");
        assert_eq!(files(&blobs).len(), 1);
    });
}
