use std::io::Cursor;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    n_lags: usize,
}

async fn rows(_: Config, data: TrainData) -> Result<usize, ModelError> {
    Ok(data.data.data.len())
}

async fn repeat(config: Config, rows: usize, data: PredictData) -> Result<Frame, ModelError> {
    let mut predictions = data.future;
    predictions.columns.push("sample_0".to_owned());
    for row in &mut predictions.data {
        row.push((rows + config.n_lags).into());
    }
    Ok(predictions)
}

fn files(run: &Run) -> Vec<String> {
    let entries = fs_err::read_dir(run.workspace.path().unwrap()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn two_functions_make_a_model() {
    let runner = functions(rows, repeat);
    let Place { run, root: _root } = place();
    let geo = Some(json!({"type": "FeatureCollection", "features": []}));
    runner.train(&run, train_input(json!({"n_lags": 1}), geo)).await.unwrap();
    assert_eq!(files(&run), ["config.yml", "data.csv", "geo.json", "model.json"]);
    let predicted = runner.predict(&run, predict_input(json!({"n_lags": 5}))).await.unwrap();
    assert_eq!(predicted.predictions.data, [[json!("2023-03"), json!(7)]]);
    let names = [
        "config.yml",
        "data.csv",
        "future.csv",
        "geo.json",
        "historic.csv",
        "model.json",
        "predictions.csv",
    ];
    assert_eq!(files(&run), names);
}

#[tokio::test]
async fn functions_need_no_directory() {
    let runner = functions(rows, repeat);
    assert!(!runner.needs_directory());
    let scratch = tempfile::tempdir().unwrap();
    let run = || Run::new(Workspace::in_memory(scratch.path()), CancellationToken::new());
    let training = run();
    assert!(training.workspace.path().is_err());
    runner.train(&training, train_input(json!({}), None)).await.unwrap();
    let archive = training.workspace.into_archive(ArchiveLimits::default()).await.unwrap();
    let Archive::Memory(archive) = archive else { panic!("it is small") };

    for size in [archive.len() as u64, u64::MAX] {
        let prediction = run();
        let zip = Cursor::new(archive.clone());
        prediction.workspace.extract(zip, size, ArchiveLimits::default()).await.unwrap();
        let zip = Cursor::new(archive.clone());
        let twice = prediction.workspace.extract(zip, size, ArchiveLimits::default()).await;
        assert!(matches!(twice, Err(RunError::Archive(_))), "{twice:?}");
        let predicted = runner.predict(&prediction, predict_input(json!({"n_lags": 5}))).await;
        assert_eq!(predicted.unwrap().predictions.data, [[json!("2023-03"), json!(7)]]);
        let archive = prediction.workspace.into_archive(ArchiveLimits::default()).await.unwrap();
        let Archive::Memory(archive) = archive else { panic!("it is small") };
        let files = archive::unpack(Cursor::new(archive), ArchiveLimits::default()).unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let expected = [
            "config.yml",
            "data.csv",
            "future.csv",
            "historic.csv",
            "model.json",
            "predictions.csv",
        ];
        assert_eq!(names, expected);
    }
    let empty = runner.predict(&run(), predict_input(json!({}))).await.unwrap_err();
    assert_eq!(empty.to_string(), "FileNotFoundError: the training artifact has no model.json");
    assert_eq!(fs_err::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn computing_does_not_hold_up_the_server() {
    let busy = |_: Config, _: TrainData| async {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        Ok(1)
    };
    let runner = functions(busy, repeat);
    let Place { run, root: _root } = place();
    let ticks = async {
        for _ in 0..10 {
            sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    };
    let train = async {
        runner.train(&run, train_input(json!({}), None)).await.unwrap();
        Instant::now()
    };
    let (ticked, trained) = tokio::join!(ticks, train);
    assert!(ticked < trained, "the timer had its turns while the function computed");
}

#[tokio::test]
async fn a_canceled_function_is_not_waited_for() {
    let (told, tell) = std::sync::mpsc::channel();
    let stubborn = move |_: Config, data: TrainData| {
        let told = told.clone();
        async move {
            let start = Instant::now();
            while !data.cancel.is_cancelled() && start.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
            told.send(data.cancel.is_cancelled()).unwrap();
            std::thread::sleep(Duration::from_millis(200));
            Ok(1)
        }
    };
    let runner = functions(stubborn, repeat);
    let Place { run, root: _root } = place();
    let cancel = run.cancel.clone();
    let canceling = async {
        sleep(Duration::from_millis(50)).await;
        cancel.cancel();
        Instant::now()
    };
    let (result, canceled) =
        tokio::join!(runner.train(&run, train_input(json!({}), None)), canceling);
    assert!(matches!(result, Err(RunError::Canceled)));
    assert!(canceled.elapsed() < Duration::from_millis(150), "{:?}", canceled.elapsed());
    assert_eq!(tell.recv(), Ok(true));
}

#[tokio::test]
async fn a_dropped_run_tells_its_function() {
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let waiting = move |_: Config, data: TrainData| {
        let told = told.clone();
        async move {
            told.send(data.cancel.clone()).unwrap();
            std::future::pending::<Result<usize, ModelError>>().await
        }
    };
    let runner = functions(waiting, repeat);
    let Place { run, root: _root } = place();
    let token = {
        let training = runner.train(&run, train_input(json!({}), None));
        tokio::select! {
            _ = training => panic!("it waits for ever"),
            token = tell.recv() => token.unwrap(),
        }
    };
    assert!(timeout(Duration::from_secs(5), token.cancelled()).await.is_ok());
}

#[tokio::test]
async fn a_function_knows_the_job_that_it_is_for() {
    let train = |_: Config, data: TrainData| async move {
        Ok(data.job.map(|it| (it.id.to_string(), it.idempotency_key)))
    };
    let predict = |_: Config, trained: Option<(String, String)>, data: PredictData| async move {
        let job = data.job.unwrap();
        assert_eq!(trained, Some((job.id.to_string(), job.idempotency_key)));
        Ok(data.future)
    };
    let runner = functions(train, predict);
    let Place { run, root: _root } = place();
    let id = Ulid::read("01M7W2VW5SZCEB0G592J0SM0XC").unwrap();
    let run = run.for_job(RunJob { id, idempotency_key: format!("{id}-run") });
    runner.train(&run, train_input(json!({}), None)).await.unwrap();
    runner.predict(&run, predict_input(json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_function_can_say_that_its_failure_may_pass() {
    let train = |config: Config, _: TrainData| async move {
        let error = "x".parse::<usize>().map(drop).map_err(ModelError::from).unwrap_err();
        if config.n_lags == 0 { Err(error.transient()) } else { Err::<usize, _>(error) }
    };
    let runner = functions(train, repeat);
    for (n_lags, verdict) in [(0, Verdict::Transient), (1, Verdict::Permanent)] {
        let Place { run, root: _root } = place();
        let input = train_input(json!({"n_lags": n_lags}), None);
        let failed = Failed::from(runner.train(&run, input).await.unwrap_err());
        assert_eq!(failed.verdict, verdict);
        assert_eq!(failed.error, "ParseIntError: invalid digit found in string");
    }
}

#[tokio::test]
async fn errors_and_panics_keep_their_names() {
    let failing = |config: Config, _: TrainData| async move {
        match config.n_lags {
            0 => Err(ModelError::of("ValueError", "no lags"))?,
            1 => "x".parse::<f64>().map_err(ModelError::from),
            2 => panic!("number {}", config.n_lags),
            3 => Ok(serde_json::from_str::<f64>("x")?),
            _ => Ok(f64::NAN),
        }
    };
    let runner =
        functions(failing, |_: Config, _: f64, data: PredictData| async { Ok(data.future) });
    let mut errors = Vec::new();
    for n_lags in 0..5 {
        let Place { run, root: _root } = place();
        let input = train_input(json!({"n_lags": n_lags}), None);
        errors.push(runner.train(&run, input).await.unwrap_err().to_string());
    }
    assert_eq!(
        errors,
        [
            "ValueError: no lags",
            "ParseFloatError: invalid float literal",
            "Panic: number 2",
            "serde_json::Error: expected value at line 1 column 1",
            "ValueError: model.json cannot be read back: invalid type: null, expected f64 at line 1 column 4",
        ]
    );
    let Place { run, root: _root } = place();
    let error = runner.train(&run, train_input(json!({"n_lags": "x"}), None)).await.unwrap_err();
    assert!(error.to_string().starts_with("ValueError: the config does not fit the model: "));
    let error = runner.predict(&run, predict_input(json!({}))).await.unwrap_err();
    assert_eq!(error.to_string(), "FileNotFoundError: the training artifact has no model.json");
}

#[tokio::test]
async fn functions_can_check_requests() {
    let finding = |message: String| Diagnostic {
        severity: Severity::Error,
        code: "short".to_owned(),
        message,
        field: Some("data".to_owned()),
    };
    let runner = functions(rows, repeat).validate_train(move |_: Config, data| async move {
        Ok(vec![finding(format!("{} rows", data.data.data.len()))])
    });
    let runner: Box<dyn Runner> = Box::new(runner);
    let Place { run, root: _root } = place();
    let found = runner.validate_train(&run, train_input(json!({}), None)).await.unwrap();
    assert_eq!(
        serde_json::to_string(&found).unwrap(),
        r#"[{"severity":"error","code":"short","message":"2 rows","field":"data"}]"#
    );
    assert_eq!(runner.validate_predict(&run, predict_input(json!({}))).await.unwrap(), []);
}

struct Stateful {
    ready: AtomicBool,
}

impl Model for Stateful {
    type Config = Value;
    type Fitted = bool;

    async fn on_init(&self) -> Result<(), ModelError> {
        self.ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn train(&self, _: Value, _: TrainData) -> Result<bool, ModelError> {
        Ok(self.ready.load(Ordering::Relaxed))
    }

    async fn predict(&self, _: Value, ready: bool, data: PredictData) -> Result<Frame, ModelError> {
        if ready { Ok(data.future) } else { Err(ModelError::new("not ready")) }
    }
}

#[tokio::test]
async fn a_type_can_have_a_life_of_its_own() {
    let runner: Box<dyn Runner> = Box::new(ModelRunner::new(Stateful { ready: false.into() }));
    let Place { run, root: _root } = place();
    runner.train(&run, train_input(json!({}), None)).await.unwrap();
    let error = runner.predict(&run, predict_input(json!({}))).await.unwrap_err();
    assert_eq!(error.to_string(), "ModelError: not ready");
    runner.on_init().await.unwrap();
    runner.train(&run, train_input(json!({}), None)).await.unwrap();
    runner.predict(&run, predict_input(json!({}))).await.unwrap();
    runner.on_cleanup().await;
}
