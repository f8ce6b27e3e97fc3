//! Killed at random moments, again and again.

use std::time::{Duration, Instant};

use modelyard_testkit::on_both_databases;

use super::check;
use super::load::Load;
use super::random::{Random, kills};
use super::site::Site;

on_both_databases! {
    async fn killed_at_random_moments_it_keeps_what_it_promised(database: TestDatabase) {
        let moments = Moments { kills: kills(40), serving: Duration::from_millis(400) };
        storm(&Site::new(&database.url, 1), moments).await;
    }

    async fn killed_with_several_jobs_at_a_time_it_keeps_what_it_promised(database: TestDatabase) {
        let moments = Moments { kills: kills(35), serving: Duration::from_millis(300) };
        storm(&Site::new(&database.url, 4), moments).await;
    }

    async fn killed_while_it_starts_it_keeps_what_it_promised(database: TestDatabase) {
        let moments = Moments { kills: kills(25), serving: Duration::from_millis(40) };
        storm(&Site::new(&database.url, 2), moments).await;
    }
}

/// When it is killed: sometime between its start and when it has served for a while.
struct Moments {
    kills: u32,
    serving: Duration,
}

async fn storm(site: &Site, Moments { kills, serving }: Moments) {
    let mut random = Random::of_this_run();
    let load = Load::with_schedules(site, Duration::from_millis(60)).await;
    let began = Instant::now();
    let program = site.start().await;
    let starting = began.elapsed();
    site.stop(program).await;
    println!("it takes {starting:?} to start");
    let mut chances = random.fork();
    let killing = async {
        for _ in 0..kills {
            // Now and then it lives long enough to get something done.
            let longer = if chances.below(8) == 0 { 4 } else { 1 };
            site.live(chances.time_below(starting + serving * longer)).await;
        }
        let program = site.start().await;
        load.end();
        program
    };
    let (program, ()) = tokio::join!(killing, load.run(&mut random));
    println!("it was killed {kills} times");
    check::all_is_kept(site, &load, &program.client).await;
    site.stop(program).await;
}
