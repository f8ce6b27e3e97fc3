//! What the gate remembers, and for how long.

use modelyard_testkit::on_both_databases;
use serde_json::json;

use super::*;
use crate::key::tests::{Server, assert_refused, unknown_key};

fn identity(per_minute: Option<u32>) -> Arc<Identity> {
    Arc::new(Identity {
        tenant: "t".to_owned(),
        subject: "key:x".to_owned(),
        id: Ulid::read("01JCSEED00000000000000KEY1").unwrap(),
        user: None,
        proof: modelyard_kernel::Proof::None,
        bindings: Vec::new(),
        maker: None,
        scopes: Vec::new(),
        expires_at: None,
        addresses: Vec::new(),
        per_minute,
    })
}

fn print_of(number: usize) -> Print {
    print(&number.to_string())
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn what_is_known_is_forgotten_within_a_second() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    assert!(memory.recall(&print_of(1), now).is_none());
    memory.believe(print_of(1), &identity(None), now);
    memory.doubt(print_of(2), now);
    assert!(memory.recall(&print_of(1), now + millis(799)).unwrap().is_some());
    assert!(memory.recall(&print_of(1), now + millis(800)).is_none());
    assert!(memory.recall(&print_of(2), now + millis(199)).unwrap().is_none());
    assert!(memory.recall(&print_of(2), now + millis(200)).is_none());
    // The last answer counts.
    memory.doubt(print_of(1), now);
    memory.believe(print_of(2), &identity(None), now);
    assert!(memory.recall(&print_of(1), now).unwrap().is_none());
    assert!(memory.recall(&print_of(2), now).unwrap().is_some());
}

#[test]
fn who_guesses_neither_fills_the_memory_nor_drives_others_out() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    memory.believe(print_of(0), &identity(None), now);
    for number in 1..3 * MOST {
        memory.doubt(print_of(number), now);
        assert!(memory.doubted.len() <= MOST);
    }
    assert!(memory.recall(&print_of(0), now).unwrap().is_some());
    for number in 1..3 * MOST {
        memory.believe(print_of(number), &identity(None), now + millis(number as u64 / 10));
        assert!(memory.believed.len() <= MOST);
    }
}

#[test]
fn a_rate_is_a_minutes_worth_at_once_and_then_its_share() {
    let (mut memory, now) = (Memory::default(), Instant::now());
    let id = identity(None).id;
    for _ in 0..60 {
        assert_eq!(memory.count(id, 60, now), Ok(()));
    }
    assert_eq!(memory.count(id, 60, now), Err(millis(1000)));
    assert_eq!(memory.count(id, 60, now + millis(400)), Err(millis(600)));
    assert_eq!(memory.count(id, 60, now + millis(1000)), Ok(()));
    assert!(memory.count(id, 60, now + millis(1000)).is_err());
    // After a quiet minute it is as in the beginning, and no more.
    let later = now + Duration::from_secs(600);
    let allowed = (0..200).filter(|_| memory.count(id, 60, later).is_ok()).count();
    assert_eq!(allowed, 60);
    let (mut memory, one) = (Memory::default(), 1);
    assert_eq!(memory.count(id, one, now), Ok(()));
    assert_eq!(memory.count(id, one, now + millis(59_999)), Err(millis(1)));
    assert_eq!(memory.count(id, one, now + millis(60_000)), Ok(()));
}

#[test]
fn what_cannot_be_a_key_is_not_asked_for() {
    assert_eq!(Form::of("mk_nonsense"), None);
    assert_eq!(Form::of(&format!("mk_{}", "0".repeat(1 << 20))), None);
    assert_eq!(Form::of(""), None);
    assert_eq!(Form::of(&"x".repeat(LONGEST + 1)), None);
    assert_eq!(Form::of("eyJhbGciOiJFZERTQSJ9.e30.x"), Some(Form::Token));
}

on_both_databases! {
    async fn a_revoked_key_is_refused_by_every_node_within_a_second(database: TestDatabase) {
        let it = Server::new(&database);
        // SQLite has one process; a second handle stands for another.
        let other = Server::with(database.reconnect().await, database.clock.clone());
        let gates = [&it, &other].map(|it| it.gate.clone());
        let (id, text) = it.create(json!({})).await;
        for gate in &gates {
            assert!(gate.known(&text, None).is_none());
            assert_eq!(gate.admit(&text, None).await.unwrap().id.to_string(), id);
            assert!(gate.known(&text, None).unwrap().is_ok());
        }
        it.revoke(&id).await.expect(204);
        let revoked_at = Instant::now();
        for gate in &gates {
            while gate.admit(&text, None).await.is_ok() {
                assert!(revoked_at.elapsed() < millis(1000));
                tokio::time::sleep(millis(5)).await;
            }
            assert_refused(&gate.known(&text, None).unwrap().unwrap_err());
            assert_refused(&gate.admit(&text, None).await.unwrap_err());
        }
    }

    async fn what_is_remembered_is_still_held_to_its_limits(database: TestDatabase) {
        let it = Server::new(&database);
        let gate = it.gate.clone();
        let (_, text) = it.create(json!({"addresses": ["10.0.0.0/8"], "per_minute": 3,
            "expires_at": "2026-09-01T00:01:00Z"})).await;
        let here = Some("10.0.0.1".parse().unwrap());
        let there = Some("11.0.0.1".parse().unwrap());
        // Who comes from elsewhere first does not shut out the owner.
        assert_refused(&gate.admit(&text, there).await.unwrap_err());
        assert!(gate.admit(&text, here).await.is_ok());
        for address in [there, None] {
            assert_refused(&gate.admit(&text, address).await.unwrap_err());
        }
        // Asking who it is counts nothing.
        for _ in 0..5 {
            gate.admit(&text, here).await.unwrap();
        }
        let identity = gate.admit(&text, here).await.unwrap();
        for _ in 0..3 {
            gate.pass(&identity).unwrap();
        }
        let exceeded = gate.pass(&identity).unwrap_err();
        assert_eq!((exceeded.status().as_u16(), exceeded.code()), (429, "rate_exceeded"));
        assert_eq!(exceeded.detail(), "this may be used 3 times a minute; try again in 20 s");
        let answer = axum::response::IntoResponse::into_response(exceeded);
        assert_eq!(answer.headers()["retry-after"], "20");
        database.clock.advance(Duration::from_secs(60));
        assert_refused(&gate.admit(&text, here).await.unwrap_err());
    }

    async fn what_nobody_knows_is_refused_and_remembered(database: TestDatabase) {
        let it = Server::new(&database);
        let gate = it.gate.clone();
        let unknown = unknown_key();
        let unknown = unknown.text();
        assert!(gate.known(unknown, None).is_none());
        assert_refused(&gate.admit(unknown, None).await.unwrap_err());
        assert_refused(&gate.known(unknown, None).unwrap().unwrap_err());
        for wrong in ["mk_", "", &"x".repeat(1 << 20)] {
            assert_refused(&gate.admit(wrong, None).await.unwrap_err());
        }
        // What looks like a cookie or a token is refused in the words of sessions.
        for wrong in [&unknown[1..], "eyJ.eyJ.x"] {
            let failure = gate.admit(wrong, None).await.unwrap_err();
            assert_eq!((failure.code(), failure.status().as_u16()), ("unauthenticated", 401));
        }
        // A database that is away says nothing of a key.
        let (_, text) = it.create(json!({})).await;
        database.db.close().await;
        let away = gate.admit(&text, None).await.unwrap_err();
        assert_eq!(away.status().as_u16(), 503);
        assert!(gate.known(&text, None).is_none());
    }
}
