//! The scripts of `docs/scripts.md`, run.

use std::io::Cursor;

use super::*;

/// The blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = include_str!("../../../../../docs/scripts.md");
    let opening = format!("```{language}\n");
    page.split(&opening)
        .skip(1)
        .map(|rest| rest.split_once("```\n").unwrap().0.to_owned())
        .collect()
}

async fn run_block(place: &Place, interpreter: &str, block: &str) -> ScriptOutput {
    fs_err::write(place.file("script"), block).unwrap();
    let command = format!("exec {interpreter} script");
    sh(place, &command, &Limits::default()).await.unwrap()
}

fn is_there(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok()
}

#[tokio::test]
async fn progress_is_told_as_the_page_says() {
    let mut run = 0;
    for (language, interpreter) in [("sh", "sh"), ("python", "python3"), ("r", "Rscript")] {
        let block = blocks(language).swap_remove(0);
        // Not everybody has R.
        if interpreter == "Rscript" && !is_there(interpreter) {
            continue;
        }
        let (place, heard) = heard_place();
        let output = run_block(&place, interpreter, &block).await;
        assert_eq!(output.exit_code, 0, "{language}: {}", output.stderr);
        let told = heard.progress.lock().last().cloned().unwrap();
        assert_eq!(told.fraction, Some(0.5), "{language}");
        assert!(told.message.is_some(), "{language}");
        assert_eq!(heard.lines(Stream::Server), [""; 0], "{language}");
        run += 1;
    }
    assert!(run >= 2);
}

#[tokio::test]
async fn a_training_that_dies_is_gone_on_with_as_the_page_says() {
    for (language, interpreter, slow, last) in [
        ("python", "python3", "    # One epoch of training.", "    __import__('time').sleep(0.15)"),
        ("sh", "sh", "    count=$((count + 1))", "    count=$((count + 1)); sleep 0.15"),
    ] {
        let block = blocks(language).swap_remove(1);
        assert!(block.contains(slow), "{language}");
        // Long enough that it can be ended in the middle.
        let block = block.replace(slow, last);

        let (first, heard) = heard_place();
        let dying = async {
            until("two checkpoints", || heard.checkpoints.lock().len() >= 2).await;
            let record = first.run.workspace.directory().unwrap().process_file();
            let record = fs_err::read_to_string(record).unwrap();
            assert!(procfs::Identity::parse(&record).unwrap().kill_group());
        };
        let (output, ()) = tokio::join!(run_block(&first, interpreter, &block), dying);
        assert_eq!(output.exit_code, -9, "{language}: {}", output.stderr);
        assert!(!first.file("model").exists());

        let (name, archive) = heard.newest_checkpoint();
        let epoch: String = name.chars().filter(char::is_ascii_digit).collect();
        let (second, heard) = heard_place();
        let restored = second.run.workspace.restore_checkpoint(
            &name,
            Cursor::new(archive),
            ArchiveLimits::default(),
        );
        restored.await.unwrap();
        let output = run_block(&second, interpreter, &block).await;
        assert_eq!(output.stdout, format!("beginning after epoch {epoch}\n"), "{language}");
        assert_eq!(output.exit_code, 0, "{language}: {}", output.stderr);
        assert!(fs_err::read_to_string(second.file("model")).unwrap().contains("10"));
        assert_eq!(heard.lines(Stream::Server), [""; 0], "{language}");
    }
}
