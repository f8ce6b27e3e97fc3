//! Configs: how a model is to be trained and used, as its users set it.
//!
//! What a config may hold is the service's own: see [`schema`]. A config is linked to the trees of
//! artifacts that were made with it, and takes them along when it is deleted.

pub mod http;
mod model;
pub mod schema;
mod store;

use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Done, Operation};
use modelyard_kernel::db::Json;
use modelyard_kernel::event::emit;
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{Caller, Clock, Conn, Db, Event, Failure, Part, Permission, Result, Scope};
use serde::Serialize;

use crate::artifact::{Access, ArtifactId, Artifacts, Rendered};

pub use model::{Config, ConfigId, NewConfig};
use schema::ConfigSchema;
use store::ConfigRow;

/// May see configs.
pub const READ: Permission = Permission("configs:read");
/// May make, change and remove configs.
pub const WRITE: Permission = Permission("configs:write");

/// The configs of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Configs {
    db: Db,
    clock: Clock,
    artifacts: Artifacts,
    schema: Arc<ConfigSchema>,
}

/// What an event says of a link.
#[derive(Serialize)]
struct Link {
    artifact_id: ArtifactId,
}

impl Configs {
    /// The configs of a service, whose data keeps to `schema`.
    pub fn new(db: Db, clock: Clock, artifacts: Artifacts, schema: ConfigSchema) -> Self {
        Self { db, clock, artifacts, schema: Arc::new(schema) }
    }

    /// What this slice brings.
    pub fn part(&self, access: Access) -> Part {
        Part { name: "configs", routes: http::routes(self.clone(), access), ..Part::default() }
    }

    /// What a config may hold.
    pub fn schema(&self) -> &ConfigSchema {
        &self.schema
    }

    /// A new config.
    ///
    /// # Errors
    /// `config_taken` when its id is.
    pub async fn create(&self, caller: &Caller, new: NewConfig) -> Result<Config> {
        let scope = caller.permit(WRITE)?.clone();
        let it = self.clone();
        let insert = self
            .db
            .transaction(move |conn| async move { it.insert(conn, &scope, new).await }.boxed());
        insert.await
    }

    async fn insert(&self, conn: &mut Conn, scope: &Scope, new: NewConfig) -> Result<Config> {
        let NewConfig { id, name, tags, data } = new;
        let id = id.unwrap_or_else(|| ConfigId::new(&self.clock));
        let tags = Json(tags.unwrap_or_default());
        let row = ConfigRow { id, name, tags, data: Json(data), now: self.clock.now() };
        let config = store::insert(conn, scope, row).await?.ok_or_else(|| taken(id))?;
        let event = Event::new(&self.clock, "config.created", id);
        emit(conn, scope, event.after(&config)).await?;
        Ok(config)
    }

    /// One config.
    ///
    /// # Errors
    /// `config_missing`.
    pub async fn get(&self, caller: &Caller, id: ConfigId) -> Result<Config> {
        self.find(caller, id).await?.ok_or_else(|| missing(id))
    }

    /// One config, if there is one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn find(&self, caller: &Caller, id: ConfigId) -> Result<Option<Config>> {
        let scope = caller.permit(READ)?;
        self.find_in(&mut self.db.conn().await?, scope, id).await
    }

    /// One config, in the transaction of whatever else is read.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn find_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ConfigId,
    ) -> Result<Option<Config>> {
        Ok(store::find(conn, scope, id).await?)
    }

    /// Configs.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Config>> {
        let scope = caller.permit(READ)?;
        Ok(query.fetch(&mut self.db.conn().await?, scope, Config::COLUMNS).await?)
    }

    /// How many there are.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn count(&self, caller: &Caller) -> Result<i64> {
        let scope = caller.permit(READ)?;
        Ok(ListQuery::all(&http::FIELDS).count(&mut self.db.conn().await?, scope).await?)
    }

    /// Replaces a config; its tags stay when nothing is said of them.
    ///
    /// # Errors
    /// `config_missing`, `precondition_failed`.
    pub async fn update(
        &self,
        caller: &Caller,
        id: ConfigId,
        new: NewConfig,
        conditions: &Conditions,
    ) -> Result<Config> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let replace = self.db.transaction(move |conn| {
            async move { it.replace(conn, &scope, id, new, &conditions).await }.boxed()
        });
        replace.await
    }

    async fn replace(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ConfigId,
        new: NewConfig,
        conditions: &Conditions,
    ) -> Result<Config> {
        let NewConfig { id: _, name, tags, data } = new;
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        let tags = match tags {
            Some(tags) => tags,
            None => serde_json::from_str(old.tags.get())?,
        };
        let row = ConfigRow { id, name, tags: Json(tags), data: Json(data), now: self.clock.now() };
        let config = store::update(conn, scope, row).await?;
        let event = Event::new(&self.clock, "config.updated", id);
        emit(conn, scope, event.before(&old).after(&config)).await?;
        Ok(config)
    }

    /// Removes a config and every tree of artifacts that is linked to it.
    ///
    /// # Errors
    /// `config_missing`, `precondition_failed`.
    pub async fn delete(
        &self,
        caller: &Caller,
        id: ConfigId,
        conditions: &Conditions,
    ) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let remove = self.db.transaction(move |conn| {
            async move { it.remove(conn, &scope, id, &conditions).await }.boxed()
        });
        remove.await
    }

    async fn remove(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ConfigId,
        conditions: &Conditions,
    ) -> Result<()> {
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        for root in store::linked(conn, scope, id).await? {
            self.artifacts.delete_tree(conn, scope, root).await?;
        }
        store::delete(conn, scope, id).await?;
        emit(conn, scope, Event::new(&self.clock, "config.deleted", id).before(&old)).await?;
        Ok(())
    }

    /// Does several changes; on request all or nothing.
    ///
    /// # Errors
    /// As [`Bulk::apply`].
    pub async fn change(&self, caller: &Caller, bulk: Bulk<NewConfig>) -> Result<Changed> {
        let scope = caller.permit(WRITE)?.clone();
        let it = self.clone();
        let step = bulk.apply(&self.db, move |conn, operation| {
            let (it, scope) = (it.clone(), scope.clone());
            async move { it.step(conn, &scope, operation).await }.boxed()
        });
        step.await
    }

    async fn step(&self, conn: &mut Conn, scope: &Scope, operation: Operation<NewConfig>) -> Done {
        let none = Conditions::default();
        match operation {
            Operation::Create(new) => Applied::created(&self.insert(conn, scope, new).await?),
            Operation::Update(id, new) => {
                Applied::updated(&self.replace(conn, scope, ConfigId(id), new, &none).await?)
            }
            Operation::Delete(id) => {
                self.remove(conn, scope, ConfigId(id), &none).await?;
                Ok(Applied::Deleted)
            }
        }
    }

    /// Links a root artifact to a config.
    ///
    /// # Errors
    /// When the artifact is unknown, no root, or linked already; when the config is unknown.
    pub async fn link(&self, caller: &Caller, id: ConfigId, artifact: ArtifactId) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let it = self.clone();
        let link = self.db.transaction(move |conn| {
            async move {
                let found = it.artifacts.hold(conn, &scope, artifact).await?;
                let found = found.ok_or_else(|| {
                    let detail = format!("Artifact {artifact} not found");
                    Failure::bad_request("artifact_unknown", detail)
                })?;
                if let Some(parent) = found.parent_id {
                    return Err(Failure::bad_request(
                        "artifact_not_a_root",
                        format!("Artifact {artifact} is not a root artifact (parent_id={parent})"),
                    ));
                }
                it.link_in(conn, &scope, id, artifact).await
            }
            .boxed()
        });
        link.await
    }

    /// Links an artifact that is known to be a root, in the transaction that made it.
    ///
    /// # Errors
    /// When it is linked already, or the config is gone.
    pub async fn link_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ConfigId,
        artifact: ArtifactId,
    ) -> Result<()> {
        store::link(conn, scope, id, artifact).await?;
        let event = Event::new(&self.clock, "config.linked", id);
        emit(conn, scope, event.after(&Link { artifact_id: artifact })).await?;
        Ok(())
    }

    /// Takes a link back.
    ///
    /// # Errors
    /// `link_missing`.
    pub async fn unlink(&self, caller: &Caller, id: ConfigId, artifact: ArtifactId) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let event = Event::new(&self.clock, "config.unlinked", id);
        let event = event.before(&Link { artifact_id: artifact });
        let unlink = self.db.transaction(move |conn| {
            async move {
                if store::unlink(conn, &scope, id, artifact).await? {
                    return Ok(emit(conn, &scope, event).await?);
                }
                let detail = format!("Artifact {artifact} is not linked to config {id}");
                Err(Failure::missing("link_missing", detail))
            }
            .boxed()
        });
        unlink.await
    }

    /// The root artifacts that are linked to a config, with their content.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn artifacts(&self, caller: &Caller, id: ConfigId) -> Result<Vec<Rendered>> {
        let scope = caller.permit(READ)?;
        let linked = store::linked(&mut self.db.conn().await?, scope, id).await?;
        self.artifacts.get_many(caller, &linked).await
    }

    /// The config that an artifact's tree is linked to.
    ///
    /// # Errors
    /// `config_missing` when there is none.
    pub async fn of_artifact(&self, caller: &Caller, artifact: ArtifactId) -> Result<Config> {
        let scope = caller.permit(READ)?;
        let mut conn = self.db.conn().await?;
        let root = self.artifacts.root(&mut conn, scope, artifact).await?;
        let found = match root {
            Some(root) => store::find_linked(&mut conn, scope, root).await?,
            None => None,
        };
        found.ok_or_else(|| {
            Failure::missing("config_missing", format!("No config linked to artifact {artifact}"))
        })
    }
}

fn missing(id: ConfigId) -> Failure {
    Failure::missing("config_missing", format!("Entity with id {id} not found"))
}

fn taken(id: ConfigId) -> Failure {
    Failure::conflict("config_taken", format!("Entity with id {id} already exists"))
}
