use std::{io::Cursor, time::SystemTime};

use super::*;

/// Counts to five, one number a checkpoint, and goes on where it was. Dies after the third.
const COUNT: &str = r#"
    count=0
    if [ -n "$MODELYARD_CHECKPOINT" ]; then count=$(cat "$MODELYARD_CHECKPOINT/count"); fi
    echo "from $count"
    while [ $count -lt 5 ]; do
        count=$((count + 1))
        echo "$count"
        mkdir "$MODELYARD_CHECKPOINT_DIR/after-$count"
        echo $count > "$MODELYARD_CHECKPOINT_DIR/after-$count/count"
        echo "{\"checkpoint\": \"after-$count\"}" >> "$MODELYARD_PROGRESS"
        if [ $count = 3 ]; then
            mkdir "$MODELYARD_CHECKPOINT_DIR/half"
            echo 3.5 > "$MODELYARD_CHECKPOINT_DIR/half/count"
            kill -KILL $$
        fi
    done
    echo $count > model
"#;

fn entries(place: &Place) -> Vec<String> {
    let directory = place.run.workspace.directory().unwrap().checkpoints();
    let entries = fs_err::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn restore(place: &Place, (name, archive): (String, Bytes)) -> Result<(), RunError> {
    let limits = ArchiveLimits::default();
    place.run.workspace.restore_checkpoint(&name, Cursor::new(archive), limits).await
}

#[tokio::test]
async fn the_next_attempt_goes_on_from_the_newest_checkpoint() {
    let (first, heard) = heard_place();
    let output = sh(&first, COUNT, &Limits::default()).await.unwrap();
    assert_eq!((output.exit_code, output.stdout.as_str()), (-9, "from 0\n1\n2\n3\n"));
    let newest = heard.newest_checkpoint();
    assert_eq!(newest.0, "after-3", "not the one that was not announced");

    let (second, heard) = heard_place();
    restore(&second, newest).await.unwrap();
    assert_eq!(entries(&second), ["after-3"]);
    let output = sh(&second, COUNT, &Limits::default()).await.unwrap();
    assert_eq!((output.exit_code, output.stdout.as_str()), (0, "from 3\n4\n5\n"));
    assert_eq!(fs_err::read_to_string(second.file("model")).unwrap(), "5\n");
    assert_eq!(heard.lines(Stream::Server), [""; 0]);
}

#[tokio::test]
async fn a_checkpoint_is_stored_while_the_script_runs_on() {
    let (place, heard) = heard_place();
    let command = r#"
        echo weights > "$MODELYARD_CHECKPOINT_DIR/epoch-1.bin"
        echo '{"checkpoint": "epoch-1.bin"}' >&3
        until test -e go; do sleep 0.01; done
    "#;
    let limits = Limits::default();
    let checks = async {
        until("a checkpoint", || !heard.checkpoints.lock().is_empty()).await;
        fs_err::write(place.file("go"), "").unwrap();
    };
    let (output, ()) = tokio::join!(sh(&place, command, &limits), checks);
    assert_eq!(output.unwrap().exit_code, 0);
    let (name, archive) = heard.newest_checkpoint();
    let files = archive::unpack(Cursor::new(archive), ArchiveLimits::default()).unwrap();
    assert_eq!(name, "epoch-1.bin");
    assert_eq!(files, BTreeMap::from([(name, Bytes::from_static(b"weights\n"))]));
}

#[tokio::test]
async fn of_several_checkpoints_only_the_newest_is_taken() {
    let (place, heard) = heard_by(Heard { delay: Duration::from_millis(600), ..Heard::default() });
    let command = r#"
        for number in 1 2 3 4 5 6; do
            echo $number > "$MODELYARD_CHECKPOINT_DIR/$number"
            echo "{\"checkpoint\": \"$number\"}" >&3
            sleep 0.25
        done
        exit 1
    "#;
    sh(&place, command, &Limits::default()).await.unwrap();
    let taken = heard.checkpoints();
    assert_eq!(taken.last().unwrap(), "6");
    assert!(taken.len() < 6 && taken.is_sorted(), "{taken:?}");
}

#[tokio::test]
async fn a_script_that_is_asked_to_stop_may_leave_a_checkpoint() {
    let (place, heard) = heard_place();
    let command = r#"
        save() { echo 7 > "$MODELYARD_CHECKPOINT_DIR/last"; echo '{"checkpoint": "last"}' >&3; exit 1; }
        trap save TERM
        echo > ready
        while :; do sleep 0.01; done
    "#;
    let limits = Limits::default();
    let canceling = async {
        written(&place.file("ready")).await;
        place.run.cancel.cancel();
    };
    let (result, ()) = tokio::join!(sh(&place, command, &limits), canceling);
    assert!(matches!(result, Err(RunError::Canceled)));
    assert_eq!(heard.checkpoints(), ["last"]);
}

/// How long a cancellation takes when a checkpoint takes for ever.
async fn cancel_while_storing(unwanted: bool) -> Duration {
    let delay = Duration::from_secs(600);
    let (place, _) = heard_by(Heard { delay, unwanted, ..Heard::default() });
    let command = r#"
        echo 1 > "$MODELYARD_CHECKPOINT_DIR/first"; echo '{"checkpoint": "first"}' >&3
        echo > ready; exec sleep 60
    "#;
    let limits = Limits::default();
    let canceling = async {
        written(&place.file("ready")).await;
        sleep(Duration::from_millis(300)).await;
        place.run.cancel.cancel();
        Instant::now()
    };
    let (result, start) = tokio::join!(sh(&place, command, &limits), canceling);
    assert!(matches!(result, Err(RunError::Canceled)));
    start.elapsed()
}

#[tokio::test]
async fn a_checkpoint_that_takes_for_ever_does_not_hold_up_a_cancellation() {
    let took = cancel_while_storing(false).await;
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_run_that_nobody_wants_any_more_does_not_wait_for_a_checkpoint() {
    let took = cancel_while_storing(true).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn one_that_changes_while_it_is_packed_is_not_taken() {
    let (place, heard) = heard_place();
    // The files keep their size, and change for as long as there is something to pack.
    let command = r#"
        cd "$MODELYARD_CHECKPOINT_DIR"; mkdir moving
        head -c 3000000 /dev/urandom > moving/weights
        echo '{"checkpoint": "moving"}' >&3
        until test -e ../files/go; do printf x | dd of=moving/weights conv=notrunc 2>/dev/null; done
    "#;
    let limits = Limits::default();
    let checks = async {
        until("a line", || !heard.lines(Stream::Server).is_empty()).await;
        fs_err::write(place.file("go"), "").unwrap();
    };
    let (output, ()) = tokio::join!(sh(&place, command, &limits), checks);
    assert_eq!(output.unwrap().exit_code, 0);
    assert_eq!(heard.checkpoints(), [""; 0]);
    let expected = "the checkpoint `moving` was not taken: it changed after it was announced";
    assert_eq!(heard.lines(Stream::Server), [expected]);
}

/// The content of the files of a checkpoint, which are to be equal.
fn letters(archive: Bytes) -> Vec<u8> {
    let files = archive::unpack(Cursor::new(archive), ArchiveLimits::default()).unwrap();
    let mut letters: Vec<u8> = files.into_values().flatten().collect();
    letters.sort_unstable();
    letters.dedup();
    letters
}

/// The letters of what was taken, each of which must be whole.
fn whole(heard: &Heard) -> Vec<u8> {
    let taken: Vec<_> =
        heard.checkpoints.lock().drain(..).map(|(_, archive)| letters(archive)).collect();
    assert!(taken.iter().all(|it| it.len() == 1), "each is of one time: {taken:?}");
    taken.concat()
}

#[tokio::test]
async fn a_script_may_remove_a_checkpoint_when_the_next_is_announced() {
    let (place, heard) = heard_place();
    // Packing each takes longer than the next one takes to come.
    let command = r#"
        cd "$MODELYARD_CHECKPOINT_DIR"
        for letter in a b c d e f g h; do
            mkdir $letter
            for file in 1 2 3; do head -c 2000000 /dev/zero | tr '\0' $letter > $letter/$file; done
            echo "{\"checkpoint\": \"$letter\"}" >&3
            rm -rf "$before"; before=$letter
            sleep 0.1
        done
        exit 1
    "#;
    sh(&place, command, &Limits::default()).await.unwrap();
    assert_eq!(heard.lines(Stream::Server), [""; 0]);
    let taken = whole(&heard);
    assert!(taken.len() >= 2 && taken.is_sorted() && taken.last() == Some(&b'h'), "{taken:?}");
}

#[tokio::test]
async fn one_that_is_written_over_before_its_turn_is_not_taken() {
    let (place, heard) = heard_by(Heard { gate: Some(Notify::new()), ..Heard::default() });
    // When the second one has its turn, it is half written over, and nothing moves.
    let command = r#"
        cd "$MODELYARD_CHECKPOINT_DIR"
        echo a > first; echo '{"checkpoint": "first"}' >&3
        until test -e ../files/first; do sleep 0.01; done
        mkdir latest; echo a > latest/1; echo a > latest/2; echo '{"checkpoint": "latest", "progress": 0.5}' >&3
        until test -e ../files/second; do sleep 0.01; done
        echo b > latest/1; echo > ../files/third
        until test -e ../files/fourth; do sleep 0.01; done
    "#;
    let limits = Limits::default();
    let go = |file: &str| fs_err::write(place.file(file), "").unwrap();
    let checks = async {
        until("the first one", || heard.storing.load(Ordering::Relaxed)).await;
        go("first");
        until("the second one", || !heard.progress.lock().is_empty()).await;
        go("second");
        until("writing over it", || place.file("third").exists()).await;
        heard.gate.as_ref().unwrap().notify_one();
        until("a line", || !heard.lines(Stream::Server).is_empty()).await;
        go("fourth");
    };
    let (output, ()) = tokio::join!(sh(&place, command, &limits), checks);
    assert_eq!(output.unwrap().exit_code, 0);
    assert_eq!(heard.checkpoints(), ["first"]);
    let line = "the checkpoint `latest` was not taken: it changed after it was announced";
    assert_eq!(heard.lines(Stream::Server), [line]);
}

#[test]
fn nothing_of_a_checkpoint_is_from_after_its_announcement() {
    let checkpoints = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let it = checkpoints.path().join("it");
    let pack = |time: SystemTime| {
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let time = (time.as_secs().cast_signed(), time.subsec_nanos().into());
        let name = checkpoint::CheckpointName::read("it").unwrap();
        let announced = checkpoint::Announced::look(checkpoints.path(), name, time);
        announced.pack(checkpoints.path(), scratch.path(), ArchiveLimits::default())
    };
    let written = |file: &Path| fs_err::metadata(file).unwrap().modified().unwrap();
    let tick = || std::thread::sleep(Duration::from_millis(20));
    fs_err::create_dir(&it).unwrap();
    fs_err::write(it.join("1"), "a").unwrap();
    tick();
    fs_err::write(it.join("2"), "a").unwrap();
    let announced = written(&it.join("2")).max(written(&it));
    assert!(pack(announced).is_ok());
    assert!(pack(written(&it.join("1"))).is_err(), "one was written later");
    tick();
    fs_err::remove_file(it.join("1")).unwrap();
    assert!(pack(announced).is_err(), "one was removed later");
    assert!(pack(written(&it)).is_ok());
    assert_eq!(fs_err::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_checkpoint_is_whole_whenever_the_script_dies() {
    // One script moves its checkpoints into place; the other one writes over the one it announced.
    let moving = "rm -rf latest; mv ../new latest";
    let careless = "mkdir -p latest; for file in 1 2 3; do cat ../new/$file > latest/$file; done; rm -r ../new";
    let mut taken = 0;
    for (milliseconds, store) in [(230, moving), (310, careless), (430, moving), (570, careless)] {
        let (place, heard) = heard_place();
        let command = format!(
            r#"
            cd "$MODELYARD_CHECKPOINT_DIR"
            while :; do for letter in a b c d e f g h; do
                mkdir ../new
                for file in 1 2 3; do head -c 300000 /dev/zero | tr '\0' $letter > ../new/$file; done
                {store}
                echo '{{"checkpoint": "latest"}}' >&3
                sleep 0.0$(($$ % 7))
            done; done
            "#
        );
        let limits = Limits::default();
        let dying = async {
            sleep(Duration::from_millis(milliseconds)).await;
            let record = place.run.workspace.directory().unwrap().process_file();
            let record = fs_err::read_to_string(record).unwrap();
            assert!(procfs::Identity::parse(&record).unwrap().kill_group());
        };
        let (output, ()) = tokio::join!(sh(&place, &command, &limits), dying);
        assert_eq!(output.unwrap().exit_code, -9);
        taken += whole(&heard).len();
    }
    assert!(taken > 0);
}

#[tokio::test]
async fn what_cannot_be_a_checkpoint_is_not_taken() {
    for (command, reason) in [
        (":", "it is not there"),
        ("ln -s /etc/passwd it", "it has links, or what is neither a file nor a directory"),
        ("mkfifo it", "it has links, or what is neither a file nor a directory"),
        (
            "mkdir it; ln -s /etc/passwd it/x",
            "it has links, or what is neither a file nor a directory",
        ),
        ("echo > y; ln -s y it", "it has links, or what is neither a file nor a directory"),
        ("mkdir it; echo > \"it/$(printf '\\377')\"", "it has files whose names are not text"),
        ("head -c 2000 /dev/zero > it", "archive went over its limit of 1000 bytes"),
    ] {
        let (place, heard) = heard_place();
        let archive = ArchiveLimits { total_bytes: 1000, entries: 10 };
        let limits = Limits { archive, ..Limits::default() };
        let command = format!(
            "cd \"$MODELYARD_CHECKPOINT_DIR\"; {command}; echo '{{\"checkpoint\": \"it\"}}' >&3; exit 1"
        );
        sh(&place, &command, &limits).await.unwrap();
        assert_eq!(heard.checkpoints(), [""; 0]);
        let expected = format!("the checkpoint `it` was not taken: {reason}");
        assert_eq!(heard.lines(Stream::Server), [expected]);
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    for name in ["", ".", "..", ".hidden", "../files", "a/b", "/etc/passwd", "a\\\\b", "a\\nb"] {
        let (place, heard) = heard_place();
        let command = format!("printf '%s\\n' '{{\"checkpoint\": \"{name}\"}}' >&3; exit 1");
        sh(&place, &command, &Limits::default()).await.unwrap();
        let lines = heard.lines(Stream::Server);
        assert!(lines.len() == 1 && lines[0].contains("no name of a checkpoint"), "{lines:?}");
        assert_eq!(heard.checkpoints(), [""; 0]);
    }
}

#[tokio::test]
async fn one_that_cannot_be_stored_is_a_line_of_the_log() {
    let (place, heard) = heard_place();
    let command = "echo 1 > \"$MODELYARD_CHECKPOINT_DIR/refused\"; echo '{\"checkpoint\": \"refused\"}' >&3; exit 3";
    let output = sh(&place, command, &Limits::default()).await.unwrap();
    assert_eq!(output.exit_code, 3);
    let expected = "the checkpoint `refused` was not taken: the store is away";
    assert_eq!(heard.lines(Stream::Server), [expected]);
}

#[tokio::test]
async fn a_damaged_checkpoint_leaves_nothing() {
    let (first, heard) = heard_place();
    sh(&first, COUNT, &Limits::default()).await.unwrap();
    let (name, good) = heard.newest_checkpoint();
    let cut = good.slice(..good.len() / 2);
    let mut changed = good.to_vec();
    // In the content of the first file, behind its header.
    let at = changed.windows(5).position(|it| it == b"count").unwrap() + 6;
    changed[at] ^= 0xff;
    let other = "another".to_owned();

    let (second, _) = heard_place();
    for damaged in [(name.clone(), cut), (name.clone(), changed.into()), (other, good.clone())] {
        let error = restore(&second, damaged).await.unwrap_err();
        assert!(matches!(error, RunError::Archive(_)), "{error}");
        assert_eq!(entries(&second), [""; 0]);
    }
    restore(&second, (name.clone(), good)).await.unwrap();
    assert_eq!(entries(&second), [name]);
}
