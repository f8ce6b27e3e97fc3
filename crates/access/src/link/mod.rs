//! Links that are mailed: invitations, and resets of passwords that were forgotten. Each is good once, for
//! a while, and for whoever reads the mail.
//!
//! Nobody learns who has an account here. Whoever asks for a reset is answered before anybody looks,
//! and what is done then is the same for addresses that nobody has, but for the mail.

pub mod http;
mod model;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use modelyard_flow::job::Submission;
use modelyard_kernel::event::emit;
use modelyard_kernel::{
    Background, Caller, Clock, Conn, Db, Event, Failure, Kind, Part, Permission, Result, Scope,
    Time, Ulid,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::mail::{Letter, Mail, Mails};
use crate::session::Client;
use crate::user::{FORGOTTEN, address_lock};
use model::Token;
pub use model::{Acceptance, LinkPurpose, Reset};
use store::NewLink;

/// May invite users.
pub const INVITE: Permission = Permission("users:write");

/// Mails with a reset that one user is sent within [`COUNTED_FOR`], and as many with an invitation.
const MOST_MAILS: i64 = 3;
const COUNTED_FOR: Duration = Duration::from_secs(60 * 60);

/// Requests for resets that wait to be looked at.
const MOST_ASKS: usize = 256;
/// Each takes as long: who waits for his own must not learn from it what those before it came to.
const SLOT: Duration = Duration::from_millis(50);

/// A user, as far as links are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: Ulid,
    /// Its address, in lower case.
    pub email: String,
    /// What it calls itself.
    pub name: String,
    /// Whether it may come in.
    pub standing: Standing,
}

/// Whether a user may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not before it takes the invitation.
    Invited,
    /// It may.
    Active,
    /// Not any more.
    Disabled,
}

/// A password as it is stored: nobody can tell from it what it was.
#[derive(Clone)]
pub struct HashedPassword(pub String);

impl fmt::Debug for HashedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedPassword")
    }
}

/// What links need of the users.
#[async_trait]
pub trait Accounts: fmt::Debug + Send + Sync {
    /// The user of an address in lower case.
    async fn find_by_email(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        email: &str,
    ) -> Result<Option<Account>>;

    /// One user.
    async fn find(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<Option<Account>>;

    /// Refuses to change a user whom the caller may not change, although it may change users: one that
    /// may do more than the caller.
    async fn permit_change(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        caller: &Caller,
        user: Ulid,
    ) -> Result<()>;

    /// Refuses a password that is too weak, or hashes it. Takes a while, and so is no part of a
    /// transaction.
    async fn hash(&self, account: &Account, password: &str) -> Result<HashedPassword>;

    /// Sets a user's password, and forgets how often it failed to log in.
    async fn set_password(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
        password: HashedPassword,
    ) -> Result<()>;

    /// Lets an invited user in from now on, under the name that it has chosen.
    async fn activate(&self, conn: &mut Conn, scope: &Scope, user: Ulid, name: &str) -> Result<()>;

    /// Ends all sessions of a user.
    async fn end_sessions(&self, conn: &mut Conn, scope: &Scope, user: Ulid) -> Result<()>;
}

/// The links of a deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Links {
    core: Arc<Core>,
    asks: mpsc::Sender<String>,
}

#[derive(Debug)]
struct Core {
    db: Db,
    clock: Clock,
    scope: Scope,
    accounts: Arc<dyn Accounts>,
    mails: Mails,
}

impl Links {
    /// Those of the deployment of `system`, who is the service itself: whoever uses a link is nobody
    /// yet.
    ///
    /// # Errors
    /// When `system` may not.
    pub fn new(
        db: Db,
        clock: Clock,
        background: &Background,
        system: &Caller,
        accounts: Arc<dyn Accounts>,
        mails: Mails,
    ) -> Result<Self> {
        let scope = system.permit_in_deployment(INVITE)?.clone();
        let core = Arc::new(Core { db, clock, scope, accounts, mails });
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        background.spawn(look(Arc::clone(&core), asked, background.stopping().clone()));
        Ok(Self { core, asks })
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "links", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// Has a mail sent to whoever has forgotten a password, if there is such a user. The answer does
    /// not tell, and does not wait for it. An address of the network may ask as often as it may fail to
    /// log in.
    ///
    /// # Errors
    /// `resets_exhausted` when too many came from there; `resets_busy` when too many ask at all.
    pub async fn forgot_password(&self, email: String, client: Client) -> Result<()> {
        self.core.allow_request(client).await?;
        self.asks.try_send(email).map_err(|_| {
            let detail = "too many ask for a new password at this moment, try again later";
            Failure::new(Kind::Unavailable, "resets_busy", detail)
        })
    }

    /// Removes links that are of no use any more, and requests that count no more: `most` of each. Gives
    /// how many that were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sweep(&self, most: i64) -> Result<u64> {
        let Core { db, clock, scope, .. } = &*self.core;
        let (now, mut conn) = (clock.now(), db.conn().await?);
        let counted = now.before(COUNTED_FOR);
        let links = store::sweep_all(&mut conn, scope, now, counted, most).await?;
        let forgotten = now.before(FORGOTTEN);
        Ok(links + store::sweep_requests(&mut conn, scope, forgotten, most).await?)
    }

    /// Sets a password instead of one that was forgotten, and ends all sessions of the user.
    ///
    /// # Errors
    /// `link_invalid`, and what the accounts say of the password; the link is good for another try
    /// then.
    pub async fn reset_password(&self, reset: Reset) -> Result<()> {
        let Reset { token, password } = reset;
        let account = self.account(&token, LinkPurpose::Reset).await?;
        let hashed = self.core.accounts.hash(&account, &password.0).await?;
        let (core, hash, user) = (Arc::clone(&self.core), token.hash(), account.id);
        let reset = self.core.db.transaction(move |conn| {
            async move {
                let Core { scope, accounts, .. } = &*core;
                let now = core.clock.now();
                core.use_up(conn, hash, LinkPurpose::Reset, user, now).await?;
                emit(conn, scope, Event::new(&core.clock, "user.password_reset", user)).await?;
                accounts.set_password(conn, scope, user, hashed).await?;
                accounts.end_sessions(conn, scope, user).await?;
                let letter = Letter::PasswordChanged { at: now };
                let mail = Mail { to: account.email, name: account.name, letter };
                core.mails.notify(conn, scope, mail).await
            }
            .boxed()
        });
        let mail = reset.await?;
        self.core.mails.wake(mail);
        Ok(())
    }

    /// Invites a user who has not come in yet. What it was sent before is useless then. Gives until when
    /// it is good.
    ///
    /// # Errors
    /// `user_missing`; `user_active` when it is no longer to be invited; `invitations_exhausted` when it
    /// was invited too often of late.
    pub async fn invite(&self, caller: &Caller, user: Ulid) -> Result<Time> {
        let scope = caller.permit_in_deployment(INVITE)?.clone();
        let (core, caller) = (Arc::clone(&self.core), caller.clone());
        let invite = self.core.db.transaction(move |conn| {
            async move {
                core.accounts.permit_change(conn, &scope, &caller, user).await?;
                core.invite(conn, &scope, user).await
            }
            .boxed()
        });
        let (until, mail) = invite.await?;
        self.core.mails.wake(Some(mail));
        Ok(until)
    }

    /// Invites a user in the transaction that makes it; call [`Mails::wake`] after the commit.
    ///
    /// # Errors
    /// As [`Links::invite`].
    pub async fn invite_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
    ) -> Result<Submission> {
        Ok(self.core.invite(conn, scope, user).await?.1)
    }

    /// Takes an invitation. Gives the user, who may log in from now on.
    ///
    /// # Errors
    /// `link_invalid`, and what the accounts say of the password; the link is good for another try
    /// then.
    pub async fn accept_invitation(&self, acceptance: Acceptance) -> Result<Ulid> {
        let Acceptance { token, name, password } = acceptance;
        let account = self.account(&token, LinkPurpose::Invitation).await?;
        let hashed = self.core.accounts.hash(&account, &password.0).await?;
        let (core, hash, user) = (Arc::clone(&self.core), token.hash(), account.id);
        let accept = self.core.db.transaction(move |conn| {
            async move {
                let Core { scope, accounts, .. } = &*core;
                let now = core.clock.now();
                core.use_up(conn, hash, LinkPurpose::Invitation, user, now).await?;
                emit(conn, scope, Event::new(&core.clock, "invitation.accepted", user)).await?;
                accounts.set_password(conn, scope, user, hashed).await?;
                accounts.activate(conn, scope, user, &name).await
            }
            .boxed()
        });
        accept.await?;
        Ok(user)
    }

    /// The user of a link that is still good. Nothing is hashed for anybody else.
    async fn account(&self, token: &Token, purpose: LinkPurpose) -> Result<Account> {
        let Core { db, clock, scope, accounts, .. } = &*self.core;
        let mut conn = db.conn().await?;
        let user = store::find(&mut conn, scope, token.hash(), purpose, clock.now()).await?;
        let user = user.ok_or_else(invalid)?;
        let account = accounts.find(&mut conn, scope, user).await?;
        account.filter(|it| it.standing == wanted(purpose)).ok_or_else(invalid)
    }
}

impl Core {
    /// Counts a request for a reset, unless there were too many from the same address. Knows nothing of
    /// the account.
    async fn allow_request(&self, client: Client) -> Result<()> {
        let (scope, address, now) = (&self.scope, client.counted_as(), self.clock.now());
        let mut conn = self.db.conn().await?;
        if let Some((requests, last_at)) = store::requests(&mut conn, scope, &address).await?
            && address_lock(requests).is_some_and(|it| last_at.after(it) > now)
        {
            let detail = "too many resets were asked for at this address; try again later";
            return Err(Failure::new(Kind::Exhausted, "resets_exhausted", detail));
        }
        let forgotten = now.before(FORGOTTEN);
        Ok(store::note_request(&mut conn, scope, &address, now, forgotten).await?)
    }

    /// Uses a link, and makes others of the user useless.
    async fn use_up(
        &self,
        conn: &mut Conn,
        hash: Vec<u8>,
        purpose: LinkPurpose,
        user: Ulid,
        now: Time,
    ) -> Result<()> {
        crate::user::hold_in(conn, &self.scope, user).await?;
        if !store::use_up(conn, &self.scope, hash, purpose, now).await? {
            return Err(invalid());
        }
        // It may have been disabled while the password was hashed.
        let account = self.accounts.find(conn, &self.scope, user).await?;
        account.filter(|it| it.standing == wanted(purpose)).ok_or_else(invalid)?;
        Ok(store::retire(conn, &self.scope, user, now).await?)
    }

    async fn invite(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        user: Ulid,
    ) -> Result<(Time, Submission)> {
        let account = self.accounts.find(conn, scope, user).await?;
        let account = account.ok_or_else(|| user_missing(user))?;
        if account.standing != Standing::Invited {
            let detail = format!("user {user} has come in already");
            return Err(Failure::conflict("user_active", detail));
        }
        let (now, purpose, token) = (self.clock.now(), LinkPurpose::Invitation, Token::new());
        // Two nodes that are asked at once must not send one too many.
        conn.exclusive(&format!("invitations:{user}")).await?;
        let since = now.before(COUNTED_FOR);
        if store::count_since(conn, scope, user, purpose, since).await? >= MOST_MAILS {
            let detail = format!("user {user} was invited {MOST_MAILS} times within an hour; wait");
            return Err(Failure::new(Kind::Exhausted, "invitations_exhausted", detail));
        }
        store::sweep(conn, scope, user, now).await?;
        store::retire(conn, scope, user, now).await?;
        let (hash, expires_at) = (token.hash(), now.after(purpose.lifetime()));
        store::insert(conn, scope, NewLink { hash, user, purpose, expires_at, now }).await?;
        emit(conn, scope, Event::new(&self.clock, "user.invited", user)).await?;
        let letter = Letter::Invitation { token: token.text() };
        let mail = Mail { to: account.email, name: account.name, letter };
        Ok((expires_at, self.mails.submit(conn, scope, mail).await?))
    }

    /// Sends a reset to whoever has an address. For one that nobody has the same is done, and taken
    /// back.
    async fn remind(self: &Arc<Self>, email: String) -> Result<()> {
        let core = Arc::clone(self);
        let remind = self
            .db
            .transaction(move |conn| async move { core.remind_in(conn, email).await }.boxed());
        match remind.await {
            Ok(mail) => self.mails.wake(Some(mail)),
            Err(failure) if failure.code() == NOBODY => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn remind_in(&self, conn: &mut Conn, email: String) -> Result<Submission> {
        let (scope, now, purpose) = (&self.scope, self.clock.now(), LinkPurpose::Reset);
        let account = self.accounts.find_by_email(conn, scope, &email).await?;
        let account = account.filter(|it| it.standing == Standing::Active);
        let user = account.as_ref().map_or_else(|| self.clock.ulid(), |it| it.id);
        // Two nodes that are asked at once must not send one too many.
        conn.exclusive(&format!("resets:{user}")).await?;
        crate::user::hold_in(conn, scope, user).await?;
        store::sweep(conn, scope, user, now).await?;
        let since = now.before(COUNTED_FOR);
        let sent = store::count_since(conn, scope, user, purpose, since).await?;
        let token = Token::new();
        let (hash, expires_at) = (token.hash(), now.after(purpose.lifetime()));
        let is_sent = account.is_some() && sent < MOST_MAILS;
        if is_sent {
            store::insert(conn, scope, NewLink { hash, user, purpose, expires_at, now }).await?;
        }
        // For an address that nobody has it is taken back, as all the rest.
        emit(conn, scope, Event::new(&self.clock, "reset.asked", user)).await?;
        let letter = Letter::PasswordReset { token: token.text() };
        let (to, name) = account.map_or((email, String::new()), |it| (it.email, it.name));
        let mail = self.mails.submit(conn, scope, Mail { to, name, letter }).await?;
        if is_sent { Ok(mail) } else { Err(Failure::missing(NOBODY, "there is nobody to be told")) }
    }
}

/// Makes what was sent to a user useless, in the transaction of whatever is the reason.
///
/// # Errors
/// When the database refuses.
pub(crate) async fn retire_in(conn: &mut Conn, scope: &Scope, user: Ulid, now: Time) -> Result<()> {
    Ok(store::retire(conn, scope, user, now).await?)
}

/// What takes back what was done for nobody.
const NOBODY: &str = "reset_missing";

/// Looks at requests for resets, one after another.
async fn look(core: Arc<Core>, mut asked: mpsc::Receiver<String>, stopping: CancellationToken) {
    loop {
        let email = tokio::select! {
            email = asked.recv() => email,
            () = stopping.cancelled() => {
                // Those that were answered are still done.
                asked.close();
                asked.try_recv().ok()
            }
        };
        let Some(email) = email else { return };
        let slot = async {
            tokio::select! {
                () = tokio::time::sleep(SLOT) => {}
                () = stopping.cancelled() => {}
            }
        };
        let (done, ()) = tokio::join!(core.remind(email), slot);
        if let Err(failure) = done {
            tracing::error!(%failure, "the reset of a password was not sent");
        }
    }
}

/// Who may use a link.
fn wanted(purpose: LinkPurpose) -> Standing {
    match purpose {
        LinkPurpose::Invitation => Standing::Invited,
        LinkPurpose::Reset => Standing::Active,
    }
}

fn invalid() -> Failure {
    let detail = "this link is not good any more, ask for another";
    Failure::bad_request("link_invalid", detail)
}

pub(crate) fn user_missing(user: Ulid) -> Failure {
    Failure::missing("user_missing", format!("User {user} not found"))
}
