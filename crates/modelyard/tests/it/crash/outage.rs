//! The database is restarted under load.

use std::time::Duration;

use modelyard_testkit::run;

use super::check;
use super::load::Load;
use super::random::Random;
use super::site::Site;
use crate::support::postgres::Postgres;

#[test]
fn restarting_postgres_under_load_loses_nothing_that_was_promised() {
    run(async {
        let mut postgres = Postgres::start().await;
        let site = Site::new(&postgres.url(), 2);
        let mut random = Random::of_this_run();
        let load = Load::prepare(&site, Duration::from_millis(60)).await;
        let program = site.start().await;
        let mut chances = random.fork();
        let restarting = async {
            for _ in 0..3 {
                let moment = Duration::from_millis(500);
                tokio::time::sleep(moment + chances.time_below(moment)).await;
                postgres.restart().await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            load.end();
        };
        tokio::join!(restarting, load.run(&mut random));
        check::all_is_kept(&site, &load, &program.client).await;
        site.stop(program).await;
    });
}
