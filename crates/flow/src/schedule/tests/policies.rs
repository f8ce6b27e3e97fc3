//! Misfires, overlaps, pauses, jitter.

use super::*;

on_both_databases! {
    async fn after_an_outage_each_schedule_does_what_it_says(database: TestDatabase) {
        let server = Server::new(&database);
        let ids = [
            "01JCSEED00000000000000SK1P",
            "01JCSEED00000000000000NCE0",
            "01JCSEED00000000000000CATC",
        ];
        for (id, misfire) in ids.into_iter().zip(["skip", "once", "catch_up"]) {
            server.create(id, json!({"misfire": misfire})).await;
        }
        server.advance(hours(4) + minutes(30)).await;
        let [one, two, three, four] = ["01:00", "02:00", "03:00", "04:00"];
        let skipped = "skipped_misfire";
        assert_eq!(
            server.history(ids[0]).await,
            [four, three, two, one].map(|it| line(it, skipped))
        );
        assert_eq!(
            server.history(ids[1]).await,
            [line(four, "fired"), line(three, skipped), line(two, skipped), line(one, skipped)]
        );
        assert_eq!(
            server.history(ids[2]).await,
            [four, three, two, one].map(|it| line(it, "fired"))
        );
        assert_eq!(server.jobs().await, 5);
        // All go on at the next hour.
        server.advance(minutes(30)).await;
        for id in ids {
            assert_eq!(server.history(id).await[0], line("05:00", "fired"));
        }
    }

    async fn catching_up_is_bounded(database: TestDatabase) {
        let server = Server::new(&database);
        let minutely = json!({"type": "cron", "expression": "* * * * *"});
        server.create(ID, json!({"trigger": minutely, "misfire": "catch_up"})).await;
        server.advance(hours(300)).await;
        // Those on time as well, of which there are two in the last minute.
        assert_eq!(server.launched(), MAX_CATCH_UP + 2);
        let history = server.history(ID).await;
        assert_eq!(history.len(), HISTORY);
        assert!(history.iter().all(|it| it.1 == "fired"));
    }

    async fn while_a_job_runs_the_ticks_of_its_schedule_are_skipped(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({"overlap": "skip"})).await;
        server.advance(hours(1)).await;
        server.advance(hours(1)).await;
        server.end_all().await;
        server.advance(hours(1)).await;
        assert_eq!(
            server.history(ID).await,
            [line("03:00", "fired"), line("02:00", "skipped_overlap"), line("01:00", "fired")]
        );
        assert_eq!(server.jobs().await, 2);
        // What has ended is asked once.
        for _ in 0..2 {
            assert_eq!(server.open_jobs(ID).await, 1);
            server.end_all().await;
            server.advance(hours(1)).await;
        }
        assert_eq!(server.open_jobs(ID).await, 1);
        let schedule = server.get(&format!("/{ID}")).await.expect(200);
        assert_eq!(schedule["last_at"], "2026-09-01T05:00:00.000000Z");
    }

    async fn a_job_that_outlasts_the_history_of_its_schedule_still_counts(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({"overlap": "skip"})).await;
        for _ in 0..HISTORY + 10 {
            server.advance(hours(1)).await;
        }
        assert_eq!(server.jobs().await, 1);
        let history = server.history(ID).await;
        assert_eq!(history.len(), HISTORY + 1);
        assert_eq!(history.last(), Some(&line("01:00", "fired")));
        server.end_all().await;
        server.advance(hours(1)).await;
        assert_eq!((server.jobs().await, server.history(ID).await.len()), (2, HISTORY));
    }

    async fn any_earlier_job_counts_not_only_the_last(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        server.advance(hours(1)).await;
        server.advance(hours(1)).await;
        let last = server.world.launched.lock()[1].0;
        server.end(last).await;
        server
            .put(&format!("/{ID}"), {
                let mut body = hourly(ID);
                body["overlap"] = json!("skip");
                body
            })
            .await
            .expect(200);
        server.advance(hours(1)).await;
        assert_eq!(server.history(ID).await[0], line("03:00", "skipped_overlap"));
    }

    async fn jobs_may_overlap_where_that_is_allowed(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        server.advance(hours(1)).await;
        server.advance(hours(1)).await;
        assert_eq!(server.jobs().await, 2);
    }

    async fn what_a_pause_passes_over_never_fires(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({"misfire": "catch_up"})).await;
        let paused = server.post(&format!("/{ID}/$pause"), Value::Null).await.expect(200);
        assert_eq!((&paused["enabled"], &paused["next_at"]), (&json!(false), &Value::Null));
        assert_eq!(server.advance(hours(3) + minutes(10)).await.next, None);
        let again = server.post(&format!("/{ID}/$pause"), Value::Null).await;
        assert_eq!(again.body["updated_at"], paused["updated_at"]);
        let resumed = server.post(&format!("/{ID}/$resume"), Value::Null).await.expect(200);
        assert_eq!(resumed["next_at"], "2026-09-01T04:00:00.000000Z");
        server.look().await;
        assert_eq!(server.launched(), 0);
        server.advance(minutes(50)).await;
        assert_eq!(server.history(ID).await, [line("04:00", "fired")]);
    }

    async fn a_tick_waits_for_its_share_of_the_jitter(database: TestDatabase) {
        let server = Server::new(&database);
        let schedule = server.create(ID, json!({"jitter_seconds": 1800})).await;
        let due: Time = schedule["next_at"].as_str().unwrap().parse().unwrap();
        let tick: Time = "2026-09-01T01:00:00Z".parse().unwrap();
        let late = due.since(tick);
        assert!(late > Duration::ZERO && late <= minutes(30));
        let looked = server.advance(hours(1)).await;
        assert_eq!((looked.next, server.launched()), (Some(due), 0));
        server.advance(late).await;
        assert_eq!(server.history(ID).await, [line("01:00", "fired")]);
        // Preview and history name the tick, without it.
        let next = server.get(&format!("/{ID}/$next?count=1")).await.expect(200);
        assert_eq!(next[0]["at"], "2026-09-01T02:00:00.000000Z");
    }

    async fn a_change_of_name_loses_no_tick(database: TestDatabase) {
        let server = Server::new(&database);
        server.create(ID, json!({})).await;
        server.clock.advance(hours(1));
        let mut body = hourly(ID);
        body["name"] = json!("another");
        server.put(&format!("/{ID}"), body.clone()).await.expect(200);
        server.look().await;
        assert_eq!(server.history(ID).await, [line("01:00", "fired")]);
        let job = server.world.launched.lock()[0].0;
        assert_eq!(server.job(job).await.label.as_deref(), Some("another"));
        // A change of the trigger begins anew from now.
        server.clock.advance(hours(1));
        body["trigger"]["every_seconds"] = json!(1800);
        let changed = server.put(&format!("/{ID}"), body).await.expect(200);
        assert_eq!(changed["next_at"], "2026-09-01T02:30:00.000000Z");
    }
}
