//! A process that serves and does no jobs, and processes that do nothing else, killed again and again.

use std::time::Duration;

use modelyard_testkit::{TestDatabase, run};

use super::check;
use super::load::Load;
use super::random::{Random, kills};
use super::site::Site;

#[test]
fn workers_that_are_killed_leave_nothing_undone() {
    run(async {
        let database = TestDatabase::postgres().await;
        let site = Site::shared(&database.url);
        let mut random = Random::of_this_run();
        let load = Load::with_schedules(&site, Duration::from_millis(60)).await;
        let serving = site.without_workers();
        let (lasting, killed) = (site.beside("worker-1"), site.beside("worker-2"));
        let mut chances = random.fork();
        let program = serving.start().await;
        let killing = async {
            let worker = lasting.work();
            for _ in 0..kills(8) {
                killed.work_until(chances.time_below(Duration::from_millis(800))).await;
            }
            load.end();
            worker
        };
        let (worker, ()) = tokio::join!(killing, load.run(&mut random));
        check::all_is_kept(&site, &load, &program.client).await;
        lasting.stop_working(worker).await;
        // What it left behind is tidied up by its next life.
        let worker = killed.work();
        tokio::time::sleep(Duration::from_secs(2)).await;
        killed.stop_working(worker).await;
        serving.stop(program).await;
    });
}
