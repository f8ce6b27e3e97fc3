use std::net::IpAddr;

use modelyard_kernel::db::query;
use modelyard_kernel::{Event, Grants, Ulid};
use modelyard_testkit::{TestDatabase, on_both_databases};
use parking_lot::Mutex;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Serialize;

use super::export::{Check, FileError, entry_line, first_lines, head_line, last_line};
use super::model::{HASH, NOTHING};
use super::*;

/// Keys of a deployment, of which the last signs.
#[derive(Debug, Default)]
struct Pairs(Mutex<Vec<(String, Ed25519KeyPair)>>);

impl Pairs {
    fn rotate(&self) {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let mut all = self.0.lock();
        let kid =
            format!("key-{}", all.last().map_or(0, |it| it.0[4..].parse::<u32>().unwrap()) + 1);
        all.push((kid, pair));
    }

    fn forget_the_oldest(&self) {
        self.0.lock().remove(0);
    }

    fn sign_now(&self, text: &[u8]) -> Signature {
        let all = self.0.lock();
        let (kid, pair) = all.last().unwrap();
        Signature {
            kid: kid.clone(),
            public_key: pair.public_key().as_ref().to_vec(),
            signature: pair.sign(text).as_ref().to_vec(),
        }
    }

    fn known(&self) -> Keys {
        let all = self.0.lock();
        all.iter().map(|(kid, pair)| (kid.clone(), pair.public_key().as_ref().to_vec())).collect()
    }
}

#[async_trait]
impl Signer for Pairs {
    async fn sign(&self, text: &[u8]) -> Result<Signature> {
        Ok(self.sign_now(text))
    }

    async fn keys(&self) -> Result<Keys> {
        Ok(self.known())
    }
}

struct Site {
    audit: Audit,
    pairs: Arc<Pairs>,
    caller: Caller,
    scope: Scope,
    db: Db,
    clock: Clock,
}

fn site(database: &TestDatabase, keep: Option<Duration>) -> Site {
    let pairs = Arc::new(Pairs::default());
    pairs.rotate();
    let (db, clock) = (database.db.clone(), database.clock.clone());
    let options = Options { keep, reads: true };
    let audit =
        Audit::new(db.clone(), clock.clone(), Arc::clone(&pairs) as Arc<dyn Signer>, options);
    let caller = Caller::system("test", "default", "a-model");
    let scope = caller.permit_in_deployment(READ).unwrap().clone();
    Site { audit, pairs, caller, scope, db, clock }
}

#[derive(Serialize)]
struct Thing {
    name: String,
    password: String,
}

fn thing(name: &str) -> Thing {
    Thing { name: name.to_owned(), password: "hunter2".to_owned() }
}

impl Site {
    async fn tell(&self, count: usize) {
        let scope = self.caller.permit(READ).unwrap().clone();
        let told = (0..count).map(|it| {
            let event = Event::new(&self.clock, "thing.updated", it);
            (scope.clone(), event.before(&thing("old")).after(&thing(&it.to_string())))
        });
        let told = told.collect();
        let tell = self
            .db
            .transaction(|conn| async move { Ok(event::emit_all(conn, told).await?) }.boxed());
        tell.await.unwrap();
    }

    async fn verify(&self) -> Result<Sound, Wrong> {
        self.audit.verify(&self.caller).await.unwrap()
    }

    async fn entries(&self) -> Vec<Entry> {
        let mut conn = self.db.conn().await.unwrap();
        store::page(&mut conn, &self.scope, i64::MIN, 10_000).await.unwrap()
    }

    async fn marks(&self) -> (Vec<Mark>, Option<Mark>) {
        let mut conn = self.db.conn().await.unwrap();
        let heads = store::heads(&mut conn, &self.scope, i64::MIN, i64::MAX).await.unwrap();
        (heads, store::anchor(&mut conn, &self.scope).await.unwrap())
    }

    /// What somebody does who may do everything to the database.
    async fn sql(&self, sql: &str) -> db::Result<u64> {
        query(sql.to_owned()).execute(&mut self.db.conn().await.unwrap()).await
    }

    async fn drop_triggers(&self) {
        let both = match self.db.dialect() {
            db::Dialect::Sqlite => ["audit_entries_stay", "audit_entries_are_kept"]
                .map(|it| format!("DROP TRIGGER {it}")),
            db::Dialect::Postgres => ["audit_entries_stay", "audit_entries_are_kept"]
                .map(|it| format!("DROP TRIGGER {it} ON audit_entries")),
        };
        for sql in both {
            self.sql(&sql).await.unwrap();
        }
    }

    async fn put_back(&self, entries: &[Entry], marks: &(Vec<Mark>, Option<Mark>)) {
        for table in ["audit_entries", "audit_heads", "audit_anchors"] {
            self.sql(&format!("DELETE FROM {table}")).await.unwrap();
        }
        let mut conn = self.db.conn().await.unwrap();
        store::insert(&mut conn, &self.scope, entries.to_vec()).await.unwrap();
        for head in &marks.0 {
            store::insert_head(&mut conn, &self.scope, head.clone()).await.unwrap();
        }
        if let Some(anchor) = &marks.1 {
            store::set_anchor(&mut conn, &self.scope, anchor.clone()).await.unwrap();
        }
    }

    async fn export(&self, from: Option<Time>, to: Option<Time>) -> String {
        let mut lines = self.audit.export(&self.caller, from, to).await.unwrap();
        let mut text = Vec::new();
        while let Some(some) = lines.next().await.unwrap() {
            text.extend(some);
        }
        String::from_utf8(text).unwrap()
    }
}

fn checked(file: &str, keys: Keys) -> Result<Sound, FileError> {
    let mut check = Check::new(keys);
    file.lines().try_for_each(|it| check.line(it))?;
    check.finish()
}

on_both_databases! {
    async fn what_is_told_becomes_a_chain_that_is_whole(database: TestDatabase) {
        let it = site(&database, None);
        it.tell(600).await;
        let sound = it.verify().await.unwrap();
        assert_eq!((sound.entries, sound.last, sound.signed_to), (600, 600, 0));
        it.tell(1000).await;
        let sound = it.verify().await.unwrap();
        assert_eq!((sound.entries, sound.signed_to), (1600, 1112));
        let (left,): (i64,) = query("SELECT COUNT(*) FROM events")
            .fetch_one(&mut it.db.conn().await.unwrap()).await.unwrap();
        assert_eq!(left, 0);
        let first = it.audit.get(&it.caller, 1).await.unwrap();
        assert_eq!(first.before.as_deref(), Some(r#"{"name":"old","password":"[secret]"}"#));
        assert_eq!((first.service.as_str(), first.actor.as_str()), ("a-model", "test"));
        it.tell(1).await;
        it.audit.finish().await.unwrap();
        assert_eq!(it.verify().await.unwrap().signed_to, 1601);
    }

    async fn tenants_have_a_chain_each(database: TestDatabase) {
        let it = site(&database, None);
        it.tell(3).await;
        let other = Caller::system("test", "other", "a-model");
        let scope = other.permit(READ).unwrap();
        let event = Event::new(&it.clock, "thing.updated", "x");
        event::emit(&mut it.db.conn().await.unwrap(), scope, event).await.unwrap();
        it.audit.finish().await.unwrap();
        assert_eq!(it.verify().await.unwrap().entries, 3);
        assert_eq!(it.audit.verify(&other).await.unwrap().unwrap().entries, 1);
        assert_eq!(it.audit.get(&other, 2).await.unwrap_err().code(), "entry_missing");
    }

    async fn two_who_seal_at_once_make_one_chain(database: TestDatabase) {
        let it = site(&database, None);
        for _ in 0..4 {
            it.tell(200).await;
            let all = (0..4).map(|_| it.audit.seal(&it.scope));
            for sealed in futures_util::future::join_all(all).await {
                sealed.unwrap();
            }
        }
        assert_eq!(it.verify().await.unwrap().entries, 800);
    }

    async fn nobody_changes_or_removes_entries(database: TestDatabase) {
        let it = site(&database, None);
        it.tell(3).await;
        it.audit.finish().await.unwrap();
        for sql in [
            "UPDATE audit_entries SET actor = 'nobody' WHERE seq = 2",
            "DELETE FROM audit_entries WHERE seq = 3",
            "DELETE FROM audit_entries",
        ] {
            assert!(it.sql(sql).await.is_err(), "{sql}");
        }
        assert_eq!(it.verify().await.unwrap().entries, 3);
    }

    async fn whatever_is_done_to_the_tables_is_found(database: TestDatabase) {
        let it = site(&database, None);
        it.tell(6).await;
        it.audit.finish().await.unwrap();
        it.tell(4).await;
        it.audit.finish().await.unwrap();
        it.drop_triggers().await;
        let (entries, marks) = (it.entries().await, it.marks().await);
        assert_eq!(marks.0.iter().map(|it| it.seq).collect::<Vec<_>>(), [6, 10]);
        let other_hash = match it.db.dialect() {
            db::Dialect::Sqlite => "X'00'",
            db::Dialect::Postgres => "'\\x00'",
        };
        let mut cases: Vec<(i64, String)> = [
            "id = 'x'", "at = '2026-01-01T00:00:00.000000Z'", "service = 'x'", "actor = 'x'", "address = '::1'",
            "request = 'x'", "action = 'x'", "subject = 'x'", "outcome = 'denied'",
            "before = NULL", "after = '{}'", "before = '{\"name\":\"old\",\"password\":\"[secret]\"} '",
        ].iter().map(|it| (4, format!("UPDATE audit_entries SET {it} WHERE seq = 4"))).collect();
        cases.push((4, format!("UPDATE audit_entries SET hash = {other_hash} WHERE seq = 4")));
        for seq in 1..=10 {
            cases.push((seq, format!("DELETE FROM audit_entries WHERE seq = {seq}")));
            cases.push((seq, format!("DELETE FROM audit_entries WHERE seq >= {seq}")));
        }
        cases.extend([
            (1, "DELETE FROM audit_entries WHERE seq <= 3".to_owned()),
            (0, "UPDATE audit_entries SET seq = 0 WHERE seq = 3".to_owned()),
            (11, "INSERT INTO audit_entries (tenant_id, service_id, seq, id, at, service, actor, action, subject,
                outcome, hash) SELECT tenant_id, service_id, 11, id, at, service, actor, action, subject,
                outcome, hash FROM audit_entries WHERE seq = 10".to_owned()),
            (5, "UPDATE audit_entries SET seq = 100 WHERE seq = 5".to_owned()),
            (6, "UPDATE audit_heads SET at = '2026-01-01T00:00:00.000000Z' WHERE seq = 6".to_owned()),
            (6, format!("UPDATE audit_heads SET public_key = {other_hash} WHERE seq = 6")),
            (6, format!("UPDATE audit_heads SET signature = {other_hash} WHERE seq = 6")),
            (6, format!("UPDATE audit_heads SET hash = {other_hash} WHERE seq = 6")),
            (10, "UPDATE audit_heads SET kid = 'nobody' WHERE seq = 10".to_owned()),
            (9, "UPDATE audit_heads SET seq = 9 WHERE seq = 10".to_owned()),
        ]);
        for (seq, sql) in cases {
            assert!(it.sql(&sql).await.unwrap() > 0, "{sql}");
            let wrong = it.verify().await.expect_err(&sql);
            assert_eq!(wrong.seq, seq, "{sql}: {wrong}");
            it.put_back(&entries, &marks).await;
            assert!(it.verify().await.is_ok());
        }
        // Two that change places, each with the number of the other.
        for sql in ["seq = 99 WHERE seq = 3", "seq = 3 WHERE seq = 4", "seq = 4 WHERE seq = 99"] {
            it.sql(&format!("UPDATE audit_entries SET {sql}")).await.unwrap();
        }
        assert_eq!(it.verify().await.unwrap_err().seq, 3);
        it.put_back(&entries, &marks).await;
        // Somebody who can compute hashes, but not sign.
        let mut forged = entries.clone();
        let mut hash: [u8; HASH] = forged[1].hash.clone().try_into().unwrap();
        forged[2].actor = "somebody else".to_owned();
        for entry in &mut forged[2..] {
            hash = entry.hashed("default", &hash);
            entry.hash = hash.to_vec();
        }
        it.put_back(&forged, &marks).await;
        assert_eq!(it.verify().await.unwrap_err().seq, 6);
        // And who signs with a key of his own.
        let own = Pairs::default();
        own.rotate();
        let kid = marks.0[0].kid.clone();
        for kid in [kid.as_str(), "key-9"] {
            let forge = |mark: &Mark| {
                let entry = &forged[usize::try_from(mark.seq).unwrap() - 1];
                let text = signed(Kind::Head, "default", mark.seq, &entry.hash, mark.at);
                let Signature { public_key, signature, .. } = own.sign_now(&text);
                let (hash, kid) = (entry.hash.clone(), kid.to_owned());
                Mark { hash, kid, public_key, signature, ..mark.clone() }
            };
            let heads = marks.0.iter().map(forge).collect();
            it.put_back(&forged, &(heads, None)).await;
            assert!(it.verify().await.is_err(), "{kid}");
        }
    }

    async fn what_is_old_goes_and_the_rest_is_vouched_for(database: TestDatabase) {
        let day = Duration::from_secs(24 * 3600);
        let it = site(&database, Some(10 * day));
        it.tell(1500).await;
        it.audit.finish().await.unwrap();
        it.clock.advance(20 * day);
        it.audit.retain(&it.scope).await.unwrap();
        // The last stays.
        assert_eq!(it.entries().await.len(), 1);
        it.tell(5).await;
        it.audit.finish().await.unwrap();
        it.audit.retain(&it.scope).await.unwrap();
        let sound = it.verify().await.unwrap();
        assert_eq!((sound.entries, sound.last), (5, 1505));
        let file = it.export(None, None).await;
        assert_eq!(checked(&file, it.pairs.known()).unwrap(), sound);

        // With a new key the beginning is signed anew, while the old one is known.
        it.pairs.rotate();
        it.tell(1).await;
        it.audit.finish().await.unwrap();
        it.pairs.forget_the_oldest();
        assert_eq!(it.verify().await.unwrap().entries, 6);

        // Nobody else makes it begin later.
        it.drop_triggers().await;
        let (hash, anchor) = (it.entries().await[2].hash.clone(), it.marks().await.1.unwrap());
        let mut conn = it.db.conn().await.unwrap();
        let seq = anchor.seq + 3;
        store::set_anchor(&mut conn, &it.scope, Mark { seq, hash, ..anchor }).await.unwrap();
        drop(conn);
        it.sql(&format!("DELETE FROM audit_entries WHERE seq <= {seq}")).await.unwrap();
        assert_eq!(it.verify().await.unwrap_err().seq, seq);
        it.sql("DELETE FROM audit_anchors").await.unwrap();
        assert_eq!(it.verify().await.unwrap_err().seq, 1);
    }

    async fn a_file_is_checked_without_a_database(database: TestDatabase) {
        let it = site(&database, None);
        it.tell(3).await;
        it.audit.finish().await.unwrap();
        it.clock.advance(Duration::from_secs(60));
        let between = it.clock.now();
        it.tell(3).await;
        let file = it.export(None, None).await;
        assert_eq!(checked(&file, it.pairs.known()).unwrap().signed_to, 6);
        assert_eq!(checked(&file, Keys::new()).unwrap().entries, 6);
        let later = it.export(Some(between), None).await;
        assert_eq!(checked(&later, it.pairs.known()).unwrap().entries, 3);
        let earlier = it.export(None, Some(between)).await;
        assert_eq!(checked(&earlier, it.pairs.known()).unwrap().last, 3);

        let lines: Vec<&str> = file.lines().collect();
        for (gone, line) in lines.iter().enumerate() {
            let is_key = line.contains("\"type\":\"key\"");
            let left: Vec<&str> =
                lines.iter().enumerate().filter(|it| it.0 != gone).map(|it| *it.1).collect();
            // Without the last head it is seen that nobody vouches for the end.
            let is_head = line.contains("\"type\":\"head\"");
            let is_last = is_head && line.contains("\"seq\":6,");
            let found = checked(&left.join("\n"), it.pairs.known());
            assert_eq!(found.is_ok(), is_key || is_head, "{line}");
            if let Ok(sound) = found {
                assert_eq!(sound.signed_to, if is_last { 3 } else { 6 });
            }
        }
        let swapped = file.replace("\"subject\":\"1\"", "\"subject\":\"7\"");
        assert!(matches!(checked(&swapped, it.pairs.known()), Err(FileError::Wrong(_))));
        let other = Pairs::default();
        other.rotate();
        assert!(checked(&file, other.known()).is_err());
    }

    async fn who_looks_and_who_is_refused_is_written_down(database: TestDatabase) {
        let it = site(&database, None);
        let background = Background::default();
        let recorder =
            Recorder::new(it.db.clone(), it.clock.clone(), &background, "default", true).unwrap();
        let caller = Caller::new("user:x", "default", "a-model", Grants::All);
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let caller = caller.with_origin(Some(address), Some(it.clock.ulid()));
        let scope = caller.permit_in_deployment(READ).unwrap();
        recorder.looks(scope, "GET /api/v1/users".to_owned()).await.unwrap();
        // It is there already.
        let seen = it.audit.get(&it.caller, 1).await.unwrap();
        assert_eq!((seen.action.as_str(), seen.outcome.as_str()), ("request.read", "done"));
        assert_eq!(seen.address.as_deref(), Some("192.0.2.7"));
        assert!(seen.request.is_some_and(|it| Ulid::read(&it).is_some()));

        let refusal = Refusal { code: "permission_denied", status: 403 };
        recorder.refused(&caller, true, "DELETE /api/v1/users/1".to_owned(), &refusal);
        for _ in 0..500 {
            recorder.turned_away(Some(address), "unauthenticated");
        }
        background.shutdown(Duration::from_secs(10)).await;
        it.audit.finish().await.unwrap();
        let entries = it.entries().await;
        let shown: Vec<(&str, &str, Option<&str>)> = entries[1..]
            .iter()
            .map(|it| (it.outcome.as_str(), it.actor.as_str(), it.after.as_deref()))
            .collect();
        assert_eq!(shown, [
            ("denied", "user:x", Some(r#"{"code":"permission_denied","status":403}"#)),
            ("denied", "anonymous", Some(r#"{"code":"unauthenticated","times":500}"#)),
        ]);
    }
}

/// What somebody does to a chain.
#[derive(Clone, Debug)]
enum Harm {
    Change(usize, usize),
    Remove(usize),
    Swap(usize, usize),
    Insert(usize),
    CutOff(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = 0..40_usize;
    prop_oneof![
        (at.clone(), 0..13_usize).prop_map(|(at, field)| Harm::Change(at, field)),
        at.clone().prop_map(Harm::Remove),
        (at.clone(), at.clone()).prop_map(|(one, other)| Harm::Swap(one, other)),
        at.clone().prop_map(Harm::Insert),
        at.prop_map(Harm::CutOff),
    ]
}

fn change(entry: &mut Entry, field: usize) {
    let more = |it: &mut String| it.push('x');
    match field {
        0 => entry.seq += 1,
        1 => more(&mut entry.id),
        2 => entry.at = entry.at.after(Duration::from_micros(1)),
        3 => more(&mut entry.service),
        4 => more(&mut entry.actor),
        5 => entry.address = entry.address.take().xor(Some(String::new())),
        6 => more(entry.request.get_or_insert_default()),
        7 => more(&mut entry.action),
        8 => more(&mut entry.subject),
        9 => more(&mut entry.outcome),
        10 => std::mem::swap(&mut entry.before, &mut entry.after),
        11 => more(entry.after.get_or_insert_default()),
        _ => entry.hash[7] ^= 1,
    }
}

/// Whether a chain is whole, looked at in memory and as a file.
fn is_whole(entries: &[Entry], heads: &[Mark], keys: &Keys) -> bool {
    let mut verifier = Verifier::new("t", keys.clone(), None).unwrap();
    let whole = look(&mut verifier, entries, heads).and_then(|()| verifier.finish()).is_ok();
    let mut file = first_lines("t", 0, &NOTHING, None, keys);
    let mut heads = heads.iter().peekable();
    for entry in entries {
        file.extend(entry_line(entry.clone()));
        while let Some(head) = heads.next_if(|it| it.seq <= entry.seq) {
            file.extend(head_line(head));
        }
    }
    heads.for_each(|it| file.extend(head_line(it)));
    file.extend(last_line(entries.last().map_or(0, |it| it.seq)));
    let file = String::from_utf8(file).unwrap();
    assert_eq!(checked(&file, keys.clone()).is_ok(), whole);
    whole
}

proptest! {
    #[test]
    fn every_harm_to_a_chain_is_found(
        words in proptest::collection::vec((".{0,9}", proptest::option::of(".{0,9}")), 2..40),
        every in 1..7_usize,
        harms in proptest::collection::vec(harm(), 1..4),
    ) {
        let pairs = Pairs::default();
        pairs.rotate();
        let clock = Clock::fixed(TestDatabase::start());
        let (mut entries, mut heads, mut hash) = (Vec::new(), Vec::new(), NOTHING);
        for (index, (word, maybe)) in (1_usize..).zip(&words) {
            let seq = i64::try_from(index).unwrap();
            let json = maybe.as_ref().map(|it| serde_json::Value::from(it.as_str()).to_string());
            let told = event::Told {
                id: clock.ulid(), service_id: word.clone(), at: clock.now(), actor: word.clone(),
                address: maybe.clone(), request: None, action: "a.b".to_owned(), subject: word.clone(),
                outcome: "done".to_owned(), before: json, after: Some(format!("[{seq}]")),
            };
            let entry = Entry::new("t", told, seq, &hash);
            hash = entry.hashed("t", &hash);
            if index.is_multiple_of(every) || index == words.len() {
                let text = signed(Kind::Head, "t", seq, &hash, clock.now());
                let Signature { kid, public_key, signature } = pairs.sign_now(&text);
                heads.push(Mark { seq, hash: hash.to_vec(), at: clock.now(), kid, public_key, signature });
            }
            entries.push(entry);
        }
        let keys = pairs.known();
        prop_assert!(is_whole(&entries, &heads, &keys));
        let mut harmed = entries.clone();
        for harm in harms {
            let len = harmed.len();
            if len == 0 {
                break;
            }
            match harm {
                Harm::Change(at, field) => change(&mut harmed[at % len], field),
                Harm::Remove(at) => drop(harmed.remove(at % len)),
                Harm::Swap(one, other) => {
                    let (one, other) = (one % len, other % len);
                    harmed.swap(one, other);
                    let seq = harmed[one].seq;
                    harmed[one].seq = harmed[other].seq;
                    harmed[other].seq = seq;
                }
                Harm::Insert(at) => {
                    let copy = harmed[at % len].clone();
                    harmed.insert(at % len, copy);
                }
                Harm::CutOff(at) => harmed.truncate(at % len),
            }
        }
        prop_assert_eq!(is_whole(&harmed, &heads, &keys), harmed == entries);
    }
}
