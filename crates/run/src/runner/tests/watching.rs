use super::*;

#[tokio::test]
async fn lines_are_heard_while_the_script_runs() {
    let (place, heard) = heard_place();
    let command = "echo first; echo second >&2; printf ' 1%%\r 2%%\r'; until test -e go; do sleep 0.01; done; printf last";
    let limits = Limits::default();
    let checks = async {
        until("lines", || heard.lines.lock().len() == 4).await;
        assert_eq!(heard.lines(Stream::Stdout), ["first", " 1%", " 2%"]);
        assert_eq!(heard.lines(Stream::Stderr), ["second"]);
        fs_err::write(place.file("go"), "").unwrap();
    };
    let (output, ()) = tokio::join!(sh(&place, command, &limits), checks);
    assert_eq!(output.unwrap().stdout, "first\n 1%\r 2%\rlast");
    assert_eq!(heard.lines(Stream::Stdout), ["first", " 1%", " 2%", "last"]);
}

#[tokio::test]
async fn progress_is_heard_while_the_script_runs() {
    let (place, heard) = heard_place();
    // The second line is written in two parts, with a pause in which it is read.
    let command = r#"
        echo '{"progress": 0.25, "message": "epoch 1", "counters": {"epoch": 1}}' >>"$MODELYARD_PROGRESS"
        printf '{"prog' >&$MODELYARD_PROGRESS_FD
        until test -e go; do sleep 0.01; done
        printf 'ress": 0.5}\nno JSON\nnor this\n{"counters": {"epoch": 2}}\n{"progress": 1' >&3
    "#;
    let limits = Limits::default();
    let checks = async {
        until("progress", || !heard.progress.lock().is_empty()).await;
        let first = heard.progress.lock().first().cloned().unwrap();
        assert_eq!(first.fraction, Some(0.25));
        assert_eq!(first.message.as_deref(), Some("epoch 1"));
        sleep(Duration::from_millis(250)).await;
        fs_err::write(place.file("go"), "").unwrap();
    };
    let (output, ()) = tokio::join!(sh(&place, command, &limits), checks);
    assert_eq!(output.unwrap().exit_code, 0);
    let last = heard.progress.lock().last().cloned().unwrap();
    assert_eq!(last.fraction, Some(0.5), "the last line was not written to its end");
    assert_eq!(last.counters, BTreeMap::from([("epoch".to_owned(), 2.0)]));
    assert_eq!(
        heard.lines(Stream::Server),
        ["a line of MODELYARD_PROGRESS: it is no JSON object"],
        "once"
    );
}

#[tokio::test]
async fn what_a_script_tells_is_not_in_its_artifact() {
    let (place, heard) = heard_place();
    let command = r#"
        echo model > model
        echo x > "$MODELYARD_CHECKPOINT_DIR/first"
        echo '{"progress": 1, "checkpoint": "first"}' >>"$MODELYARD_PROGRESS"
    "#;
    sh(&place, command, &Limits::default()).await.unwrap();
    assert_eq!(heard.progress.lock().len(), 1);
    let archive = place.run.workspace.into_archive(ArchiveLimits::default()).await.unwrap();
    let Archive::Memory(archive) = archive else { panic!("it is small") };
    let files = archive::unpack(io::Cursor::new(archive), ArchiveLimits::default()).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["model"]);
}

#[tokio::test]
async fn a_script_that_floods_its_progress_is_heard_a_few_times_a_second() {
    let (place, heard) = heard_place();
    let command = r#"
        awk 'BEGIN { for (i = 1; i <= 100000; i++) print "{\"progress\": " i / 100000 "}" }' >&3
    "#;
    sh(&place, command, &Limits::default()).await.unwrap();
    let progress = heard.progress.lock();
    assert_eq!(progress.last().unwrap().fraction, Some(1.0));
    assert!(progress.len() < 1000, "{}", progress.len());
    assert!(heard.lines.lock().is_empty());
}

#[tokio::test]
async fn a_script_may_remove_or_replace_its_progress_file() {
    let (place, heard) = heard_place();
    let command = r#"
        rm "$MODELYARD_PROGRESS"; mkfifo "$MODELYARD_PROGRESS"
        echo '{"progress": 0.5}' >&3
    "#;
    sh(&place, command, &Limits::default()).await.unwrap();
    assert_eq!(heard.progress.lock().last().unwrap().fraction, Some(0.5));
}

#[tokio::test]
async fn functions_are_heard_too() {
    let train = |_: Value, data: TrainData| async move {
        data.report.progress(0.5, "half of it");
        data.report.say("one\ntwo");
        data.report.progress(f64::NAN, "who knows");
        Ok(1)
    };
    let runner = functions(train, |_: Value, _: i32, data: PredictData| async move {
        data.report.say("predicting");
        Ok(data.future)
    });
    let (place, heard) = heard_place();
    runner.train(&place.run, train_input(json!({}), None)).await.unwrap();
    runner.predict(&place.run, predict_input(json!({}))).await.unwrap();
    assert_eq!(heard.lines(Stream::Stdout), ["one", "two", "predicting"]);
    let fractions: Vec<_> = heard.progress.lock().iter().map(|it| it.fraction).collect();
    assert_eq!(fractions, [Some(0.5), None]);
}

#[tokio::test]
async fn exit_code_75_says_that_it_may_go_well_later() {
    for (command, verdict) in [("exit 75", Verdict::Transient), ("exit 1", Verdict::Permanent)] {
        let project = tempfile::tempdir().unwrap();
        let spec = ShellSpec::new(project.path(), command, "true");
        let place = place();
        let runner = ShellRunner::new(spec).unwrap();
        let error = runner.train(&place.run, train_input(json!({}), None)).await.unwrap_err();
        assert_eq!(error.is_transient(), verdict == Verdict::Transient);
        assert_eq!(Failed::from(error).verdict, verdict);
    }
}
