//! Mails through an engine that does their jobs and a server that speaks SMTP.

pub(crate) mod sink;

use futures_util::future::join_all;
use modelyard_flow::job::{self, Engine, Job, JobStatus, PolicyChange, Workers};
use modelyard_kernel::db::{Row, Value, query};
use modelyard_kernel::{Background, Caller, DEPLOYMENT, Db, Permission};
use modelyard_testkit::{TENANT, TestDatabase, on_both_databases};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use self::sink::Sink;
use super::*;

/// All that a slice needs so that its mails arrive.
pub(crate) struct Post {
    pub(crate) mails: Mails,
    pub(crate) sink: Sink,
    pub(crate) secret: Secret,
    pub(crate) background: Background,
    pub(crate) clock: Clock,
    db: Db,
    jobs: Jobs,
}

pub(crate) fn system() -> Caller {
    Caller::system("test", TENANT, DEPLOYMENT)
}

pub(crate) fn scope() -> Scope {
    system().permit(Permission("test:all")).unwrap().clone()
}

/// Tries thrice, without long pauses.
fn soon() -> job::Options {
    let backoff = Some(Duration::from_millis(20));
    let soon = PolicyChange { backoff, max_attempts: Some(3), ..PolicyChange::default() };
    job::Options { policies: [(KIND.to_owned(), soon)].into(), ..job::Options::default() }
}

fn plain(sink: &Sink) -> SmtpOptions {
    SmtpOptions {
        host: "127.0.0.1".to_owned(),
        port: Some(sink.port),
        security: SmtpSecurity::None,
        credentials: None,
        authority: None,
        hello: None,
    }
}

impl Post {
    pub(crate) async fn new(database: &TestDatabase, clock: Clock) -> Self {
        let background = Background::default();
        let sink = Sink::start(&background).await;
        let smtp = Smtp::new(plain(&sink)).unwrap();
        Self::with(database, clock, background, (sink, Arc::new(smtp)), soon()).await
    }

    /// One that sends nothing.
    async fn with_options(database: &TestDatabase, options: job::Options) -> Self {
        let background = Background::default();
        let sink = Sink::start(&background).await;
        let options = job::Options { workers: Workers::None, ..options };
        let (clock, server) = (database.clock.clone(), (sink, Arc::new(Unsent) as Arc<dyn Mailer>));
        Self::with(database, clock, background, server, options).await
    }

    async fn with(
        database: &TestDatabase,
        clock: Clock,
        background: Background,
        (sink, mailer): (Sink, Arc<dyn Mailer>),
        options: job::Options,
    ) -> Self {
        let (db, owner) = (database.db.clone(), background.clone());
        let engine = Engine::new(db.clone(), clock.clone(), owner, "node".to_owned(), options);
        let (jobs, secret) = (engine.jobs(), Secret::in_directory(database.dir()).unwrap());
        let options = Options {
            product: "Modelyard".to_owned(),
            public_url: "https://models.example.org/yard/".parse().unwrap(),
            from: "Modelyard <no-reply@example.org>".to_owned(),
        };
        let mails =
            Mails::new(jobs.clone(), clock.clone(), secret.clone(), mailer, options).unwrap();
        engine.serve(DEPLOYMENT, mails.part().work);
        engine.start().await.unwrap();
        Self { mails, sink, secret, background, clock, db, jobs }
    }

    async fn send(&self, to: &str, name: &str, letter: Letter) -> JobId {
        let mail = Mail { to: to.to_owned(), name: name.to_owned(), letter };
        let mut conn = self.db.conn().await.unwrap();
        let submitted = self.mails.submit(&mut conn, &scope(), mail).await.unwrap();
        let job = submitted.job;
        self.mails.wake(Some(submitted));
        job
    }

    async fn ended(&self, id: JobId) -> Job {
        for _ in 0..1000 {
            let job = self.jobs.get(&system(), id).await.unwrap();
            if job.status.is_final() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never ended: {:?}", self.jobs.get(&system(), id).await);
    }

    pub(crate) async fn stop(self) {
        assert!(self.background.shutdown(Duration::from_secs(20)).await);
    }
}

/// Opens all connections, which would otherwise come one after another: what is done at once afterwards
/// is done at once.
pub(crate) async fn warm(db: &Db) {
    drop(join_all((0..4).map(|_| db.conn())).await);
}

/// Everything in the database, as text.
pub(crate) async fn dump(db: &Db) -> String {
    let mut conn = db.conn().await.unwrap();
    let mut dump = String::new();
    for table in modelyard_schema::TABLES {
        let rows: Vec<Row> = query(format!("SELECT * FROM {table}"))
            .with_names()
            .fetch_all(&mut conn)
            .await
            .unwrap();
        for (name, value) in rows.into_iter().flat_map(Row::into_columns) {
            let value = match value {
                Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Value::Text(text) => text,
                other => format!("{other:?}"),
            };
            dump.push_str(&format!("{table}.{name}={value}\n"));
        }
    }
    dump
}

fn reset(token: &str) -> Letter {
    Letter::PasswordReset { token: token.to_owned() }
}

fn login(user_agent: &str) -> Letter {
    let address = "192.0.2.1".to_owned();
    Letter::NewLogin { at: TestDatabase::start(), address, user_agent: user_agent.to_owned() }
}

on_both_databases! {
    async fn a_mail_arrives_as_text_and_html(database: TestDatabase) {
        let post = Post::new(&database, database.clock.clone()).await;
        let id = post.send("ada@example.org", "Ada", reset("canary-token")).await;
        let mail = post.sink.wait_for(1).await.remove(0);
        assert_eq!(mail.to, ["ada@example.org"]);
        for (header, value) in [
            ("From", "Modelyard <no-reply@example.org>"),
            ("To", "Ada <ada@example.org>"),
            ("Subject", "Set a new password for Modelyard"),
            ("Date", "Tue, 01 Sep 2026 00:00:00 +0000"),
            ("Message-ID", &format!("<{id}@example.org>")),
            ("Auto-Submitted", "auto-generated"),
        ] {
            assert_eq!(mail.header(header).as_deref(), Some(value), "{}", mail.data);
        }
        let link = "https://models.example.org/yard/reset-password#token=canary-token";
        let text = mail.text();
        assert!(text.contains(link) && text.contains("Hello Ada,") && text.contains("60 minutes"));
        // Escaped twice as much as it must be, which means the same.
        let html = mail.html().replace("&#x2f;", "/");
        assert!(html.contains(&format!("<a href=\"{link}\">")), "{html}");
        assert_eq!(post.ended(id).await.status, JobStatus::Completed);
        post.stop().await;
    }

    async fn what_waits_to_be_mailed_is_sealed(database: TestDatabase) {
        let post = Post::new(&database, database.clock.clone()).await;
        let id = post.send("ada@example.org", "Ada", reset("canary-token")).await;
        post.ended(id).await;
        let dump = dump(&database.db).await;
        assert!(dump.contains(&id.to_string()));
        for canary in ["canary-token", "ada@example.org", "reset-password"] {
            assert!(!dump.contains(canary), "{canary} is in the database");
        }
        post.stop().await;
    }

    async fn a_mail_of_what_was_taken_back_is_not_sent(database: TestDatabase) {
        let post = Post::new(&database, database.clock.clone()).await;
        let mails = post.mails.clone();
        let taken_back = database.db.transaction(move |conn| {
            async move {
                let (to, name) = ("ada@example.org".to_owned(), String::new());
                mails.submit(conn, &scope(), Mail { to, name, letter: reset("x") }).await?;
                Err::<(), _>(Failure::conflict("taken_back", "it was"))
            }
            .boxed()
        });
        assert_eq!(taken_back.await.unwrap_err().code(), "taken_back");
        let id = post.send("grace@example.org", "", reset("x")).await;
        post.ended(id).await;
        let to: Vec<_> = post.sink.mails().into_iter().flat_map(|it| it.to).collect();
        assert_eq!(to, ["grace@example.org"]);
        post.stop().await;
    }

    async fn a_notice_holds_nothing_up_when_too_many_mails_wait(database: TestDatabase) {
        let options = job::Options { max_pending: 2, ..job::Options::default() };
        let post = Post::with_options(&database, options).await;
        let mut conn = database.db.conn().await.unwrap();
        let mail = || {
            let letter = Letter::PasswordChanged { at: TestDatabase::start() };
            Mail { to: "ada@example.org".to_owned(), name: String::new(), letter }
        };
        for _ in 0..2 {
            assert!(post.mails.notify(&mut conn, &scope(), mail()).await.unwrap().is_some());
        }
        assert!(post.mails.notify(&mut conn, &scope(), mail()).await.unwrap().is_none());
        let refused = post.mails.submit(&mut conn, &scope(), mail()).await.unwrap_err();
        assert_eq!(refused.code(), "queue_full");
        drop(conn);
        post.stop().await;
    }

    async fn what_the_server_refuses_for_now_is_sent_later(database: TestDatabase) {
        let post = Post::new(&database, Clock::system()).await;
        post.sink.refuse("451 4.3.0 try again later");
        post.sink.refuse("421 4.3.2 going down");
        let id = post.send("ada@example.org", "Ada", reset("x")).await;
        let job = post.ended(id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Completed, 3), "{:?}", job.error);
        assert_eq!(post.sink.mails().len(), 1);
        post.stop().await;
    }

    async fn what_the_server_refuses_for_good_is_not_sent_again(database: TestDatabase) {
        let post = Post::new(&database, Clock::system()).await;
        post.sink.refuse("550 5.1.1 nobody of this name");
        let id = post.send("ada@example.org", "Ada", reset("canary-token")).await;
        let job = post.ended(id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Failed, 1));
        let error = job.error.unwrap();
        assert!(error.contains("550") && !error.contains("canary-token"), "{error}");
        // Until somebody says that it may go well now.
        let again = post.jobs.retry(&system(), id, Wishes::default()).await.unwrap();
        assert_eq!(post.ended(again.job).await.status, JobStatus::Completed);
        assert_eq!(post.sink.mails()[0].token(), "canary-token");
        post.stop().await;
    }

    async fn a_server_that_is_away_is_tried_again(database: TestDatabase) {
        let background = Background::default();
        let sink = Sink::start(&background).await;
        let nobody = SmtpOptions { port: Some(1), ..plain(&sink) };
        let mailer = Arc::new(Smtp::new(nobody).unwrap());
        let post = Post::with(&database, Clock::system(), background, (sink, mailer), soon()).await;
        let job = post.send("ada@example.org", "Ada", reset("x")).await;
        let job = post.ended(job).await;
        assert_eq!((job.status, job.attempt, job.dead_letter), (JobStatus::Failed, 3, true));
        post.stop().await;
    }

    async fn nobody_adds_headers_or_recipients(database: TestDatabase) {
        let post = Post::new(&database, database.clock.clone()).await;
        let evil = "Ada\r\nBcc: eve@example.org\r\n\r\n<script>alert(1)</script>";
        let id = post.send("ada@example.org", evil, login(evil)).await;
        post.ended(id).await;
        let mail = post.sink.wait_for(1).await.remove(0);
        assert_eq!((mail.to.len(), mail.header("Bcc")), (1, None), "{}", mail.data);
        let html = mail.html();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"), "{html}");
        assert!(mail.text().contains("With: Ada  Bcc: eve@example.org"), "{}", mail.text());
        for bad in ["ada@example.org\r\nBcc: eve@example.org", "ada", "", "a@b, c@d", "<a@b.org>"] {
            let job = post.send(bad, "Ada", reset("x")).await;
            let job = post.ended(job).await;
            assert_eq!(job.status, JobStatus::Failed, "{bad}");
            assert_eq!(job.error.as_deref(), Some("ValueError: it is no mail address"));
        }
        assert_eq!(post.sink.mails().len(), 1);
        post.stop().await;
    }
}

#[test]
fn every_letter_has_a_subject_a_text_and_html() {
    let at = TestDatabase::start();
    let token = || "token".to_owned();
    let letters = [
        Letter::Invitation { token: token() },
        reset("token"),
        login("Browser"),
        Letter::FactorChanged { change: "was removed", at },
        Letter::PasswordChanged { at },
    ];
    let (templates, url) = (Templates::new(), "https://example.org".parse().unwrap());
    for letter in letters {
        for name in ["Ada", ""] {
            let values = letter.values(&url);
            let rendered = templates.render(letter.template(), "Yard", name, &values).unwrap();
            let greeting = if name.is_empty() { "Hello," } else { "Hello Ada," };
            assert!(rendered.subject.contains("Yard") && !rendered.subject.contains('\n'));
            for body in [&rendered.text, &rendered.html] {
                assert!(body.contains(greeting) && !body.contains("{{"), "{body}");
                for value in values.values().filter(|it| !it.contains('/')) {
                    assert!(body.contains(value.as_str()), "{value} is not in {body}");
                }
            }
            assert!(rendered.text.lines().all(|it| it.len() <= 80), "{}", rendered.text);
        }
        assert!(!format!("{letter:?}").contains("token"));
    }
}

#[test]
fn senders_and_addresses_that_are_none_are_refused() {
    modelyard_testkit::run(async {
        let database = TestDatabase::sqlite().await;
        let post = Post::new(&database, database.clock.clone()).await;
        let make = |from: &str, url: &str| {
            let (jobs, clock, secret) =
                (post.jobs.clone(), post.clock.clone(), post.secret.clone());
            let (product, public_url) = ("x".to_owned(), url.parse().unwrap());
            let options = Options { product, public_url, from: from.to_owned() };
            Mails::new(jobs, clock, secret, Arc::new(Unsent), options).err()
        };
        assert!(make("no-reply@example.org", "http://localhost:8080").is_none());
        assert!(matches!(make("nobody", "https://a.b"), Some(OptionsError::From(_))));
        assert!(matches!(make("a@b.org", "data:x"), Some(OptionsError::PublicUrl(_))));
        post.stop().await;
    });
}

fn message() -> Message {
    Message {
        id: Clock::system().ulid(),
        at: TestDatabase::start(),
        from: "no-reply@example.org".parse().unwrap(),
        to: "Jörg <joerg@example.org>".parse().unwrap(),
        subject: "Grüße".to_owned(),
        text: "schöne Grüße".to_owned(),
        html: "<p>schöne Grüße</p>".to_owned(),
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn where_there_is_no_server_the_log_says_so_and_nothing_else() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let secret = Message { text: "canary".to_owned(), html: "canary".to_owned(), ..message() };
    Unsent.send(&secret).await.unwrap();
    drop(guard);
    let logged = String::from_utf8(logged.0.lock().clone()).unwrap();
    assert!(
        logged.contains("no SMTP server is configured") && logged.contains("Grüße"),
        "{logged}"
    );
    assert!(!logged.contains("canary") && !logged.contains("joerg"), "{logged}");
}

#[tokio::test]
async fn letters_of_other_languages_arrive() {
    let background = Background::default();
    let sink = Sink::start(&background).await;
    Smtp::new(plain(&sink)).unwrap().send(&message()).await.unwrap();
    let mail = sink.wait_for(1).await.remove(0);
    assert!(mail.data.is_ascii() && mail.text().trim() == "schöne Grüße", "{}", mail.data);
    assert!(background.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_server_without_tls_is_told_nothing_where_tls_is_wanted() {
    let background = Background::default();
    let sink = Sink::start(&background).await;
    let credentials = Some(("user".to_owned(), Zeroizing::new("canary-password".to_owned())));
    let options = SmtpOptions { credentials, security: SmtpSecurity::StartTls, ..plain(&sink) };
    let error = Smtp::new(options.clone()).unwrap().send(&message()).await.unwrap_err();
    assert!(matches!(error, MailError::Never(_)), "{error}");
    let options = SmtpOptions { security: SmtpSecurity::Tls, ..options };
    assert!(Smtp::new(options).unwrap().send(&message()).await.is_err());
    let said = sink.said();
    assert!(!said.iter().any(|it| it.starts_with("AUTH") || it.starts_with("MAIL")), "{said:?}");
    assert!(background.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn mails_and_passwords_go_over_tls_to_a_server_that_is_trusted() {
    for security in [SmtpSecurity::StartTls, SmtpSecurity::Tls] {
        let background = Background::default();
        let sink = Sink::start_with(&background, security).await;
        let stranger = SmtpOptions {
            host: "localhost".to_owned(),
            security,
            credentials: Some(("user".to_owned(), Zeroizing::new("password".to_owned()))),
            hello: Some("models.example.org".to_owned()),
            ..plain(&sink)
        };
        let error = Smtp::new(stranger.clone()).unwrap().send(&message()).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
        let said = sink.said();
        assert!(!said.iter().any(|it| it.starts_with("AUTH")), "{said:?}");

        let authority = Some(sink.authority.clone().into_bytes());
        let known = SmtpOptions { authority, ..stranger };
        Smtp::new(known.clone()).unwrap().send(&message()).await.unwrap();
        let said = sink.said();
        assert!(said.iter().any(|it| it == "EHLO models.example.org"), "{said:?}");
        assert!(said.iter().any(|it| it.starts_with("AUTH PLAIN ")), "{said:?}");
        assert_eq!(sink.mails().len(), 1);

        let other_name = SmtpOptions { host: "127.0.0.1".to_owned(), ..known.clone() };
        assert!(Smtp::new(other_name).unwrap().send(&message()).await.is_err());
        let broken = SmtpOptions { authority: Some(b"-----BEGIN".to_vec()), ..known };
        // What is no certificate trusts nobody.
        let sent = match Smtp::new(broken) {
            Ok(smtp) => smtp.send(&message()).await,
            Err(error) => Err(error),
        };
        assert!(sent.is_err());
        assert!(background.shutdown(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn passwords_go_to_this_machine_only_without_tls() {
    let background = Background::default();
    let sink = Sink::start(&background).await;
    let credentials = Some(("user".to_owned(), Zeroizing::new("canary-password".to_owned())));
    let options = SmtpOptions { credentials, ..plain(&sink) };
    assert!(!format!("{options:?}").contains("canary"));
    let smtp = Smtp::new(options.clone()).unwrap();
    assert!(!format!("{smtp:?}").contains("canary"), "{smtp:?}");
    smtp.send(&message()).await.unwrap();
    assert!(sink.said().iter().any(|it| it.starts_with("AUTH PLAIN ")));
    let elsewhere = SmtpOptions { host: "mail.example.org".to_owned(), ..options };
    let refused = Smtp::new(elsewhere).unwrap_err().to_string();
    assert!(refused.contains("without TLS") && !refused.contains("canary"), "{refused}");
    assert!(background.shutdown(Duration::from_secs(5)).await);
}
