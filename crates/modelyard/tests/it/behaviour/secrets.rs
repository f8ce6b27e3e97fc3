//! What a service keeps in the directory of its project stays there.

use modelyard_testkit::run;
use serde_json::json;

use crate::support::program::{Program, Project};
use crate::support::{config, ended, train_with};

/// Trains where there is nothing but the project's own.
const TRAIN: &str = "for it in modelyard.toml other.toml keys.txt .env .env.local .ssh
do test ! -e \"$it\" || { echo \"$it is here\" >&2; exit 3; }; done
test -e train.sh && touch model
";

#[test]
fn no_artifact_holds_the_keys_of_the_service() {
    run(async {
        let project = Project::new(TRAIN);
        let directory = project.path();
        fs_err::create_dir(directory.join(".ssh")).unwrap();
        for (file, text) in [
            ("other.toml", "[registration]\nkey = \"secret\"\n"),
            ("keys.txt", "sesame\n"),
            (".env", "PASSWORD=secret\n"),
            (".env.local", "PASSWORD=secret\n"),
            (".ssh/id_ed25519", "secret\n"),
        ] {
            fs_err::write(directory.join(file), text).unwrap();
        }
        let mut command = project.serve();
        command
            .arg("--config")
            .arg(directory.join("other.toml"))
            .env("MODELYARD_AUTH__API_KEY_FILE", directory.join("keys.txt"));
        let mut program = Program::start(command).await;
        program.client = program.client.with_header("x-api-key", "sesame");
        let id = config(&program.client, json!({})).await;
        let job = train_with(&program.client, &id).await.job;
        let record = ended(&program.client, &job).await;
        assert_eq!(record["status"], "completed", "{record}");
    });
}
