use std::{os::unix::fs::PermissionsExt, process::Stdio};

use tokio::process::{Child, Command};

use super::*;

fn sleeper(command: &str, workspace: &Path) -> Child {
    Command::new("/bin/sh")
        .args(["-c", command])
        .env("MODELYARD_WORKSPACE", workspace)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// A workspace as a server that crashed leaves it.
fn leftover(root: &Path, record: &str) -> std::path::PathBuf {
    let directory = root.join("train-left");
    fs_err::create_dir_all(directory.join("files/deep")).unwrap();
    fs_err::write(directory.join("lock"), "").unwrap();
    fs_err::write(directory.join("process"), record).unwrap();
    directory
}

fn record(pid: u32) -> String {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    format!("{} {stat}", boot.trim())
}

#[tokio::test]
async fn the_next_start_ends_what_a_crash_left_running() {
    let root = tempfile::tempdir().unwrap();
    let mut leader = sleeper("sleep 60 & wait", Path::new("/elsewhere"));
    let mut stray =
        sleeper("exec sleep 60", &root.path().canonicalize().unwrap().join("train-left"));
    let strays = format!("/proc/{}/environ", stray.id().unwrap());
    until("exec", || {
        fs_err::read(&strays).is_ok_and(|all| all.windows(10).any(|part| part == b"train-left"))
    })
    .await;
    let directory = leftover(root.path(), &record(leader.id().unwrap()));

    let swept = Workspace::sweep(root.path(), |_| false).unwrap();

    assert_eq!(swept, Swept { workspaces: 1, kept: 0, killed: 2 });
    assert!(!directory.exists());
    for child in [&mut leader, &mut stray] {
        assert!(timeout(Duration::from_secs(5), child.wait()).await.is_ok());
    }
}

#[tokio::test]
async fn a_process_that_only_got_the_same_number_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut innocent = sleeper("exec sleep 60", Path::new("/elsewhere"));
    let record = record(innocent.id().unwrap());
    let (front, back) = record.rsplit_once(") ").unwrap();
    let mut fields: Vec<&str> = back.split(' ').collect();
    fields[19] = "17";
    let other_start = format!("{front}) {}", fields.join(" "));
    let other_boot = record.replacen(|letter: char| letter.is_ascii_hexdigit(), "x", 1);
    for stale in [other_start, other_boot] {
        let directory = leftover(root.path(), &stale);
        let swept = Workspace::sweep(root.path(), |_| false).unwrap();
        assert_eq!(swept, Swept { workspaces: 1, kept: 0, killed: 0 });
        assert!(!directory.exists());
    }
    assert!(innocent.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn a_script_leaves_the_record_the_sweep_needs() {
    let place = place();
    let environment = BTreeMap::new();
    let limits = Limits::default();
    let command = "echo $$ > pid; exec sleep 60";
    let directory = place.root.path();
    let script =
        Script { stage: "task", command, directory, environment: &environment, limits: &limits };
    let checks = async {
        let pid = written(&place.root.path().join("pid")).await;
        let record =
            fs_err::read_to_string(place.run.workspace.directory().unwrap().process_file())
                .unwrap();
        // What the server would find after a crash, except that the lock is gone then.
        let leader = procfs::Identity::parse(&record).unwrap();
        assert!(leader.kill_group());
        until("the end", || !is_running(&pid)).await;
    };
    let (output, ()) = tokio::join!(run_script(script, &place.run), checks);
    assert_eq!(output.unwrap().exit_code, -9);
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_its_scripts_to_the_next_one() {
    const ROOT: &str = "ROOT_OF_THE_SERVER_TO_KILL";
    let name =
        "runner::tests::sweeping::a_server_that_is_killed_leaves_its_scripts_to_the_next_one";
    if let Some(root) = std::env::var_os(ROOT) {
        // The process below comes here: this is the server that gets killed.
        let workspace = Workspace::create(Path::new(&root), "train").unwrap();
        let run = Run::new(workspace, CancellationToken::new());
        let (environment, limits) = (BTreeMap::new(), Limits::default());
        let command = "sleep 60 & setsid sleep 60 & echo $$ $! > pids; wait";
        let (environment, limits, directory) = (&environment, &limits, Path::new(&root));
        run_script(Script { stage: "train", command, directory, environment, limits }, &run)
            .await
            .unwrap();
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ROOT, root.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pids = written(&root.path().join("pids")).await;
    assert_eq!(Workspace::sweep(root.path(), |_| false).unwrap(), Swept::default(), "it lives");
    server.kill().await.unwrap();
    assert!(pids.split_whitespace().all(is_running));
    assert_eq!(Workspace::sweep(root.path(), |_| false).unwrap().workspaces, 1);
    until("the end", || !pids.split_whitespace().any(is_running)).await;
}

#[tokio::test]
async fn the_workspace_of_a_living_server_is_not_swept() {
    let place = place();
    assert_eq!(Workspace::sweep(place.root.path(), |_| false).unwrap(), Swept::default());
    assert!(place.run.workspace.path().unwrap().exists());
    assert_eq!(
        Workspace::sweep(&place.root.path().join("none yet"), |_| false).unwrap(),
        Swept::default()
    );
}

#[tokio::test]
async fn a_workspace_is_for_its_owner_and_goes_away() {
    let place = place();
    let directory = place.run.workspace.directory().unwrap().path().to_owned();
    let mode = fs_err::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let stubborn = place.run.workspace.path().unwrap().join("a/b");
    fs_err::create_dir_all(&stubborn).unwrap();
    fs_err::write(stubborn.join("file"), "x").unwrap();
    fs_err::set_permissions(&stubborn, std::fs::Permissions::from_mode(0o500)).unwrap();
    drop(place.run);
    until("the end", || !directory.exists()).await;
}
