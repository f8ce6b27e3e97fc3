//! Jobs that wait: in which queue, behind whom, and for how long.

use super::*;

/// Work that ends when it is let go, and fails when another is at it.
fn held(gate: &Arc<Semaphore>) -> Body {
    let (gate, turn) = (Arc::clone(gate), Arc::new(Semaphore::new(1)));
    body(move |jobs, assignment| {
        let (gate, turn) = (Arc::clone(&gate), Arc::clone(&turn));
        async move {
            // By the clock they may seem to overlap: a claim is as old as its question.
            let Ok(_turn) = turn.try_acquire() else {
                return Err(Failed::new("RuntimeError", "they have overlapped"));
            };
            tokio::select! {
                passed = gate.acquire() => passed.unwrap().forget(),
                () = assignment.cancel.cancelled() => {
                    return Err(Failed::new("CancelledError", "let go"));
                }
            }
            if assignment.input == b"once more" && assignment.attempt == 1 {
                return Err(Failed::new("OSError", "not yet").transient());
            }
            complete(&jobs, &assignment).await
        }
    })
}

fn unique(node: &Node, input: &[u8]) -> NewJob {
    NewJob { unique: Some("key".to_owned()), input: input.to_vec(), ..node.job() }
}

/// One that runs and one that waits behind it, both with one key.
async fn one_behind_another(node: &Node, input: &[u8]) -> (JobId, JobId) {
    let first = node.add(unique(node, input)).await;
    node.until(first, |it| it.status == JobStatus::Running).await;
    let second = node.add(unique(node, b"{}")).await;
    assert_ne!(first, second);
    assert_eq!(node.add(unique(node, b"{}")).await, second, "one waits already");
    (first, second)
}

async fn end_in_turn(node: &Node, gate: &Semaphore, (first, second): (JobId, JobId)) {
    node.until(first, |it| it.status == JobStatus::Running).await;
    let waits = node.jobs.get(&system(), second).await.unwrap();
    assert_eq!(waits.status, JobStatus::Pending);
    gate.add_permits(3);
    let (first, second) = (node.ended(first).await, node.ended(second).await);
    assert_eq!((first.status, first.error), (JobStatus::Completed, None));
    assert_eq!((second.status, second.error), (JobStatus::Completed, None));
}

on_both_databases! {
    async fn one_with_a_key_waits_behind_the_other(database: TestDatabase) {
        let (node, gate) = (Node::new(&database, "a", options()), Arc::new(Semaphore::new(0)));
        node.does(quick(), held(&gate));
        node.engine.start().await.unwrap();
        let both = one_behind_another(&node, b"{}").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        end_in_turn(&node, &gate, both).await;
        node.stop().await;
    }

    async fn one_with_a_key_that_is_tried_again_meets_its_successor(database: TestDatabase) {
        let (node, gate) = (Node::new(&database, "a", options()), Arc::new(Semaphore::new(0)));
        node.does(quick(), held(&gate));
        node.engine.start().await.unwrap();
        let both = one_behind_another(&node, b"once more").await;
        gate.add_permits(1);
        node.until(both.0, |it| it.attempt == 2).await;
        end_in_turn(&node, &gate, both).await;
        node.stop().await;
    }

    async fn one_with_a_key_begins_again_after_a_restart(database: TestDatabase) {
        let gate = Arc::new(Semaphore::new(0));
        // It is left in the middle, as by a kill.
        let before = Node::new(&database, "a", Options { workers: Workers::None, ..options() });
        before.does(quick(), nothing());
        let first = before.add(unique(&before, b"{}")).await;
        let lane = Lane::of(&test_scope(), "test");
        let mut conn = database.db.conn().await.unwrap();
        let claimed = claims::claim(&mut conn, &lane, "a", 4, before.clock.now()).await.unwrap();
        assert_eq!(claimed.len(), 1);
        let second = before.add(unique(&before, b"{}")).await;
        assert_ne!(first, second);

        let node = Node::new(&database, "a", options());
        node.does(quick(), held(&gate));
        node.engine.start().await.unwrap();
        end_in_turn(&node, &gate, (first, second)).await;
        node.stop().await;
    }

    async fn one_with_a_key_is_taken_over(database: TestDatabase) {
        let gate = Arc::new(Semaphore::new(0));
        let dead = Node::new(&database, "dead", options());
        dead.does(quick(), nothing());
        let first = dead.add(unique(&dead, b"{}")).await;
        let lane = Lane::of(&test_scope(), "test");
        let mut conn = database.db.conn().await.unwrap();
        claims::claim(&mut conn, &lane, "dead", 4, dead.clock.now()).await.unwrap();
        let second = dead.add(unique(&dead, b"{}")).await;
        drop(conn);

        let node = Node::new(&database, "alive", options());
        node.does(quick(), held(&gate));
        let beat = claims::Beat {
            node: "alive".to_owned(),
            lease: Some(Duration::from_secs(10)),
            takes_over: true,
            now: node.clock.now(),
        };
        assert_eq!(claims::beat(&database.db, beat).await.unwrap().taken_over, 1);
        node.engine.start().await.unwrap();
        end_in_turn(&node, &gate, (first, second)).await;
        node.stop().await;
    }

    async fn what_waits_until_its_deadline_has_failed(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        node.does(quick(), nothing());
        node.engine.start().await.unwrap();
        node.jobs.pause(&system(), "test").await.unwrap();
        let wishes = Wishes { deadline: Some(Duration::from_millis(300)), ..Wishes::default() };
        let id = node.add(NewJob { wishes, ..node.job() }).await;
        let patient = node.add(node.job()).await;
        let job = node.ended(id).await;
        assert_eq!((job.status, job.dead_letter), (JobStatus::Failed, true));
        let error = job.error.unwrap();
        assert_eq!(error, "TimeoutError: the job was not done by its deadline");
        assert_eq!(node.jobs.get(&system(), patient).await.unwrap().status, JobStatus::Pending);
        node.stop().await;
    }

    async fn queues_that_nobody_knows_are_refused_and_each_has_its_own_bound(database: TestDatabase) {
        let queues = [("gpu".to_owned(), 1)].into();
        let node = Node::new(&database, "a", Options { queues, max_pending: 3, ..options() });
        node.does(quick(), nothing());
        let into = |queue: &str| {
            let wishes = Wishes { queue: Some(queue.to_owned()), ..Wishes::default() };
            NewJob { wishes, ..node.job() }
        };
        let refused = node.jobs.add(&test_scope(), into("elsewhere")).await.unwrap_err();
        assert_eq!(refused.code(), "queue_unknown");
        assert!(refused.detail().contains("`gpu`") || refused.detail().contains("gpu"), "{refused}");
        for _ in 0..3 {
            node.add(into("gpu")).await;
        }
        let full = node.jobs.add(&test_scope(), into("gpu")).await.unwrap_err();
        assert_eq!(full.code(), "queue_full");
        node.add(into("test")).await;
        node.stop().await;
    }

    async fn what_is_too_far_ahead_is_refused(database: TestDatabase) {
        let node = Node::new(&database, "a", options());
        node.does(quick(), nothing());
        for micros in [-1, i64::MAX, node.clock.now().after(Duration::from_secs(400 * 86_400)).micros()] {
            let wishes = Wishes { run_at: Some(Time::from_micros(micros)), ..Wishes::default() };
            let refused = node.jobs.add(&test_scope(), NewJob { wishes, ..node.job() }).await;
            assert_eq!(refused.unwrap_err().code(), "time_invalid");
        }
        node.stop().await;
    }
}
