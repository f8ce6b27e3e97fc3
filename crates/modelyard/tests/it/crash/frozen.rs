//! A node that stands still for longer than its lease, and then goes on as if nothing had happened.

use std::time::Duration;

use modelyard_testkit::{TestDatabase, run};
use rustix::process::Signal;

use super::check;
use super::load::{Load, Stage, Want};
use super::site::Site;
use crate::support::{ended, until};

#[test]
fn what_a_frozen_node_publishes_after_its_lease_is_refused() {
    run(async {
        let database = TestDatabase::postgres().await;
        let (first, second) = Site::pair(&database.url);
        let load = Load::prepare(&first, Duration::ZERO).await;
        let program = first.start().await;
        let want = Want { stage: Stage::Train, takes: Duration::from_secs(1), rows: 1 };
        let promise = load.promised("frozen", want).await;
        let begun = first.ledger().len();
        until("the training begins", async || first.ledger().len() > begun).await;
        program.signal(Signal::STOP);
        // Its script goes on, and has a result for which nobody waits any more.
        until("the script has ended", async || first.ledger().len() > begun + 1).await;

        let other = second.start().await;
        let record = ended(&other.client, &promise.submitted.job).await;
        assert_eq!(record["status"], "completed", "{record}");
        assert_eq!(record["attempt"], 2, "{record}");

        program.signal(Signal::CONT);
        let work = first.workspaces();
        assert_eq!(work.len(), 1, "{work:?}");
        until("the first has let go", async || first.workspaces().is_empty()).await;
        // Time enough to do harm.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for client in [&program.client, &other.client] {
            let path = format!("/api/v1/jobs/{}", promise.submitted.job);
            assert_eq!(client.get(&path).await.expect(200).body, record);
            let artifacts = client.get("/api/v1/artifacts").await.expect(200).body;
            let artifacts = artifacts.as_array().unwrap().len();
            assert_eq!(artifacts, 2, "its own, and that of the preparation");
        }
        load.look_at(&other.client).await;
        check::all_is_kept(&second, &load, &other.client).await;
        first.stop(program).await;
        second.stop(other).await;
    });
}
