//! How soon an interrupted job is running again: this is timed, since it is promised.

use std::time::{Duration, Instant};

use modelyard_testkit::{TestClient, TestDatabase, on_both_databases, run};

use super::check;
use super::ledger::What;
use super::load::{Load, Promise, Stage, Want};
use super::site::Site;
use crate::support::{ended, until};

/// On the node that was interrupted, from the start of its process.
const ON_THE_SAME_NODE: Duration = Duration::from_secs(1);
/// On another, from the end of the first one's process.
const ON_ANOTHER: Duration = Duration::from_secs(5);

on_both_databases! {
    async fn a_training_whose_end_was_written_down_is_not_run_again(database: TestDatabase) {
        let site = Site::new(&database.url, 1);
        let load = Load::prepare(&site, Duration::ZERO).await;
        for place in ["run.noted", "run.stored", "step.journaled", "publish.begins"] {
            let want = Want { stage: Stage::Train, takes: Duration::ZERO, rows: 1 };
            let within = Duration::from_secs(20);
            let (promise, ()) =
                tokio::join!(load.promised(place, want), site.live_until(place, within));
            let runs = || {
                let lines = site.ledger().into_iter();
                lines.filter(|it| it.what == What::Begin && it.key == place).count()
            };
            assert_eq!(runs(), 1, "{place}");
            let program = site.start().await;
            let record = ended(&program.client, &promise.submitted.job).await;
            assert_eq!((&record["status"], &record["attempt"]), (&"completed".into(), &2.into()));
            assert_eq!(runs(), 1, "{place}: it was run again");
            load.look_at(&program.client).await;
            check::all_is_kept(&site, &load, &program.client).await;
            site.stop(program).await;
        }
    }

    async fn a_restarted_node_has_its_job_running_again_within_a_second(database: TestDatabase) {
        let site = Site::new(&database.url, 1);
        let load = Load::prepare(&site, Duration::ZERO).await;
        let mut program = site.start().await;
        let promise = load.promised("again", long()).await;
        begun(&site, 1).await;
        for times in 2..6 {
            site.kill(program).await;
            let restarted = Instant::now();
            program = site.start().await;
            runs(&program.client, &promise, times).await;
            let seen = restarted.elapsed();
            begun(&site, times).await;
            println!("running again after {seen:?}, its script after {:?}", restarted.elapsed());
            assert!(restarted.elapsed() < ON_THE_SAME_NODE, "{:?}", restarted.elapsed());
        }
        let record = ended(&program.client, &promise.submitted.job).await;
        assert_eq!(record["status"], "completed", "{record}");
        site.stop(program).await;
    }
}

#[test]
fn the_job_of_a_dead_node_is_running_again_on_another_within_five_seconds() {
    run(async {
        let database = TestDatabase::postgres().await;
        let (first, second) = Site::pair(&database.url);
        let load = Load::prepare(&first, Duration::ZERO).await;
        let program = first.start().await;
        let promise = load.promised("elsewhere", long()).await;
        begun(&first, 1).await;
        let other = second.start().await;
        // Others may take over once they have been there for a while.
        tokio::time::sleep(Duration::from_secs(4)).await;
        first.kill(program).await;
        let killed = Instant::now();
        begun(&second, 2).await;
        println!("running on another node after {:?}", killed.elapsed());
        assert!(killed.elapsed() < ON_ANOTHER, "{:?}", killed.elapsed());
        runs(&other.client, &promise, 2).await;
        let record = ended(&other.client, &promise.submitted.job).await;
        assert_eq!(record["status"], "completed", "{record}");
        second.stop(other).await;
        // What the dead one left on its machine it removes itself.
        let program = first.start().await;
        first.stop(program).await;
    });
}

/// A training that is interrupted long before its end.
fn long() -> Want {
    Want { stage: Stage::Train, takes: Duration::from_secs(6), rows: 1 }
}

/// Waits until trainings were begun so many times, beside the one of [`Load::prepare`].
async fn begun(site: &Site, times: usize) {
    until("a training begins", async || {
        site.ledger().iter().filter(|it| it.what == What::Begin).count() > times
    })
    .await;
}

async fn runs(client: &TestClient, promise: &Promise, attempt: usize) {
    let path = format!("/api/v1/jobs/{}", promise.submitted.job);
    until("the job runs", async || {
        let record = client.get(&path).await.expect(200).body;
        record["status"] == "running" && record["attempt"] == attempt
    })
    .await;
}
