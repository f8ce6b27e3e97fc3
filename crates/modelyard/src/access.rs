//! Who may come in, put together: what the slices of `modelyard_access` need of each other and of the
//! settings.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use modelyard_access::factor::{FactorOutcome as Shown, Factors};
use modelyard_access::gate::Gate;
use modelyard_access::key::Keys;
use modelyard_access::link::{Account, Accounts, HashedPassword, Links, Standing};
use modelyard_access::mail::{self, Letter, Mail, MailError, Mailer, Mails, OptionsError, Unsent};
use modelyard_access::mail::{Smtp, SmtpOptions, SmtpSecurity};
use modelyard_access::notice::{AfterCommit, Notice, Notices};
use modelyard_access::password::{Password, Passwords};
use modelyard_access::role::Roles;
use modelyard_access::secret::{Secret, SecretError};
use modelyard_access::session::{self, FactorOutcome, SecondFactor, Sessions};
use modelyard_access::token::{self, Tokens};
use modelyard_access::user::{self, Email, User, UserId, UserStatus, Users};
use modelyard_flow::job::Engine;
use modelyard_kernel::{
    Background, Caller, Clock, Conn, DEPLOYMENT, Db, Failure, Part, Result, Scope, Time, Ulid,
};
use modelyard_ops::audit::Audit;
use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::app::TENANT;
use crate::settings::Settings;

/// How long it is believed that there is nobody yet.
const BELIEVED: Duration = Duration::from_millis(800);

/// How often what is over is removed.
const SWEEP: Duration = Duration::from_secs(600);
/// How much of each kind is removed at once.
const SWEPT: i64 = 1000;

/// Why nobody can come in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There is no secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Mails cannot be sent as the settings say.
    #[error("`mail`: {0}")]
    Mail(#[from] MailError),
    /// The same.
    #[error("`mail`: {0}")]
    MailOptions(#[from] OptionsError),
    /// The password of the SMTP server cannot be read.
    #[error("`mail.password_file`")]
    MailPassword(#[source] std::io::Error),
    /// The address of the deployment is none.
    #[error("`server.public_url` is no address")]
    PublicUrl(#[from] url::ParseError),
    /// Something else.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// What could not be opened any more. Mails that waited fail by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Keys that signed access tokens.
    pub signing_keys: u64,
    /// Second factors, with their recovery codes.
    pub factors: u64,
}

/// The identity of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roles: Roles,
    keys: Keys,
    users: Users,
    sessions: Sessions,
    tokens: Tokens,
    factors: Factors,
    mails: Mails,
    links: Links,
    gate: Gate,
    secret: Secret,
    db: Db,
    clock: Clock,
    /// When it was last asked whether there is anybody, and what came of it.
    in_use: Mutex<Option<(Instant, bool)>>,
}

impl Access {
    /// Puts it together.
    ///
    /// # Errors
    /// When there is no secret, or mails cannot be sent as the settings say.
    pub(crate) fn new(
        settings: &Settings,
        data_dir: &Path,
        (db, clock): (&Db, &Clock),
        background: &Background,
        engine: &Engine,
    ) -> Result<Self, AccessError> {
        let (db, clock) = (db.clone(), clock.clone());
        let secret = secret(settings, data_dir)?;
        let roles = Roles::new(db.clone(), clock.clone());
        let keys = Keys::new(db.clone(), clock.clone(), roles.clone(), background);
        let passwords = Passwords::new(modelyard_access::password::Options::default())?;
        let mails = Mails::new(
            engine.jobs(),
            clock.clone(),
            secret.clone(),
            mailer(settings)?,
            mail::Options {
                product: "Modelyard".to_owned(),
                public_url: public_url(settings)?,
                from: settings.mail.from.clone(),
            },
        )?;
        let users = Users::new(db.clone(), clock.clone(), roles.clone(), passwords, TENANT)
            .with_notices(Arc::new(ByMail(mails.clone())));
        let accounts: Arc<dyn Accounts> =
            Arc::new(People { users: users.clone(), roles: roles.clone(), clock: clock.clone() });
        let factors = Factors::new(
            db.clone(),
            clock.clone(),
            secret.clone(),
            Arc::clone(&accounts),
            mails.clone(),
        );
        let issuer = settings.server.public_url.clone().unwrap_or_else(|| "modelyard".to_owned());
        let tokens = Tokens::new(
            db.clone(),
            clock.clone(),
            secret.clone(),
            TENANT,
            token::Options {
                audience: issuer.clone(),
                issuer,
                lifetime: settings.access.token_lifetime,
                ..token::Options::default()
            },
        );
        let options = session::Options {
            idle: settings.access.session_idle,
            absolute: settings.access.session_lifetime,
            refresh: settings.access.session_lifetime,
            tls_by_proxy: settings
                .server
                .public_url
                .as_deref()
                .is_some_and(|it| it.starts_with("https://")),
            origins: settings.server.public_url.iter().cloned().collect(),
        };
        let factor = Arc::new(Second(factors.clone()));
        let sessions = Sessions::new(
            db.clone(),
            clock.clone(),
            users.clone(),
            tokens.clone(),
            factor,
            options,
        );
        let system = Caller::system("links", TENANT, DEPLOYMENT);
        let links =
            Links::new(db.clone(), clock.clone(), background, &system, accounts, mails.clone())?;
        let gate =
            Gate::new(db.clone(), keys.clone(), sessions.clone(), roles.clone(), clock.clone());
        Ok(Self(Arc::new(Inner {
            roles,
            keys,
            users,
            sessions,
            tokens,
            factors,
            mails,
            links,
            gate,
            secret,
            db,
            clock,
            in_use: Mutex::default(),
        })))
    }

    /// Refuses another secret than the one that the database was used with.
    ///
    /// # Errors
    /// When it is another; when the database refuses.
    pub(crate) async fn check_secret(&self) -> Result<(), AccessError> {
        let Inner { secret, db, clock, .. } = &*self.0;
        Ok(secret.check(db, clock, TENANT).await?)
    }

    /// Gives up what was sealed with a secret that is lost, and goes on with the one of this process.
    ///
    /// # Errors
    /// When the database refuses; nothing is changed then.
    pub async fn reset_secret(&self) -> Result<GivenUp> {
        let it = self.clone();
        let reset = self.0.db.transaction(move |conn| {
            async move {
                let Inner { secret, clock, tokens, factors, users, .. } = &*it.0;
                let signing_keys = tokens.remove_keys_in(conn).await?;
                let factors = factors.remove_all_in(conn, users.scope()).await?;
                secret.adopt_in(conn, users.scope(), clock).await?;
                Ok(GivenUp { signing_keys, factors })
            }
            .boxed()
        });
        reset.await
    }

    /// What it brings to each service.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let it = &*self.0;
        vec![
            it.roles.part(),
            it.keys.part(),
            it.users.part(),
            it.sessions.part(),
            it.tokens.part(),
            it.factors.part(),
            it.links.part(),
        ]
    }

    /// Has mails sent, which are jobs of the deployment itself.
    pub(crate) fn serve(&self, engine: &Engine) {
        engine.serve(DEPLOYMENT, [self.0.mails.work()]);
    }

    /// Removes what is over, now and then: sessions, links, and failures that count no more. What one
    /// process has removed, others do not find.
    pub(crate) fn keep_tidy(&self, background: &Background) {
        let (it, stopping) = (self.clone(), background.stopping().clone());
        background.spawn(async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(SWEEP) => {}
                }
                match it.sweep().await {
                    Ok(0) => {}
                    Ok(rows) => tracing::info!(rows, "sessions and links that are over are gone"),
                    Err(failure) => {
                        tracing::error!(%failure, "sessions that are over are not removed");
                    }
                }
            }
        });
    }

    async fn sweep(&self) -> Result<u64> {
        Ok(self.0.sessions.sweep(SWEPT).await? + self.0.links.sweep(SWEPT).await?)
    }

    /// The gate.
    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// The roles.
    pub fn roles(&self) -> &Roles {
        &self.0.roles
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The tokens, whose keys sign the audit as well.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// The users, for the command line.
    pub fn users(&self) -> &Users {
        &self.0.users
    }

    /// The invitations, for the command line.
    pub fn links(&self) -> &Links {
        &self.0.links
    }

    /// The second factors, for the command line.
    pub fn factors(&self) -> &Factors {
        &self.0.factors
    }

    /// The keys, for the command line.
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Whether there is anybody, as far as that is known without asking.
    pub(crate) fn is_known_in_use(&self) -> Option<bool> {
        let known = *self.0.in_use.lock();
        let (at, in_use) = known?;
        (in_use || at.elapsed() < BELIEVED).then_some(in_use)
    }

    /// Whether there is anybody: from then on nobody comes in who is not known.
    ///
    /// # Errors
    /// When the database refuses.
    pub(crate) async fn is_in_use(&self) -> Result<bool> {
        match self.is_known_in_use() {
            Some(known) => Ok(known),
            None => self.look_in_use().await,
        }
    }

    /// The same, as it is at this moment.
    ///
    /// # Errors
    /// When the database refuses.
    pub(crate) async fn look_in_use(&self) -> Result<bool> {
        let at = Instant::now();
        let in_use = self.0.users.any().await? || self.0.keys.any(TENANT).await?;
        *self.0.in_use.lock() = Some((at, in_use));
        Ok(in_use)
    }
}

/// The identity of a deployment, for a command that looks at it while nobody serves, or beside whoever does.
#[derive(Debug)]
pub struct Deployment {
    /// Who may come in.
    pub access: Access,
    /// What is written down of who did what.
    pub audit: Audit,
    db: Db,
    clock: Clock,
    background: Background,
}

impl Deployment {
    /// Opens it.
    ///
    /// # Errors
    /// When the database cannot be opened or brought up to date, or there is no secret, or another than
    /// the database was used with.
    pub async fn open(settings: &Settings) -> Result<Self, Box<dyn std::error::Error>> {
        let it = Self::open_with_any_secret(settings).await?;
        if let Err(error) = it.access.check_secret().await {
            it.close().await;
            return Err(error.into());
        }
        Ok(it)
    }

    /// The same, but with whatever secret there is: for whoever gives up what another has sealed.
    ///
    /// # Errors
    /// When the database cannot be opened or brought up to date, or there is no secret.
    pub async fn open_with_any_secret(
        settings: &Settings,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let (clock, data_dir) = (Clock::system(), &settings.data.dir);
        crate::data_dir::make(data_dir)?;
        let db = Db::connect(&settings.database_options(data_dir)).await?;
        modelyard_schema::migrate(&db, &clock).await?;
        let background = Background::default();
        let options = modelyard_flow::job::Options {
            workers: modelyard_flow::job::Workers::None,
            ..settings.jobs.options()
        };
        let node = "command".to_owned();
        let engine = Engine::new(db.clone(), clock.clone(), background.clone(), node, options);
        let access = Access::new(settings, data_dir, (&db, &clock), &background, &engine)?;
        access.serve(&engine);
        let audit = crate::audit::open(settings, &access, &db, &clock);
        Ok(Self { access, audit, db, clock, background })
    }

    /// The present instant.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Whoever has the database may do everything.
    pub fn caller(&self) -> Caller {
        Caller::system("command line", TENANT, DEPLOYMENT)
    }

    /// Writes what is still to be written, and closes it.
    pub async fn close(self) {
        self.background.shutdown(Duration::from_secs(5)).await;
        self.db.close().await;
    }
}

fn secret(settings: &Settings, data_dir: &Path) -> Result<Secret, AccessError> {
    if let Some(text) = &settings.access.secret {
        return Ok(Secret::read(text)?);
    }
    if let Some(file) = &settings.access.secret_file {
        let text = fs_err::read_to_string(file).map_err(SecretError::from)?;
        return Ok(Secret::read(&text)?);
    }
    Ok(Secret::in_directory(data_dir)?)
}

fn mailer(settings: &Settings) -> Result<Arc<dyn Mailer>, AccessError> {
    let mail = &settings.mail;
    let Some(host) = &mail.host else { return Ok(Arc::new(Unsent)) };
    let password = match (&mail.password, &mail.password_file) {
        (None, Some(file)) => Some(first_line(file)?),
        (password, _) => password.clone(),
    };
    let credentials = mail.user.clone().zip(password);
    let smtp = Smtp::new(SmtpOptions {
        host: host.clone(),
        port: mail.port,
        security: SmtpSecurity::read(&mail.security).unwrap_or_default(),
        authority: None,
        credentials: credentials.map(|(user, password)| (user, password.into())),
        hello: None,
    })?;
    Ok(Arc::new(smtp))
}

fn first_line(file: &Path) -> Result<String, AccessError> {
    let text = fs_err::read_to_string(file).map_err(AccessError::MailPassword)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Where links of mails lead to.
fn public_url(settings: &Settings) -> Result<Url, AccessError> {
    let server = &settings.server;
    let here = || format!("http://{}:{}", server.host, server.port);
    Ok(Url::parse(&server.public_url.clone().unwrap_or_else(here))?)
}

/// The second factor of a login is that of `modelyard_access::factor`.
#[derive(Debug)]
struct Second(Factors);

impl SecondFactor for Second {
    fn check<'a>(
        &'a self,
        scope: &'a Scope,
        user: Ulid,
        code: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FactorOutcome>> {
        Box::pin(async move {
            Ok(match self.0.check(scope, user, code).await? {
                Shown::NotSet => FactorOutcome::NotSet,
                Shown::Missing => FactorOutcome::Missing,
                Shown::Wrong => FactorOutcome::Wrong,
                Shown::Right(at) => FactorOutcome::Right(at),
            })
        })
    }
}

/// The users, as links and factors know them.
struct People {
    users: Users,
    roles: Roles,
    clock: Clock,
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("People")
    }
}

fn account(user: User) -> Account {
    Account {
        id: user.id.0,
        email: user.email.as_str().to_owned(),
        name: user.name,
        standing: match user.status {
            UserStatus::Invited => Standing::Invited,
            UserStatus::Active => Standing::Active,
            UserStatus::Disabled => Standing::Disabled,
        },
    }
}

#[async_trait]
impl Accounts for People {
    async fn find_by_email(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        email: &str,
    ) -> Result<Option<Account>> {
        let Some(email) = Email::read(email) else { return Ok(None) };
        Ok(self.users.find_by_email_in(conn, scope, &email).await?.map(account))
    }

    async fn find(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<Option<Account>> {
        Ok(self.users.find_in(conn, scope, UserId(user)).await?.map(account))
    }

    async fn permit_change(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        user: Ulid,
    ) -> Result<()> {
        let caller = self.roles.still(conn, caller, scope, user::WRITE).await?;
        self.roles.allow_change_of(conn, &caller, scope, user).await
    }

    async fn hash(&self, account: &Account, password: &str) -> Result<HashedPassword> {
        let (passwords, password) = (self.users.passwords(), Password::new(password));
        let about = [account.email.as_str(), account.name.as_str()];
        if let Some(weak) = passwords.weakness(&password, &about).await? {
            return Err(Failure::bad_request("password_weak", weak.to_string()));
        }
        Ok(HashedPassword(passwords.hash(&password).await?))
    }

    async fn set_password(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
        password: HashedPassword,
    ) -> Result<()> {
        self.users.set_password_in(conn, scope, user, &password.0).await
    }

    async fn activate(&self, conn: &mut Conn, scope: &Scope, user: Ulid, name: &str) -> Result<()> {
        self.users.rename_in(conn, scope, UserId(user), name.to_owned()).await.map(drop)
    }

    async fn end_sessions(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<()> {
        session::end_all_in(conn, scope, user, None, self.clock.now()).await
    }
}

/// Tells users by mail.
#[derive(Debug)]
struct ByMail(Mails);

impl Notices for ByMail {
    fn tell<'c>(
        &'c self,
        conn: &'c mut Conn,
        scope: &'c Scope,
        user: &'c User,
        notice: Notice,
    ) -> BoxFuture<'c, Result<Option<AfterCommit>>> {
        Box::pin(async move {
            let letter = match notice {
                Notice::NewLogin { at, address, user_agent } => {
                    Letter::NewLogin { at, address, user_agent }
                }
                Notice::PasswordChanged { at } => Letter::PasswordChanged { at },
            };
            let (to, name) = (user.email.as_str().to_owned(), user.name.clone());
            // Nobody is kept out because too many mails wait.
            let submitted = self.0.notify(conn, scope, Mail { to, name, letter }).await?;
            let mails = self.0.clone();
            Ok(submitted.map(|it| Box::new(move || mails.wake([it])) as AfterCommit))
        })
    }
}
