//! Artifacts: what came of training and prediction, as trees.
//!
//! An artifact's data is any JSON. Its key `content` may be large or binary: it is kept apart, is
//! streamed both ways, and no list ever loads it. Nothing that a client or a script stored is
//! executed or unpickled here.

mod content;
mod download;
pub mod http;
mod model;
mod render;
mod store;

use std::sync::Arc;

use futures_util::FutureExt;
use modelyard_flow::job;
use modelyard_kernel::bulk::{Applied, Bulk, Changed, Done, Operation};
use modelyard_kernel::event::emit;
use modelyard_kernel::list::{ListQuery, Listed};
use modelyard_kernel::reply::Conditions;
use modelyard_kernel::{
    Blobs, Caller, Clock, Conn, Db, Event, Failure, Part, Permission, Result, Scope,
};
use tokio::sync::Semaphore;

pub use content::{Content, NewContent};
use content::{Parts, Prepared};
#[doc(hidden)]
pub use download::read_range;
pub use model::{Artifact, ArtifactId, ArtifactNode, ContentForm, Hierarchy, NewArtifact};
pub use render::Rendered;
use store::ArtifactRow;

/// May see artifacts.
pub const READ: Permission = Permission("artifacts:read");
/// May make, change and remove artifacts.
pub const WRITE: Permission = Permission("artifacts:write");

/// The largest content of one artifact: 64 GiB.
pub const MAX_UPLOAD: u64 = 64 << 30;

/// What clients may do with the configs, artifacts or tasks of a service, beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Nothing: the routes that change anything do not exist.
    ReadOnly,
}

/// The artifacts of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts {
    db: Db,
    clock: Clock,
    blobs: Blobs,
    hierarchy: Hierarchy,
    /// Places for downloads that are made in memory.
    converting: Arc<Semaphore>,
}

/// An artifact whose content is stored and whose row is still to be written.
#[derive(Debug)]
pub struct Draft {
    id: ArtifactId,
    /// Whether whoever drafted it chose the id.
    is_named: bool,
    tags: Option<Vec<String>>,
    #[expect(clippy::option_option, reason = "as in `NewArtifact`: not said, or a root")]
    parent: Option<Option<ArtifactId>>,
    parts: Parts,
    prepared: Prepared,
}

impl Artifacts {
    /// The artifacts of a service.
    pub fn new(db: Db, clock: Clock, blobs: Blobs, hierarchy: Hierarchy) -> Self {
        let converting = Arc::new(Semaphore::new(download::PLACES));
        Self { db, clock, blobs, hierarchy, converting }
    }

    /// What this slice brings.
    pub fn part(&self, access: Access) -> Part {
        Part { name: "artifacts", routes: http::routes(self.clone(), access), ..Part::default() }
    }

    /// Where content is kept.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Stores the content of a new artifact. `content` replaces the one in `new.data`.
    ///
    /// # Errors
    /// When the data is null, or the content cannot be stored.
    pub async fn draft(&self, new: NewArtifact, content: Option<NewContent>) -> Result<Draft> {
        let NewArtifact { id, tags, data, parent } = new;
        if data.is_null() {
            return Err(constraint("not_null"));
        }
        let parts = Parts::of(data).await?;
        let from_data = parts.content.as_ref().map(|it| NewContent::Json(it.1.clone()));
        let prepared = Prepared::new(&self.blobs, content.or(from_data)).await?;
        let is_named = id.is_some();
        let id = id.unwrap_or_else(|| ArtifactId::new(&self.clock));
        Ok(Draft { id, is_named, tags, parent, parts, prepared })
    }

    /// Writes the row of a draft, in the transaction of whatever else is changed.
    ///
    /// # Errors
    /// When the id is taken, the parent is unknown, or the tree would be too deep.
    pub async fn insert(&self, conn: &mut Conn, scope: &Scope, draft: &Draft) -> Result<Artifact> {
        let parent_id = draft.parent.flatten();
        let level = self.level(conn, scope, parent_id).await?;
        let row = self.row(conn, scope, draft, parent_id, level, None).await?;
        let artifact = store::insert(conn, scope, row).await?.ok_or_else(|| taken(draft.id))?;
        let event = Event::new(&self.clock, "artifact.created", draft.id);
        emit(conn, scope, event.after(&artifact.told())).await?;
        Ok(artifact)
    }

    /// Writes the row of a client's draft: not under the id that a job has promised for its result, which
    /// clients know before it is there.
    async fn add(&self, conn: &mut Conn, scope: &Scope, draft: &Draft) -> Result<Artifact> {
        if draft.is_named && job::is_promised(conn, scope, draft.id.0).await? {
            return Err(taken(draft.id));
        }
        self.insert(conn, scope, draft).await
    }

    /// A new artifact.
    ///
    /// # Errors
    /// As [`Artifacts::insert`]; when a job has promised the id.
    pub async fn create(
        &self,
        caller: &Caller,
        new: NewArtifact,
        content: Option<NewContent>,
    ) -> Result<Artifact> {
        let scope = caller.permit(WRITE)?.clone();
        let draft = Arc::new(self.draft(new, content).await?);
        let (it, new) = (self.clone(), Arc::clone(&draft));
        let insert = self
            .db
            .transaction(move |conn| async move { it.add(conn, &scope, &new).await }.boxed());
        settled(draft, insert.await).await
    }

    /// One artifact and its content.
    ///
    /// # Errors
    /// `artifact_missing`.
    pub async fn get(&self, caller: &Caller, id: ArtifactId) -> Result<Rendered> {
        let scope = caller.permit(READ)?.clone();
        let it = self.clone();
        let get =
            self.db.read(move |conn| async move { it.get_in(conn, &scope, id).await }.boxed());
        get.await?.ok_or_else(|| missing(id))
    }

    /// One artifact and its content, in the transaction of whatever else is read.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn get_in(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ArtifactId,
    ) -> Result<Option<Rendered>> {
        let Some(artifact) = store::find(conn, scope, id).await? else { return Ok(None) };
        let content = Content::open(&self.blobs, conn, scope, &artifact).await?;
        Ok(Some(Rendered { artifact, content }))
    }

    /// One artifact without its content.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn find(&self, caller: &Caller, id: ArtifactId) -> Result<Option<Artifact>> {
        let scope = caller.permit(READ)?;
        Ok(store::find(&mut self.db.conn().await?, scope, id).await?)
    }

    /// Several artifacts with their content, in the given order; unknown ones are left out.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn get_many(&self, caller: &Caller, ids: &[ArtifactId]) -> Result<Vec<Rendered>> {
        let scope = caller.permit(READ)?.clone();
        let (it, ids) = (self.clone(), ids.to_vec());
        let get = self.db.read(move |conn| {
            async move {
                let mut found = Vec::with_capacity(ids.len());
                for id in ids {
                    found.extend(it.get_in(conn, &scope, id).await?);
                }
                Ok(found)
            }
            .boxed()
        });
        get.await
    }

    /// Artifacts without their content.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Artifact>> {
        let scope = caller.permit(READ)?;
        Ok(query.fetch(&mut self.db.conn().await?, scope, Artifact::COLUMNS).await?)
    }

    /// How many there are.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn count(&self, caller: &Caller) -> Result<i64> {
        let scope = caller.permit(READ)?;
        Ok(ListQuery::all(&http::FIELDS).count(&mut self.db.conn().await?, scope).await?)
    }

    /// Replaces an artifact's data; tags and parent stay when nothing is said of them.
    ///
    /// # Errors
    /// `artifact_missing`, `precondition_failed`, and when it would become its own ancestor.
    pub async fn update(
        &self,
        caller: &Caller,
        id: ArtifactId,
        new: NewArtifact,
        conditions: &Conditions,
    ) -> Result<Artifact> {
        let scope = caller.permit(WRITE)?.clone();
        let draft = Arc::new(self.draft(NewArtifact { id: Some(id), ..new }, None).await?);
        let (it, new, conditions) = (self.clone(), Arc::clone(&draft), conditions.clone());
        let replace = self.db.transaction(move |conn| {
            async move { it.replace(conn, &scope, &new, &conditions).await }.boxed()
        });
        settled(draft, replace.await).await
    }

    async fn replace(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        draft: &Draft,
        conditions: &Conditions,
    ) -> Result<Artifact> {
        let id = draft.id;
        if draft.parent.is_some() {
            // Two moves at once could close a circle that neither sees.
            conn.exclusive(&format!("artifacts {} {}", scope.tenant(), scope.service())).await?;
        }
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        let parent_id = draft.parent.unwrap_or(old.parent_id);
        let mut level = old.level;
        if draft.parent.is_some() {
            level = self.move_below(conn, scope, &old, parent_id).await?;
        }
        if let Some(hash) = &old.content_hash {
            self.blobs.release(conn, scope, hash).await?;
        }
        let row = self.row(conn, scope, draft, parent_id, level, Some(&old)).await?;
        let artifact = store::update(conn, scope, row).await?;
        let event = Event::new(&self.clock, "artifact.updated", id);
        emit(conn, scope, event.before(&old.told()).after(&artifact.told())).await?;
        Ok(artifact)
    }

    /// Checks a move, takes the descendants along, and gives the new level.
    async fn move_below(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        it: &Artifact,
        parent: Option<ArtifactId>,
    ) -> Result<i64> {
        let id = it.id;
        if parent == Some(id) {
            return Err(circle(format!("Artifact {id} cannot be its own parent")));
        }
        let below = store::subtree(conn, scope, id).await?;
        if parent.is_some_and(|parent| below.iter().any(|it| it.id == parent)) {
            return Err(circle(format!(
                "Artifact {id} cannot be moved beneath one of its own descendants"
            )));
        }
        let level = self.level(conn, scope, parent).await?;
        let deepest = below.iter().map(|it| it.level).max().unwrap_or(it.level);
        model::level_below(Some(deepest - it.level + level - 1))?;
        if level != it.level {
            store::shift_levels(conn, scope, id, level - it.level, self.clock.now()).await?;
        }
        Ok(level)
    }

    async fn level(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        parent: Option<ArtifactId>,
    ) -> Result<i64> {
        let Some(parent) = parent else { return model::level_below(None) };
        let parent = store::lock(conn, scope, parent).await?;
        let parent = parent.ok_or_else(|| constraint("foreign_key"))?;
        model::level_below(Some(parent.level))
    }

    async fn row(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        draft: &Draft,
        parent_id: Option<ArtifactId>,
        level: i64,
        old: Option<&Artifact>,
    ) -> Result<ArtifactRow> {
        let at = draft.parts.content.as_ref().map(|it| it.0);
        let tags = match (&draft.tags, old) {
            (Some(tags), _) => tags.clone(),
            (None, Some(old)) => serde_json::from_str(old.tags.get())?,
            (None, None) => Vec::new(),
        };
        Ok(ArtifactRow {
            id: draft.id,
            parent_id,
            level,
            tags: modelyard_kernel::db::Json(tags),
            data: modelyard_kernel::db::Json(draft.parts.data.0.clone()),
            content: draft.prepared.row(&self.blobs, conn, scope, at).await?,
            now: self.clock.now(),
        })
    }

    /// Removes an artifact; its children become roots.
    ///
    /// # Errors
    /// `artifact_missing`, `precondition_failed`.
    pub async fn delete(
        &self,
        caller: &Caller,
        id: ArtifactId,
        conditions: &Conditions,
    ) -> Result<()> {
        let scope = caller.permit(WRITE)?.clone();
        let (it, conditions) = (self.clone(), conditions.clone());
        let delete = self.db.transaction(move |conn| {
            async move { it.cut_out(conn, &scope, id, &conditions).await }.boxed()
        });
        delete.await
    }

    async fn cut_out(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ArtifactId,
        conditions: &Conditions,
    ) -> Result<()> {
        let old = store::lock(conn, scope, id).await?.ok_or_else(|| missing(id))?;
        conditions.allow_change(&old.etag())?;
        store::orphan_children(conn, scope, id, self.clock.now()).await?;
        self.remove(conn, scope, &old).await
    }

    /// Does several changes; on request all or nothing.
    ///
    /// # Errors
    /// As [`Bulk::apply`].
    pub async fn change(&self, caller: &Caller, bulk: Bulk<NewArtifact>) -> Result<Changed> {
        let scope = caller.permit(WRITE)?.clone();
        let Bulk { atomic, operations } = bulk;
        let mut prepared = Vec::with_capacity(operations.len());
        for operation in operations {
            prepared.push(match operation {
                Ok(operation) => self.prepare(operation).await,
                Err(refused) => Err(refused),
            });
        }
        let drafts: Vec<Option<Arc<Draft>>> = prepared.iter().map(draft_of).collect();
        let it = self.clone();
        let step = Bulk { atomic, operations: prepared }.apply(&self.db, move |conn, operation| {
            let (it, scope) = (it.clone(), scope.clone());
            async move { it.step(conn, &scope, operation).await }.boxed()
        });
        let changed = step.await;
        for (index, draft) in drafts.into_iter().enumerate() {
            if let Some(draft) = draft.and_then(Arc::into_inner) {
                draft.settle(stands(&changed, index)).await;
            }
        }
        changed
    }

    /// Stores content, before any transaction begins.
    async fn prepare(&self, operation: Operation<NewArtifact>) -> Result<Operation<Arc<Draft>>> {
        Ok(match operation {
            Operation::Create(new) => Operation::Create(Arc::new(self.draft(new, None).await?)),
            Operation::Update(id, new) => {
                let new = NewArtifact { id: Some(ArtifactId(id)), ..new };
                Operation::Update(id, Arc::new(self.draft(new, None).await?))
            }
            Operation::Delete(id) => Operation::Delete(id),
        })
    }

    async fn step(&self, conn: &mut Conn, scope: &Scope, operation: Operation<Arc<Draft>>) -> Done {
        let none = Conditions::default();
        match operation {
            Operation::Create(draft) => Applied::created(&self.add(conn, scope, &draft).await?),
            Operation::Update(_, draft) => {
                Applied::updated(&self.replace(conn, scope, &draft, &none).await?)
            }
            Operation::Delete(id) => {
                self.cut_out(conn, scope, ArtifactId(id), &none).await?;
                Ok(Applied::Deleted)
            }
        }
    }

    /// Removes a whole tree, in the transaction of whatever else is removed.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn delete_tree(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        root: ArtifactId,
    ) -> Result<()> {
        for artifact in store::subtree(conn, scope, root).await? {
            self.remove(conn, scope, &artifact).await?;
        }
        Ok(())
    }

    async fn remove(&self, conn: &mut Conn, scope: &Scope, it: &Artifact) -> Result<()> {
        if let Some(hash) = &it.content_hash {
            self.blobs.release(conn, scope, hash).await?;
        }
        store::delete(conn, scope, it.id).await?;
        let event = Event::new(&self.clock, "artifact.deleted", it.id);
        emit(conn, scope, event.before(&it.told())).await?;
        Ok(())
    }

    /// An artifact with its labels.
    ///
    /// # Errors
    /// `artifact_missing`.
    pub async fn expand(&self, caller: &Caller, id: ArtifactId) -> Result<ArtifactNode> {
        let found = self.find(caller, id).await?.ok_or_else(|| unknown(id))?;
        Ok(ArtifactNode::alone(found, &self.hierarchy))
    }

    /// An artifact and everything below it.
    ///
    /// # Errors
    /// `artifact_missing`.
    pub async fn tree(&self, caller: &Caller, id: ArtifactId) -> Result<ArtifactNode> {
        let scope = caller.permit(READ)?;
        let members = store::subtree(&mut self.db.conn().await?, scope, id).await?;
        ArtifactNode::tree(id, members, &self.hierarchy).ok_or_else(|| unknown(id))
    }

    /// The root of the tree that an artifact is in.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn root(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ArtifactId,
    ) -> Result<Option<ArtifactId>> {
        Ok(store::root(conn, scope, id).await?)
    }

    /// An artifact within a transaction, held until it ends.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn hold(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        id: ArtifactId,
    ) -> Result<Option<Artifact>> {
        Ok(store::lock(conn, scope, id).await?)
    }
}

impl Draft {
    /// Its id.
    pub fn id(&self) -> ArtifactId {
        self.id
    }

    /// Tidies up after the transaction that was to write it.
    pub async fn settle(self, committed: bool) {
        self.prepared.settle(committed).await;
    }
}

fn draft_of(operation: &Result<Operation<Arc<Draft>>>) -> Option<Arc<Draft>> {
    match operation {
        Ok(Operation::Create(draft) | Operation::Update(_, draft)) => Some(Arc::clone(draft)),
        Ok(Operation::Delete(_)) | Err(_) => None,
    }
}

/// Whether what an operation wrote is there, as far as anybody knows.
fn stands(changed: &Result<Changed>, index: usize) -> bool {
    match changed {
        Ok(it) => match it.results.get(index) {
            Some(Ok(Applied::NotTried)) | None => false,
            Some(Ok(_)) => true,
            Some(Err(failure)) => failure.is_uncertain(),
        },
        Err(failure) => failure.is_uncertain(),
    }
}

/// Tidies up after the transaction that was to write a draft, and passes on what came of it.
async fn settled<T>(draft: Arc<Draft>, written: Result<T>) -> Result<T> {
    if let Some(draft) = Arc::into_inner(draft) {
        draft.settle(written.as_ref().err().is_none_or(Failure::is_uncertain)).await;
    }
    written
}

fn missing(id: ArtifactId) -> Failure {
    Failure::missing("artifact_missing", format!("Entity with id {id} not found"))
}

/// What the tree's operations say, where the collection's say [`missing`].
fn unknown(id: ArtifactId) -> Failure {
    Failure::missing("artifact_missing", format!("Artifact with id {id} not found"))
}

fn taken(id: ArtifactId) -> Failure {
    Failure::conflict("artifact_taken", format!("Entity with id {id} already exists"))
}

fn constraint(name: &'static str) -> Failure {
    Failure::conflict("data_conflict", "Entity violates a database constraint")
        .with_constraint(name)
}

fn circle(detail: String) -> Failure {
    Failure::bad_request("artifact_circle", detail)
}
