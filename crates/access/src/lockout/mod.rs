//! Who guesses passwords waits: how often logging in failed at an address, and to an account from there, and
//! how many logins are under way.
//!
//! Failures of an account are counted apart for each address, so that a stranger keeps nobody out who is
//! elsewhere. A try counts before anything is computed for it and is taken back when it was no guess, so
//! that whoever hangs up has guessed as well. What is written is the same whether there is such an account or
//! not.

mod model;
mod store;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use modelyard_kernel::{Clock, Conn, Db, Failure, Kind, Result, Scope, Time};
use parking_lot::Mutex;

use model::account_lock;
pub(crate) use model::{FORGOTTEN, address_lock, place};

/// Logins to one account that are under way at once in a process.
const OF_AN_ACCOUNT: usize = 2;
/// Logins from one address.
const OF_AN_ADDRESS: usize = 8;

/// Counts. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lockout {
    db: Db,
    clock: Clock,
    under_way: UnderWay,
}

/// How many logins are under way for each account and each address that has any.
type UnderWay = Arc<Mutex<HashMap<String, usize>>>;

/// One of those that are under way.
#[derive(Debug)]
struct Place {
    under_way: UnderWay,
    of: String,
}

impl Place {
    fn take(under_way: &UnderWay, of: &str, most: usize) -> Result<Self> {
        let mut all = under_way.lock();
        let count = all.entry(of.to_owned()).or_default();
        if *count >= most {
            return Err(Failure::new(
                Kind::Exhausted,
                "logins_busy",
                "other logins to this account or from this address are under way; try again in a moment",
            ));
        }
        *count += 1;
        Ok(Self { under_way: Arc::clone(under_way), of: of.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.under_way.lock();
        if let Some(count) = all.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.of);
            }
        }
    }
}

/// A try, which counts as a failure unless it is taken back.
#[derive(Debug)]
pub(crate) struct Try {
    lockout: Lockout,
    scope: Scope,
    account: String,
    address: String,
    at: Time,
    /// When the last failure of the address, and of the account there, was before.
    before: (Time, Time),
    _places: [Place; 2],
}

/// What becomes of somebody who wants to try.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It may.
    Try(Arc<Try>),
    /// There were too many failures of this account at this address.
    Wait,
}

impl Lockout {
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock, under_way: UnderWay::default() }
    }

    /// Counts a try, unless somebody has to wait: nobody is to lengthen that.
    ///
    /// # Errors
    /// `logins_exhausted` when there were too many failures at the address; `logins_busy` when as many as may
    /// be are under way.
    pub(crate) async fn begin(
        &self,
        scope: &Scope,
        email: &str,
        address: Option<IpAddr>,
    ) -> Result<Begun> {
        let (account, address) = (model::account(email), place(address));
        let here = Place::take(&self.under_way, &address, OF_AN_ADDRESS)?;
        let at = self.clock.now();
        let ends = (at, at.before(FORGOTTEN));
        let (for_whom, of, from) = (scope.clone(), account.clone(), address.clone());
        let counted = self.db.transaction(move |conn| {
            async move {
                let scope = &for_whom;
                let (failures, last_at) = store::lock(conn, scope, "", &from, ends).await?;
                let until = address_lock(failures).map(|it| last_at.after(it));
                if let Some(until) = until.filter(|it| *it > at) {
                    return Ok(Counted::AddressWaits(until));
                }
                store::count(conn, scope, "", &from, at).await?;
                let of_address = last_at;
                let (failures, last_at) = store::lock(conn, scope, &of, &from, ends).await?;
                if account_lock(failures).is_some_and(|it| last_at.after(it) > at) {
                    return Ok(Counted::AccountWaits);
                }
                store::count(conn, scope, &of, &from, at).await?;
                Ok::<_, Failure>(Counted::Since(of_address, last_at))
            }
            .boxed()
        });
        let before = match counted.await? {
            Counted::Since(address, account) => (address, account),
            Counted::AccountWaits => return Ok(Begun::Wait),
            Counted::AddressWaits(until) => {
                return Err(Failure::new(
                    Kind::Exhausted,
                    "logins_exhausted",
                    "too many logins failed at this address; try again later",
                )
                .with_wait(until.since(at)));
            }
        };
        // After the count: who waits keeps nobody else from the account.
        match Place::take(&self.under_way, &account, OF_AN_ACCOUNT) {
            Ok(there) => Ok(Begun::Try(Arc::new(Try {
                lockout: self.clone(),
                scope: scope.clone(),
                account,
                address,
                at,
                before,
                _places: [here, there],
            }))),
            Err(busy) => {
                self.take_back(scope, &account, &address, at, before).await?;
                Err(busy)
            }
        }
    }

    async fn take_back(
        &self,
        scope: &Scope,
        account: &str,
        address: &str,
        at: Time,
        before: (Time, Time),
    ) -> Result<()> {
        let (scope, account, address) = (scope.clone(), account.to_owned(), address.to_owned());
        let take_back = self.db.transaction(move |conn| {
            async move {
                store::take_back(conn, &scope, "", &address, (at, before.0)).await?;
                Ok(store::take_back(conn, &scope, &account, &address, (at, before.1)).await?)
            }
            .boxed()
        });
        take_back.await
    }

    /// Forgets the failures of an account, wherever they were.
    pub(crate) async fn forget_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        email: &str,
    ) -> Result<()> {
        Ok(store::forget(conn, scope, &model::account(email)).await?)
    }

    /// Removes what counts no more, `most` of it. Gives how much that was.
    pub(crate) async fn sweep(&self, scope: &Scope, most: i64) -> Result<u64> {
        let before = self.clock.now().before(FORGOTTEN);
        Ok(store::sweep(&mut self.db.conn().await?, scope, before, most).await?)
    }
}

/// What a try finds.
enum Counted {
    /// It counts; the last failure of the address, and of the account there, was then.
    Since(Time, Time),
    AddressWaits(Time),
    AccountWaits,
}

impl Try {
    /// It was no guess.
    pub(crate) async fn take_back(&self) -> Result<()> {
        let Self { lockout, scope, account, address, at, before, .. } = self;
        lockout.take_back(scope, account, address, *at, *before).await
    }

    /// It was no guess, and what failed before at this account from here is forgotten. The failures of the
    /// address stay, or whoever guesses would log in as itself in between.
    pub(crate) async fn succeed_in(&self, conn: &mut Conn) -> Result<()> {
        let Self { scope, account, address, at, before, .. } = self;
        store::take_back(conn, scope, "", address, (*at, before.0)).await?;
        Ok(store::forget_at(conn, scope, account, address).await?)
    }
}
