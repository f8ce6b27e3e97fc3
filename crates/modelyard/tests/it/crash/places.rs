//! Every place between two durable writes: killed there, and all is well after the next start.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use modelyard_kernel::failpoint::PLACES;
use modelyard_testkit::on_both_databases;

use super::check;
use super::load::Load;
use super::random::Random;
use super::site::Site;

/// How long it may take until the load comes by a place.
const PATIENCE: Duration = Duration::from_secs(20);

/// In so many parts, each of which a run has time for.
const PARTS: usize = 8;

on_both_databases! {
    async fn killed_at_places_of_the_first_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 0)).await;
    }

    async fn killed_at_places_of_the_second_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 1)).await;
    }

    async fn killed_at_places_of_the_third_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 2)).await;
    }

    async fn killed_at_places_of_the_fourth_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 3)).await;
    }

    async fn killed_at_places_of_the_fifth_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 4)).await;
    }

    async fn killed_at_places_of_the_sixth_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 5)).await;
    }

    async fn killed_at_places_of_the_seventh_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 6)).await;
    }

    async fn killed_at_places_of_the_eighth_part_it_keeps_what_it_promised(database: TestDatabase) {
        Box::pin(walk(&Site::new(&database.url, 2), 7)).await;
    }
}

/// Ends at each place of a part in turn, which must happen, and keeps every promise between them.
async fn walk(site: &Site, part: usize) {
    let mut random = Random::of_this_run();
    let load = Load::with_schedules(site, Duration::from_millis(30)).await;
    let walking = async {
        for place in PLACES.iter().skip(part).step_by(PARTS) {
            println!("{place}");
            // Something is left in the middle, for places on the way of beginning again.
            site.live_until_begun().await;
            site.live_until(place, PATIENCE).await;
            let program = site.start().await;
            load.settle().await;
            site.stop(program).await;
        }
        let program = site.start().await;
        load.end();
        program
    };
    let (program, ()) = tokio::join!(walking, load.run(&mut random));
    check::all_is_kept(site, &load, &program.client).await;
    site.stop(program).await;
}

#[test]
fn every_place_is_listed_and_every_listed_place_is_in_the_source() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut in_source = BTreeSet::new();
    for file in crate::support::files(crates) {
        let is_source = file.ends_with(".rs") && file.contains("/src/");
        if !is_source || file.ends_with("kernel/src/failpoint.rs") {
            continue;
        }
        let source = fs_err::read_to_string(&file).unwrap();
        for reached in source.split("failpoint::reach(").skip(1) {
            let name = reached.trim_start().strip_prefix('"').and_then(|it| it.split_once('"'));
            let Some((name, _)) = name else { panic!("{file}: a place without a name") };
            in_source.insert(name.to_owned());
        }
    }
    let listed: BTreeSet<String> = PLACES.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(listed.len(), PLACES.len(), "a place is listed twice");
    assert_eq!(listed, in_source);
}
