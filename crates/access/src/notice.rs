//! What users are told of what happens to their accounts, so that they notice when it was somebody else.

use std::fmt;

use futures_util::future::BoxFuture;
use modelyard_kernel::{Conn, Result, Scope, Time};

use crate::user::User;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The user logged in from where it had not before.
    NewLogin {
        /// When.
        at: Time,
        /// From where.
        address: String,
        /// With what, in its own words.
        user_agent: String,
    },
    /// The user's password is another.
    PasswordChanged {
        /// When.
        at: Time,
    },
}

/// What is left to do when the transaction was committed.
pub type AfterCommit = Box<dyn FnOnce() + Send>;

/// Tells users.
pub trait Notices: fmt::Debug + Send + Sync {
    /// Tells a user, in the transaction in which it happens.
    fn tell<'c>(
        &'c self,
        conn: &'c mut Conn,
        scope: &'c Scope,
        user: &'c User,
        notice: Notice,
    ) -> BoxFuture<'c, Result<Option<AfterCommit>>>;
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNotices;

impl Notices for NoNotices {
    fn tell<'c>(
        &'c self,
        _: &'c mut Conn,
        _: &'c Scope,
        _: &'c User,
        _: Notice,
    ) -> BoxFuture<'c, Result<Option<AfterCommit>>> {
        Box::pin(async { Ok(None) })
    }
}
