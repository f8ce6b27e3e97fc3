//! What tests stand on: fresh databases of both kinds, and a client that speaks to a real port.
//!
//! ```ignore
//! on_both_databases! {
//!     async fn a_taken_key_is_a_conflict(database: TestDatabase) {
//!         let mut conn = database.db.conn().await.unwrap();
//!     }
//! }
//! ```

#![expect(clippy::unwrap_used, reason = "a test harness panics loudly")]

mod client;
mod database;

pub use client::{Broken, TestClient, TestRequest, TestResponse, TestStream};
pub use database::{TestDatabase, run};

use modelyard_kernel::{Caller, Permission, Scope};

/// The tenant of [`test_scope`].
pub const TENANT: &str = "default";
/// The service of [`test_scope`].
pub const SERVICE: &str = "test-model";

/// A caller who may do everything.
pub fn test_caller() -> Caller {
    Caller::system("test", TENANT, SERVICE)
}

/// The scope of that caller.
pub fn test_scope() -> Scope {
    scope_of(TENANT, SERVICE)
}

/// The scope of another tenant or service, to show that rows keep apart.
pub fn scope_of(tenant: &str, service: &str) -> Scope {
    Caller::system("test", tenant, service).permit(Permission("test:all")).unwrap().clone()
}

/// Makes each function two tests, `name::sqlite` and `name::postgres`, on a fresh migrated
/// database each.
#[macro_export]
macro_rules! on_both_databases {
    ($($(#[$meta:meta])* async fn $name:ident($database:ident: TestDatabase) $body:block)+) => {
        $(#[cfg(test)]
        mod $name {
            #[allow(unused_imports, reason = "not every test needs what stands around it")]
            use super::*;

            $(#[$meta])*
            async fn check($database: $crate::TestDatabase) $body

            #[test]
            fn sqlite() {
                $crate::run(async { check($crate::TestDatabase::sqlite().await).await });
            }

            #[test]
            fn postgres() {
                $crate::run(async { check($crate::TestDatabase::postgres().await).await });
            }
        })+
    };
}
