//! The database is restarted under load, and has no room left on its disk.

use std::time::Duration;

use modelyard_testkit::run;

use super::check;
use super::load::Load;
use super::random::Random;
use super::site::Site;
use crate::support::fill;
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

#[test]
fn jobs_wait_for_room_on_the_disk_of_postgres_and_go_on() {
    run(async {
        let postgres = Postgres::on_a_small_disk(96).await;
        let site = Site::new(&postgres.url(), 2);
        let mut random = Random::of_this_run();
        let load = Load::prepare(&site, Duration::from_millis(60)).await;
        let program = site.start().await;
        let filling = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let before = load.promises().len();
            let ballast = fill(&postgres.data());
            let size = fs_err::metadata(&ballast).unwrap().len();
            assert!(size < 96 << 20, "the disk is not small");
            tokio::time::sleep(Duration::from_secs(5)).await;
            println!("{} promises on a full disk", load.promises().len() - before);
            fs_err::remove_file(ballast).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            load.end();
        };
        tokio::join!(filling, load.run(&mut random));
        check::all_is_kept(&site, &load, &program.client).await;
        site.stop(program).await;
    });
}
