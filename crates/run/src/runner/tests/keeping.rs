use std::process::Stdio;

use tokio::process::Command;

use super::*;

const JOB: &str = "01K6ZSNMWZ5D2YVTV9H3Y4P7QX";
const OTHER: &str = "01K6ZSNMX01N3C9F8Q2R6B7V5D";

fn job() -> Ulid {
    JOB.parse().unwrap()
}

fn is_job(key: Ulid) -> bool {
    key == job()
}

async fn begin(root: &tempfile::TempDir) -> Place {
    let run = Run::begin_kept(root.path(), job(), CancellationToken::new()).await.unwrap();
    // The root belongs to the test.
    Place { run, root: tempfile::tempdir().unwrap() }
}

async fn resume(root: &tempfile::TempDir) -> Option<Run> {
    Run::resume(root.path(), job(), CancellationToken::new()).await.unwrap()
}

fn entries(root: &tempfile::TempDir) -> usize {
    fs_err::read_dir(root.path()).unwrap().count()
}

async fn packed(run: Run) -> Vec<String> {
    let archive = run.workspace.archive(ArchiveLimits::default()).await.unwrap();
    let Archive::Memory(bytes) = archive else { panic!("it is small") };
    run.workspace.remove().await;
    let files = archive::unpack(io::Cursor::new(bytes), ArchiveLimits::default()).unwrap();
    files.into_keys().collect()
}

#[tokio::test]
async fn a_kept_workspace_outlives_its_run() {
    let root = tempfile::tempdir().unwrap();
    let place = begin(&root).await;
    sh(&place, "echo fitted > model", &Limits::default()).await.unwrap();
    place.run.workspace.keep().await.unwrap();
    assert!(resume(&root).await.is_none(), "somebody has it");
    drop(place.run);

    let resumed = resume(&root).await.unwrap();
    assert!(resume(&root).await.is_none(), "somebody has it");
    drop(resumed);
    let resumed = resume(&root).await.unwrap();
    assert_eq!(packed(resumed).await, ["model"]);
    assert!(resume(&root).await.is_none());
    assert_eq!(entries(&root), 0);
}

#[tokio::test]
async fn a_workspace_whose_script_did_not_end_is_not_resumed() {
    let root = tempfile::tempdir().unwrap();
    let place = begin(&root).await;
    fs_err::write(place.file("model"), "half").unwrap();
    let directory = place.run.workspace.directory().unwrap().path().to_owned();
    drop(place.run);
    until("the end", || !directory.exists()).await;
    assert!(resume(&root).await.is_none());
}

#[tokio::test]
async fn the_next_attempt_begins_with_nothing() {
    let root = tempfile::tempdir().unwrap();
    let first = begin(&root).await;
    fs_err::write(first.file("model"), "old").unwrap();
    first.run.workspace.keep().await.unwrap();
    drop(first.run);
    let second = begin(&root).await;
    assert_eq!(entries(&root), 1);
    assert_eq!(packed(second.run).await, [""; 0]);
}

#[tokio::test]
async fn a_kept_workspace_is_not_trusted_after_the_machine_started_anew() {
    let root = tempfile::tempdir().unwrap();
    let place = begin(&root).await;
    place.run.workspace.keep().await.unwrap();
    let mark = place.run.workspace.directory().unwrap().path().join("kept");
    drop(place.run);
    for other in ["another boot", ""] {
        fs_err::write(&mark, other).unwrap();
        assert!(resume(&root).await.is_none());
    }
    let swept = Workspace::sweep(root.path(), is_job).unwrap();
    assert_eq!((swept.workspaces, swept.kept), (1, 0));
}

#[tokio::test]
async fn what_a_script_left_running_does_not_change_what_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let place = begin(&root).await;
    let command = "setsid sh -c 'echo $$ > pid; while :; do echo >> log; done' >/dev/null 2>&1 & until test -s pid; do :; done";
    sh(&place, command, &Limits::default()).await.unwrap();
    let pid = fs_err::read_to_string(place.file("pid")).unwrap();
    place.run.workspace.keep().await.unwrap();
    until("the end", || !is_running(&pid)).await;
    let size = || fs_err::metadata(place.file("log")).unwrap().len();
    let before = size();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(size(), before);
}

#[tokio::test]
async fn only_workspaces_of_jobs_are_kept() {
    let place = place();
    place.run.workspace.keep().await.unwrap();
    let directory = place.run.workspace.directory().unwrap().path().to_owned();
    drop(place.run);
    until("the end", || !directory.exists()).await;

    let run = Run::new(Workspace::in_memory(place.root.path()), CancellationToken::new());
    run.workspace.put(vec![("model.json", Bytes::from_static(b"1"))]).await.unwrap();
    run.workspace.keep().await.unwrap();
    assert_eq!(packed(run).await, ["model.json"]);
    assert!(resume(&place.root).await.is_none());
    let nowhere = place.root.path().join("none yet");
    assert!(Run::resume(&nowhere, job(), CancellationToken::new()).await.unwrap().is_none());
}

#[tokio::test]
async fn after_a_crash_the_files_of_an_ended_script_are_there() {
    const ROOT: &str = "ROOT_OF_THE_SERVER_TO_KILL";
    let name = "runner::tests::keeping::after_a_crash_the_files_of_an_ended_script_are_there";
    if let Some(root) = std::env::var_os(ROOT) {
        // The process below comes here: this is the server that gets killed. One job has its
        // result, and the script of the other one still runs.
        let begin = async |key: &str| {
            let key = key.parse().unwrap();
            let root = Path::new(&root);
            let run = Run::begin_kept(root, key, CancellationToken::new()).await.unwrap();
            Place { run, root: tempfile::tempdir_in(std::env::temp_dir()).unwrap() }
        };
        let (ended, other) = (begin(JOB).await, begin(OTHER).await);
        let limits = Limits::default();
        sh(&ended, "echo fitted > model", &limits).await.unwrap();
        ended.run.workspace.keep().await.unwrap();
        let command = "echo half > model; echo $$ > ../../pid; exec sleep 60";
        sh(&other, command, &limits).await.unwrap();
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ROOT, root.path())
        // What it leaves there goes away with the test.
        .env("TMPDIR", root.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = written(&root.path().join("pid")).await;
    server.kill().await.unwrap();
    assert!(is_running(&pid));

    let swept = Workspace::sweep(root.path(), |_| true).unwrap();
    // One that is dying may be counted twice: in its group and by itself.
    assert!(swept.kept == 1 && swept.killed >= 1, "{swept:?}");
    until("the end", || !is_running(&pid)).await;
    let of_other = Run::resume(root.path(), OTHER.parse().unwrap(), CancellationToken::new());
    assert!(of_other.await.unwrap().is_none());
    assert_eq!(packed(resume(&root).await.unwrap()).await, ["model"]);

    let swept = Workspace::sweep(root.path(), |_| true).unwrap();
    assert_eq!(swept, Swept::default());
}

#[tokio::test]
async fn what_no_job_wants_any_more_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let place = begin(&root).await;
    place.run.workspace.keep().await.unwrap();
    drop(place.run);
    let swept = Workspace::sweep(root.path(), is_job).unwrap();
    assert_eq!(swept, Swept { workspaces: 0, kept: 1, killed: 0 });
    let swept = Workspace::sweep(root.path(), |key| !is_job(key)).unwrap();
    assert_eq!(swept, Swept { workspaces: 1, kept: 0, killed: 0 });
    assert_eq!(entries(&root), 0);
}

#[tokio::test]
async fn of_those_that_are_kept_nobody_loses_the_one_that_he_has() {
    let root = tempfile::tempdir().unwrap();
    let sweep = || {
        let kept = Workspace::kept(root.path()).unwrap();
        kept.into_iter().map(|it| (it.job, it.remove().unwrap())).collect::<Vec<_>>()
    };
    let place = begin(&root).await;
    assert_eq!(sweep(), [], "it is not kept yet");
    place.run.workspace.keep().await.unwrap();
    assert_eq!(sweep(), [(job(), false)]);
    drop(place.run);
    let resumed = resume(&root).await.unwrap();
    assert_eq!(sweep(), [(job(), false)]);
    assert!(resumed.workspace.path().unwrap().exists());
    drop(resumed);
    assert_eq!(sweep(), [(job(), true)]);
    assert_eq!(entries(&root), 0);
}
