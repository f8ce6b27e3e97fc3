//! The deployment's secret: what is sealed with it can be read by whoever has it, and by nobody who has
//! only the database.
//!
//! All processes of a deployment have the same. The database has a known text that was sealed with it, so
//! that one with another secret finds out at start, and not when it cannot open what it needs.

mod store;

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use modelyard_kernel::{Caller, Clock, Conn, DEPLOYMENT, Db, Failure, Permission, Result, Scope};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Bytes of the secret.
const LENGTH: usize = 32;
/// The file that has it, in the data directory, when nothing else does.
const FILE: &str = "secret";

/// What nobody but the system has: to let go of what was sealed.
const RESET: Permission = Permission("system:administer");
/// What is sealed to be tried, and its name.
const CHECK: &str = "access:secret";

/// The secret. Cheap to clone; it is never shown.
#[derive(Clone)]
pub struct Secret(Arc<LessSafeKey>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "the deployment's secret is {LENGTH} bytes in base 64; make one with `openssl rand -base64 {LENGTH}`"
    )]
    Form,
    #[error("the file with the deployment's secret cannot be read or written")]
    File(#[from] std::io::Error),
    #[error(
        "this process has another secret than its database was used with: set `access.secret` or \
         `access.secret_file` to the one that the deployment's other processes have, or that it had \
         before, or put it into the file `{FILE}` of the data directory; if it is lost, \
         `modelyard secret reset` gives up what was sealed with it"
    )]
    Another,
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Secret {
    /// One that was given, in base 64.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> Result<Self, SecretError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| SecretError::Form)?;
        Self::of(&Zeroizing::new(bytes))
    }

    /// The one in a data directory; a new one when there is none. Only the server's user may read it.
    ///
    /// # Errors
    /// When the file is no secret, or cannot be read or written.
    pub fn in_directory(directory: &Path) -> Result<Self, SecretError> {
        let path = directory.join(FILE);
        match fs_err::read_to_string(&path) {
            Ok(text) => return Self::read(&Zeroizing::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = Zeroizing::new(random::<LENGTH>());
        // Written in full before it has its name, so that a crash leaves nothing that is no secret.
        let draft = directory.join(format!("{FILE}.{:032x}", u128::from_ne_bytes(random::<16>())));
        let linked = write_draft(&draft, &bytes).and_then(|()| fs_err::hard_link(&draft, &path));
        let removed = fs_err::remove_file(&draft);
        match linked {
            Ok(()) => {}
            // Another process of this directory was first.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        removed?;
        fs_err::File::open(directory)?.sync_all()?;
        Self::read(&Zeroizing::new(fs_err::read_to_string(&path)?))
    }

    /// Refuses to go on with another secret than the one that a database was used with; the first process
    /// that comes decides.
    ///
    /// # Errors
    /// [`SecretError::Another`]; when the database refuses.
    pub async fn check(&self, db: &Db, clock: &Clock, tenant: &str) -> Result<(), SecretError> {
        let (it, scope, now) = (self.clone(), scope_of(tenant)?, clock.now());
        let check = db.transaction(move |conn| {
            async move {
                conn.exclusive(CHECK).await?;
                match store::find(conn, &scope).await? {
                    Some(sealed) => Ok(it.open(CHECK, &sealed).is_ok()),
                    None => {
                        store::put(conn, &scope, it.seal(CHECK, CHECK.as_bytes())?, now).await?;
                        Ok(true)
                    }
                }
            }
            .boxed()
        });
        match check.await? {
            true => Ok(()),
            false => Err(SecretError::Another),
        }
    }

    /// Makes it the one of a database, in the transaction that removes what another has sealed.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn adopt_in(&self, conn: &mut Conn, scope: &Scope, clock: &Clock) -> Result<()> {
        conn.exclusive(CHECK).await?;
        let sealed = self.seal(CHECK, CHECK.as_bytes())?;
        Ok(store::put(conn, scope, sealed, clock.now()).await?)
    }

    fn of(bytes: &[u8]) -> Result<Self, SecretError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| SecretError::Form)?;
        Ok(Self(Arc::new(LessSafeKey::new(key))))
    }

    /// Seals bytes, so that they can be opened again under the same `name` only.
    ///
    /// # Errors
    /// None but defects of ours.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Failure> {
        let nonce = random::<NONCE_LEN>();
        let mut sealed = plain.to_vec();
        let aad = Aad::from(name.as_bytes());
        let sealing =
            self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed);
        sealing.map_err(|_| Failure::internal("it cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what was sealed under `name`.
    ///
    /// # Errors
    /// When it was sealed with another secret or under another name.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let wrong = || Failure::internal("it was sealed with another secret of the deployment");
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = self.0.open_in_place(nonce, Aad::from(name.as_bytes()), &mut plain);
        let length = opened.map_err(|_| wrong())?.len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// A file with a new secret, under a name that nobody reads.
fn write_draft(draft: &Path, bytes: &[u8; LENGTH]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(draft)?;
    file.write_all(Zeroizing::new(STANDARD.encode(bytes)).as_bytes())?;
    file.sync_all()
}

/// The scope of a process that has not let anybody in yet.
fn scope_of(tenant: &str) -> Result<Scope> {
    let system = Caller::system("secret", tenant, DEPLOYMENT);
    system.permit_in_deployment(RESET).cloned()
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use modelyard_testkit::{TENANT, on_both_databases};

    use super::*;

    on_both_databases! {
        async fn a_database_is_used_with_one_secret(database: TestDatabase) {
            let secret = |it| Secret::read(&STANDARD.encode([it; 32])).unwrap();
            let (db, clock) = (&database.db, &database.clock);
            let check = async |it| secret(it).check(db, clock, TENANT).await;
            check(1).await.unwrap();
            check(1).await.unwrap();
            let refused = check(2).await.unwrap_err();
            assert!(matches!(refused, SecretError::Another), "{refused}");
            check(1).await.unwrap();
            let scope = scope_of(TENANT).unwrap();
            secret(2).adopt_in(&mut db.conn().await.unwrap(), &scope, clock).await.unwrap();
            check(2).await.unwrap();
            assert!(check(1).await.is_err());
        }

        async fn of_two_that_come_first_one_decides(database: TestDatabase) {
            let secret = |it| Secret::read(&STANDARD.encode([it; 32])).unwrap();
            let (one, two) = (secret(1), secret(2));
            let (db, other, clock) = (&database.db, database.reconnect().await, &database.clock);
            let both = tokio::join!(one.check(db, clock, TENANT), two.check(&other, clock, TENANT));
            assert_ne!(both.0.is_ok(), both.1.is_ok(), "{both:?}");
        }
    }

    #[test]
    fn what_is_sealed_is_opened_under_its_name_only() {
        let secret = Secret::read(&STANDARD.encode([7; 32])).unwrap();
        let sealed = secret.seal("factor:a", b"plain").unwrap();
        assert_eq!(&**secret.open("factor:a", &sealed).unwrap(), b"plain");
        assert!(secret.open("factor:b", &sealed).is_err());
        assert!(
            Secret::read(&STANDARD.encode([8; 32])).unwrap().open("factor:a", &sealed).is_err()
        );
        assert!(secret.open("factor:a", &sealed[..10]).is_err());
        assert_ne!(sealed, secret.seal("factor:a", b"plain").unwrap());
    }

    #[test]
    fn a_directory_has_one_secret_that_others_cannot_read() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let sealed = Secret::in_directory(directory.path()).unwrap().seal("x", b"y").unwrap();
        let again = Secret::in_directory(directory.path()).unwrap();
        assert_eq!(&**again.open("x", &sealed).unwrap(), b"y");
        let file = directory.path().join(FILE);
        assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1);
        fs_err::write(&file, "short").unwrap();
        assert!(matches!(Secret::in_directory(directory.path()), Err(SecretError::Form)));
    }

    #[test]
    fn a_crash_while_a_secret_is_made_leaves_none_and_several_at_once_make_one() {
        let directory = tempfile::tempdir().unwrap();
        // What a crash leaves.
        fs_err::write(directory.path().join(format!("{FILE}.0123")), "half of a sec").unwrap();
        let make = || Secret::in_directory(directory.path()).unwrap();
        let secrets: Vec<Secret> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            all.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let sealed = secrets[0].seal("x", b"y").unwrap();
        assert!(secrets.iter().all(|it| it.open("x", &sealed).is_ok()));
    }
}
