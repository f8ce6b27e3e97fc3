use std::process::Command;

use modelyard_ml::project::Project;

use super::*;

fn options(path: &Path, name: &str, template: Template) -> InitOptions {
    InitOptions { name: name.to_owned(), template, path: path.to_owned(), modelyard: None }
}

#[test]
fn a_new_project_loads_without_notes() {
    for template in [Template::ShellPy, Template::ShellR] {
        let parent = tempfile::tempdir().unwrap();
        let files =
            create(&options(&parent.path().join("models"), "dengue-baseline", template)).unwrap();
        let root = parent.path().join("models/dengue-baseline");
        assert!(files.iter().all(|file| file.starts_with(&root) && file.is_file()));
        let project = Project::load(&root).unwrap();
        assert_eq!(project.info.id.as_str(), "dengue-baseline");
        assert_eq!(project.info.display_name, "Dengue Baseline");
        assert_eq!(project.notes, Vec::<String>::new());
    }
}

#[test]
fn nothing_of_the_template_is_left_unfilled() {
    for template in [Template::ShellPy, Template::ShellR, Template::RustFn] {
        let parent = tempfile::tempdir().unwrap();
        for file in create(&options(parent.path(), "m1", template)).unwrap() {
            let text = fs_err::read_to_string(&file).unwrap();
            assert!(
                !["@NAME@", "@TITLE@", "@SOURCE@"].iter().any(|it| text.contains(it)),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn the_python_scripts_train_and_predict() {
    let parent = tempfile::tempdir().unwrap();
    create(&options(parent.path(), "tiny", Template::ShellPy)).unwrap();
    let root = parent.path().join("tiny");
    let data = "time_period,location,disease_cases\r\n2024-01,a,3\r\n2024-02,a,3\r\n2024-01,b,\r\n2024-02,b,7\r\n";
    fs_err::write(root.join("data.csv"), data).unwrap();
    fs_err::write(
        root.join("future.csv"),
        "time_period,location\r\n2024-03,a\r\n2024-03,b\r\n2024-03,c\r\n",
    )
    .unwrap();
    fs_err::write(root.join("config.yml"), "additional_continuous_covariates: []\nn_samples: 2\n")
        .unwrap();

    let python = |arguments: &[&str]| {
        let output = Command::new("python3").args(arguments).current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = python(&["scripts/train.py", "data.csv", "model"]);
    assert_eq!(said, "trained on 3 rows of 2 locations\n");
    python(&["scripts/predict.py", "model", "future.csv", "config.yml", "predictions.csv"]);
    let predicted = fs_err::read_to_string(root.join("predictions.csv")).unwrap();
    let rows: Vec<&str> = predicted.lines().collect();
    assert_eq!(
        rows[..3],
        ["time_period,location,sample_0,sample_1", "2024-03,a,3.0,3.0", "2024-03,b,7.0,7.0"]
    );
    // A location that was never seen draws from all of them.
    assert!(rows[3].starts_with("2024-03,c,"), "{}", rows[3]);
}

#[test]
fn an_existing_directory_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    fs_err::create_dir(parent.path().join("mine")).unwrap();
    let error = create(&options(parent.path(), "mine", Template::ShellPy)).unwrap_err();
    assert!(matches!(error, InitError::Exists(_)), "{error}");
    assert_eq!(fs_err::read_dir(parent.path().join("mine")).unwrap().count(), 0);
}

#[test]
fn a_name_that_is_no_service_id_is_refused_with_one_that_is() {
    let parent = tempfile::tempdir().unwrap();
    let error = create(&options(parent.path(), "../My Model", Template::ShellPy)).unwrap_err();
    let InitError::Name { suggested, .. } = &error else { panic!("{error}") };
    assert_eq!(suggested.as_str(), "my-model");
    assert_eq!(fs_err::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_program_is_built_with_the_checkout_that_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut options = options(parent.path(), "tiny", Template::RustFn);
    options.modelyard = Some(workspace);
    create(&options).unwrap();
    let manifest = fs_err::read_to_string(parent.path().join("tiny/Cargo.toml")).unwrap();
    let here = fs_err::canonicalize(env!("CARGO_MANIFEST_DIR")).unwrap();
    let dependency = format!("modelyard = {{ path = \"{}\" }}", here.display());
    assert!(manifest.contains(&dependency), "{manifest}");

    options.name = "other".to_owned();
    options.modelyard = Some(parent.path().to_owned());
    let error = create(&options).unwrap_err();
    assert!(matches!(error, InitError::NoCheckout(_)), "{error}");
    assert!(!parent.path().join("other").exists());
}

#[test]
fn what_comes_next_fits_the_project() {
    let command = |it: Template| it.command(Path::new("./x"));
    assert_eq!(command(Template::ShellPy), "modelyard serve ./x");
    assert_eq!(command(Template::ShellR), "modelyard serve ./x");
    assert_eq!(command(Template::RustFn), "cd ./x && cargo run --release");
}
