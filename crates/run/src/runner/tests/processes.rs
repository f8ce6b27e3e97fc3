use super::*;

#[tokio::test]
async fn a_script_runs_in_its_workspace_with_its_environment() {
    let place = place();
    let command = r#"pwd; echo "$GREETING" >&2; echo '$1 \n "{}"'; echo "$0 $# $MODELYARD_WORKSPACE"; cat; exit 3"#;
    let output = sh(&place, command, &Limits::default()).await.unwrap();
    let directory = place.run.workspace.directory().unwrap().path().display();
    assert_eq!(output.exit_code, 3);
    // The shell in use decides what `echo` makes of a backslash, so that is left to it.
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&format!("{directory}/files").as_str()));
    assert_eq!(lines.last(), Some(&format!("/bin/sh 0 {directory}").as_str()));
    assert_eq!(output.stderr, "it's \"me\"\n");
}

#[tokio::test]
async fn exit_codes_tell_signals_apart() {
    let place = place();
    for (command, code) in
        [("exit 0", 0), ("exit 255", 255), ("kill -KILL $$", -9), ("nosuch", 127)]
    {
        let output = sh(&place, command, &Limits::default()).await.unwrap();
        assert_eq!(output.exit_code, code, "{command}");
    }
}

#[tokio::test]
async fn a_canceled_script_takes_its_whole_group_along() {
    let place = place();
    let command = "trap '' TERM; (sleep 60 & echo $! > child; wait) & echo $$ > leader; wait; wait";
    let limits = Limits::default();
    let canceling = async {
        let leader = written(&place.file("leader")).await;
        let child = written(&place.file("child")).await;
        assert!(is_running(&leader) && is_running(&child));
        place.run.cancel.cancel();
        (leader, child, Instant::now())
    };
    let (result, (leader, child, start)) = tokio::join!(sh(&place, command, &limits), canceling);
    assert!(matches!(result, Err(RunError::Canceled)));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!is_running(&leader) && !is_running(&child));
}

#[tokio::test]
async fn a_canceled_script_may_clean_up_first() {
    let place = place();
    // The shell that waits ends at once; the program in it takes its time.
    let command = "sh -c 'trap \"sleep 0.1; echo saved > saved; exit\" TERM; echo > ready; while :; do sleep 0.01; done' & wait";
    let limits = Limits::default();
    let canceling = async {
        written(&place.file("ready")).await;
        place.run.cancel.cancel();
        Instant::now()
    };
    let (_, start) = tokio::join!(sh(&place, command, &limits), canceling);
    assert!(place.file("saved").exists());
    assert!(start.elapsed() < Duration::from_secs(1), "no longer than needed");
}

#[tokio::test]
async fn a_script_knows_the_job_that_it_is_for() {
    let told = "echo \"${MODELYARD_JOB_ID-none} ${MODELYARD_IDEMPOTENCY_KEY-none}\"";
    let Place { run, root } = place();
    let id = Ulid::read("01M7W2VW5SZCEB0G592J0SM0XC").unwrap();
    let run = run.for_job(RunJob { id, idempotency_key: format!("{id}-run") });
    let output = sh(&Place { run, root }, told, &Limits::default()).await.unwrap();
    assert_eq!(output.stdout, "01M7W2VW5SZCEB0G592J0SM0XC 01M7W2VW5SZCEB0G592J0SM0XC-run\n");
    // Such as one that only checks a request.
    let output = sh(&place(), told, &Limits::default()).await.unwrap();
    assert_eq!(output.stdout, "none none\n");
}

#[tokio::test]
async fn a_dropped_script_takes_its_whole_group_along() {
    let place = place();
    let limits = Limits::default();
    let child = {
        let script = sh(&place, "sleep 60 & echo $! > child; wait", &limits);
        let file = place.file("child");
        tokio::select! {
            _ = script => panic!("it sleeps"),
            child = written(&file) => child,
        }
    };
    until("the end", || !is_running(&child)).await;
}

#[tokio::test]
async fn what_a_script_leaves_in_the_background_does_not_outlive_it() {
    let place = place();
    let start = Instant::now();
    let output = sh(&place, "sleep 60 & echo $!", &Limits::default()).await.unwrap();
    assert_eq!(output.exit_code, 0);
    assert!(start.elapsed() < Duration::from_secs(5), "the pipe is held, but not waited for");
    until("the end", || !is_running(&output.stdout)).await;
}

#[tokio::test]
async fn one_that_left_the_group_ends_with_the_workspace() {
    let place = place();
    let start = Instant::now();
    let command =
        "setsid sleep 60 & echo $!; while [ \"$(cut -d' ' -f5 /proc/$!/stat)\" = $$ ]; do :; done";
    let output = sh(&place, command, &Limits::default()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "the pipe is held, but not waited for");
    assert!(is_running(&output.stdout));
    place.run.workspace.remove().await;
    until("the end", || !is_running(&output.stdout)).await;
}

#[tokio::test]
async fn a_script_that_takes_too_long_is_stopped() {
    let place = place();
    let limits = Limits { wall_time: Some(Duration::from_millis(200)), ..Limits::default() };
    let error = sh(&place, "echo begun; sleep 60", &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train script was stopped after 0.2 seconds, its limit");
    assert_eq!(error.output().unwrap().stdout, "begun\n");
    assert_eq!(error.output().unwrap().exit_code, -15);
}

#[tokio::test]
async fn a_flood_of_output_is_cut_in_the_middle() {
    let place = place();
    let limits = Limits { output_bytes: 1000, ..Limits::default() };
    let command = "echo first; head -c 200000000 /dev/zero; echo last; echo fine >&2";
    let output = sh(&place, command, &limits).await.unwrap();
    assert!(output.stdout.starts_with("first\n") && output.stdout.ends_with("last\n"));
    assert!(output.stdout.contains("[... 199999011 bytes left out ...]"));
    assert!(output.stdout.len() < 1100);
    assert_eq!(output.stderr, "fine\n");
}

#[tokio::test]
async fn processor_time_is_limited() {
    let place = place();
    let limits = Limits { cpu_time: Some(Duration::from_millis(900)), ..Limits::default() };
    let error = sh(&place, "while :; do :; done", &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train went over its limit of 1 seconds of processor time");
}

/// Uses some processor time, but far from what a single process may use.
const COUNT: &str = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";

async fn uses_too_much_processor_time(command: &str) {
    let place = place();
    let limits = Limits { cpu_time: Some(Duration::from_secs(1)), ..Limits::default() };
    let error = sh(&place, command, &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train went over its limit of 1 seconds of processor time");
    assert_eq!(error.output().unwrap().exit_code, -15);
    let workspace = place.run.workspace.directory().unwrap().path().to_owned();
    assert_eq!(procfs::kill_marked(&workspace), 0, "nobody is left");
}

#[tokio::test]
async fn processor_time_is_that_of_all_processes() {
    uses_too_much_processor_time(&format!("while :; do sh -c '{COUNT}'; done")).await;
}

#[tokio::test]
async fn processor_time_is_also_that_of_those_that_left_the_group() {
    let command = format!("setsid sh -c 'while :; do sh -c \"{COUNT}\"; done' & sleep 60");
    uses_too_much_processor_time(&command).await;
}

#[tokio::test]
async fn processor_time_is_also_that_of_those_that_nobody_waits_for() {
    let command = format!("while :; do (sh -c '{COUNT}; {COUNT}' &); sleep 0.1; done");
    uses_too_much_processor_time(&command).await;
}

/// Each of them holds 60 MB, since `tail` holds its last line, which here never ends.
const TWO_WITH_MUCH_MEMORY: &str =
    "for i in 1 2; do (head -c 60000000 /dev/zero; sleep 60) | tail -n 1 >/dev/null & done; wait";

#[tokio::test]
async fn memory_is_that_of_all_processes() {
    let place = place();
    let limits = Limits { resident_bytes: Some(100_000_000), ..Limits::default() };
    let start = Instant::now();
    let error = sh(&place, TWO_WITH_MUCH_MEMORY, &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train went over its limit of 100000000 bytes of memory");
    assert!(start.elapsed() < Duration::from_secs(10));

    let limits = Limits {
        resident_bytes: Some(200_000_000),
        wall_time: Some(Duration::from_millis(1500)),
        ..Limits::default()
    };
    let error = sh(&place, TWO_WITH_MUCH_MEMORY, &limits).await.unwrap_err();
    assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn what_is_written_in_all_is_limited() {
    let place = place();
    let limits = Limits { workspace_bytes: Some(10_000_000), ..Limits::default() };
    let command = "for i in 1 2 3 4; do head -c 3000000 /dev/zero > $i; done; sleep 60";
    let error = sh(&place, command, &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train went over its limit of 10000000 bytes of files");
    assert_eq!(error.output().unwrap().exit_code, -9);

    // Too fast to be noticed while it ran.
    let error = sh(&place, "echo 5 > 5", &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train went over its limit of 10000000 bytes of files");
}

#[tokio::test]
async fn memory_is_limited() {
    let place = place();
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    // `tail` has to hold its last line, which here never ends.
    let command = "head -c 200000000 /dev/zero | tail -n 1 | wc -c";
    let output = sh(&place, command, &limits).await.unwrap();
    assert_ne!(output.stdout.trim(), "200000000");
    assert!(output.stderr.contains("memory"), "{}", output.stderr);
}

#[tokio::test]
async fn the_size_of_files_is_limited() {
    let place = place();
    let limits = Limits { file_bytes: Some(1024), ..Limits::default() };
    let error = sh(&place, "head -c 5000 /dev/zero > large", &limits).await.unwrap_err();
    assert_eq!(error.to_string(), "train went over its limit of 1024 bytes per file");
    let size = fs_err::metadata(place.file("large")).unwrap().len();
    assert_eq!(size, 1024);
}

#[tokio::test]
async fn a_run_that_is_canceled_already_starts_nothing() {
    let place = place();
    place.run.cancel.cancel();
    let result = sh(&place, "echo > begun", &Limits::default()).await;
    assert!(matches!(result, Err(RunError::Canceled)));
    assert!(!place.file("begun").exists());
}

#[tokio::test]
async fn a_script_does_not_hold_the_lock_of_its_workspace() {
    let place = place();
    let output = sh(&place, "ls -l /proc/$$/fd; true", &Limits::default()).await.unwrap();
    assert!(output.stdout.contains("/dev/null") && !output.stdout.contains("lock"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn in_a_container_the_dead_are_taken_note_of() {
    // What the first process of a container is without being asked.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let place = place();
    let output = sh(&place, "sleep 60 & sleep 0 & echo $!", &Limits::default()).await.unwrap();
    assert!(!Path::new("/proc").join(output.stdout.trim()).exists());
}
