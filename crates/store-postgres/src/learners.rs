//! Learners, the wish for each and what is seen of each.

use std::collections::BTreeSet;

use carrel_core::class::ClassSpec;
use carrel_core::event::EventBody;
use carrel_core::learner::{DesiredState, Status};
use carrel_core::{ClassName, Epoch, LearnerId, RepositoryId};
use carrel_store::adapter::census;
use carrel_store::adapter::column::{from_json, int, nanos, parsed, parsed_option, to_json};
use carrel_store::adapter::period;
use carrel_store::learners::{Alias, Counted, Created, Learner, NewLearner};
use carrel_store::{Learners, Result};
use jiff::Timestamp;
use uuid::Uuid;

use crate::PostgresStore;
use crate::fault::{Inner, during};
use crate::learner_row::{LearnerRow, select_learner};
use crate::write::Write;

/// A day before all days: nothing was charged on it.
const NO_DAY: i64 = i64::MIN;

pub(crate) const LEARNER: &str = select_learner!("WHERE l.id = $2");
pub(crate) const LEARNERS_AFTER: &str = select_learner!("WHERE l.id > $2 ORDER BY l.id LIMIT $3");
pub(crate) const STIRRING: &str = select_learner!(
    "WHERE status_state <> 'Asleep' OR desired_state = 'Running' OR closing \
     OR wake_after_epoch >= status_epoch ORDER BY l.id"
);
pub(crate) const BY_ALIAS: &str =
    "SELECT learner FROM alias WHERE channel = $1 AND external_id = $2";

/// By class and state, with how many of them are ready and have a turn that runs. Walks an index of all learners: for those
/// who look now and then, not for every message.
pub(crate) const CENSUS: &str = "SELECT class, status_state, count(*), \
    count(*) FILTER (WHERE status_state = 'Ready' AND EXISTS \
    (SELECT FROM turn t WHERE t.learner = l.id AND t.state = 'running')) \
    FROM learner l GROUP BY class, status_state";
pub(crate) const OPEN: &str = "SELECT true FROM learner WHERE id = $1 AND NOT closing";
/// Writes a class; those of it who wait to be tried again, looked for among those that stir: a class may have thousands that
/// sleep.
pub(crate) const PUT_CLASS: &str = "WITH c AS (INSERT INTO class (name, spec) VALUES ($1, $2::json) \
        ON CONFLICT (name) DO UPDATE SET spec = excluded.spec) \
    SELECT id FROM learner WHERE (status_state <> 'Asleep' OR desired_state = 'Running' OR closing \
        OR wake_after_epoch >= status_epoch) \
    AND class = $1 AND status ->> 'pod' IS NULL AND status ->> 'retryTime' IS NOT NULL";

/// Appends the event only when the state differs. The row's own newest version decides, so that no lock is needed to compare;
/// the lock comes first for the order of events.
pub(crate) const SEE: &str = "WITH locked AS (SELECT lock_learner($1)), \
    l AS (UPDATE learner l SET status_epoch = $4, status_state = $5, status = $6::json, \
        event_version = l.event_version + ($3 <> $5)::int FROM locked \
        WHERE l.id = $1 AND l.status_epoch = $2 AND l.status_state = $3 \
        RETURNING l.id, l.event_version), \
    e AS (INSERT INTO event (learner, version, time, type, body) \
        SELECT id, event_version, $7, 'state_changed', $8::json FROM l WHERE $3 <> $5) \
    SELECT id FROM l";

/// What the aliases of a learner came to.
enum Aliased {
    Set,
    Taken(Alias),
}

impl PostgresStore {
    async fn make(&self, new: &NewLearner, now: Timestamp) -> Inner<Created> {
        let mut write = self.write(&new.id).await?;
        let there: Option<LearnerRow> = sqlx::query_as(LEARNER)
            .bind(NO_DAY)
            .bind(new.id.as_str())
            .fetch_optional(write.connection())
            .await?;
        if let Some(there) = there {
            return compare(&there, new);
        }
        sqlx::query(
            "WITH before AS (SELECT coalesce(max(fence), 0) AS fence FROM tombstone WHERE id = $1) \
             INSERT INTO learner (id, class, created_time, repository, fence, status_epoch, status) \
             SELECT $1, $2, $3, $4, fence, fence, $5::json FROM before",
        )
        .bind(new.id.as_str())
        .bind(new.class.as_str())
        .bind(nanos(now))
        .bind(Uuid::new_v4())
        .bind(to_json(&Status::default())?)
        .execute(write.connection())
        .await?;
        if let Aliased::Taken(alias) = set_aliases(&mut write, &new.id, &new.aliases).await? {
            return Ok(Created::AliasTaken(alias));
        }
        let created = EventBody::LearnerCreated {
            class: new.class.clone(),
        };
        write.append(&new.id, &created, now).await?;
        write.commit().await?;
        Ok(Created::New)
    }

    async fn change(
        &self,
        id: &LearnerId,
        class: Option<&ClassName>,
        aliases: Option<&[Alias]>,
    ) -> Inner<Option<Created>> {
        let mut write = self.write(id).await?;
        let closing: Option<bool> = sqlx::query_scalar(
            "UPDATE learner SET class = coalesce($1, class) WHERE id = $2 RETURNING closing",
        )
        .bind(class.map(ClassName::as_str))
        .bind(id.as_str())
        .fetch_optional(write.connection())
        .await?;
        match closing {
            None => return Ok(None),
            Some(true) => return Ok(Some(Created::StillErasing)),
            Some(false) => {}
        }
        if let Some(aliases) = aliases
            && let Aliased::Taken(alias) = set_aliases(&mut write, id, aliases).await?
        {
            return Ok(Some(Created::AliasTaken(alias)));
        }
        write.hint(id);
        write.commit().await?;
        Ok(Some(Created::Same))
    }

    async fn see(
        &self,
        id: &LearnerId,
        expected: &Status,
        status: &Status,
        now: Timestamp,
    ) -> Inner<bool> {
        let changed = EventBody::StateChanged {
            state: status.state,
            epoch: status.epoch,
        };
        let written = sqlx::query(SEE)
            .bind(id.as_str())
            .bind(int(expected.epoch.0))
            .bind(<&str>::from(expected.state))
            .bind(int(status.epoch.0))
            .bind(<&str>::from(status.state))
            .bind(to_json(status)?)
            .bind(nanos(now))
            .bind(to_json(&changed)?)
            .execute(&self.turns)
            .await?;
        Ok(self.hint_if(written.rows_affected() > 0, id))
    }

    /// One statement that changes at most one row; whether it did.
    async fn wish(&self, sql: &'static str, wish: impl Wish, id: &LearnerId) -> Inner<bool> {
        let done = wish
            .bind(sqlx::query(sql))
            .bind(id.as_str())
            .execute(&self.turns)
            .await?;
        Ok(self.hint_if(done.rows_affected() > 0, id))
    }

    fn hint_if(&self, changed: bool, id: &LearnerId) -> bool {
        if changed {
            self.hints.give(id);
        }
        changed
    }
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A wish as the first argument of a statement.
trait Wish {
    fn bind(self, query: Query) -> Query;
}

impl Wish for DesiredState {
    fn bind(self, query: Query) -> Query {
        query.bind(<&'static str>::from(self))
    }
}

impl Wish for Epoch {
    fn bind(self, query: Query) -> Query {
        query.bind(int(self.0))
    }
}

fn compare(there: &LearnerRow, new: &NewLearner) -> Inner<Created> {
    let aliases: BTreeSet<Alias> = there.aliases()?.into_iter().collect();
    let wanted: BTreeSet<Alias> = new.aliases.iter().cloned().collect();
    Ok(if there.closing() {
        Created::StillErasing
    } else if there.class() == new.class.as_str() && aliases == wanted {
        Created::Same
    } else {
        Created::Differs
    })
}

async fn set_aliases(write: &mut Write, id: &LearnerId, aliases: &[Alias]) -> Inner<Aliased> {
    // Two that exchange aliases would wait for each other.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('carrel aliases', 1))")
        .execute(write.connection())
        .await?;
    sqlx::query("DELETE FROM alias WHERE learner = $1")
        .bind(id.as_str())
        .execute(write.connection())
        .await?;
    for alias in aliases.iter().collect::<BTreeSet<_>>() {
        let added = sqlx::query(
            "INSERT INTO alias (channel, external_id, learner) VALUES ($1, $2, $3) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&alias.channel)
        .bind(&alias.external_id)
        .bind(id.as_str())
        .execute(write.connection())
        .await?;
        if added.rows_affected() == 0 {
            return Ok(Aliased::Taken(alias.clone()));
        }
    }
    Ok(Aliased::Set)
}

fn learners(rows: Vec<LearnerRow>) -> Inner<Vec<Learner>> {
    rows.into_iter().map(LearnerRow::learner).collect()
}

#[async_trait::async_trait]
impl Learners for PostgresStore {
    async fn create_learner(&self, new: &NewLearner, now: Timestamp) -> Result<Created> {
        self.make(new, now)
            .await
            .map_err(during("making a learner"))
    }

    async fn learner(&self, id: &LearnerId, now: Timestamp) -> Result<Option<Learner>> {
        let read = async {
            let asked = (id.clone(), period::day(now));
            let row = self.rows.ask(id.clone(), asked).await?;
            row.map(LearnerRow::learner).transpose()
        };
        read.await.map_err(during("reading a learner"))
    }

    async fn is_open(&self, id: &LearnerId) -> Result<bool> {
        let read = async {
            let found: Option<bool> = sqlx::query_scalar(OPEN)
                .bind(id.as_str())
                .fetch_optional(&self.admission)
                .await?;
            Inner::Ok(found.is_some())
        };
        read.await.map_err(during("looking for a learner"))
    }

    async fn learners(
        &self,
        after: Option<&LearnerId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Learner>> {
        let read = async {
            let rows = sqlx::query_as(LEARNERS_AFTER)
                .bind(period::day(now))
                .bind(after.map_or("", LearnerId::as_str))
                .bind(i64::from(limit))
                .fetch_all(&self.reports)
                .await?;
            learners(rows)
        };
        read.await.map_err(during("listing learners"))
    }

    async fn learner_by_alias(&self, alias: &Alias) -> Result<Option<LearnerId>> {
        let read = async {
            let id: Option<String> = sqlx::query_scalar(BY_ALIAS)
                .bind(&alias.channel)
                .bind(&alias.external_id)
                .fetch_optional(&self.admission)
                .await?;
            Inner::Ok(parsed_option(id.as_deref())?)
        };
        read.await.map_err(during("finding a learner by an alias"))
    }

    async fn change_learner(
        &self,
        id: &LearnerId,
        class: Option<&ClassName>,
        aliases: Option<&[Alias]>,
    ) -> Result<Option<Created>> {
        self.change(id, class, aliases)
            .await
            .map_err(during("changing a learner"))
    }

    async fn set_desired_state(&self, id: &LearnerId, state: DesiredState) -> Result<bool> {
        const SET: &str = "UPDATE learner SET desired_state = $1 WHERE id = $2 AND NOT closing";
        self.wish(SET, state, id)
            .await
            .map_err(during("setting the wish for a learner"))
    }

    async fn wake_after(&self, id: &LearnerId, epoch: Epoch) -> Result<bool> {
        const RAISE: &str = "UPDATE learner SET wake_after_epoch = $1 WHERE id = $2 \
            AND NOT closing AND coalesce(wake_after_epoch, -1) < $1";
        self.wish(RAISE, epoch, id)
            .await
            .map_err(during("wanting a learner awake"))
    }

    async fn put_status(
        &self,
        id: &LearnerId,
        expected: &Status,
        status: &Status,
        now: Timestamp,
    ) -> Result<bool> {
        self.see(id, expected, status, now)
            .await
            .map_err(during("writing what is seen of a learner"))
    }

    async fn stirring(&self) -> Result<Vec<Learner>> {
        let read = async {
            let rows = sqlx::query_as(STIRRING)
                .bind(NO_DAY)
                .fetch_all(&self.turns)
                .await?;
            learners(rows)
        };
        read.await
            .map_err(during("listing learners that are not asleep"))
    }

    async fn census(&self) -> Result<Vec<Counted>> {
        let read = async {
            let rows: Vec<census::Row> = sqlx::query_as(CENSUS).fetch_all(&self.reports).await?;
            Inner::Ok(census::census(&rows)?)
        };
        read.await.map_err(during("counting learners"))
    }

    async fn close_learner(&self, id: &LearnerId, now: Timestamp) -> Result<bool> {
        self.close_rows(id, now)
            .await
            .map_err(during("closing a learner"))
    }

    async fn erase_learner(&self, id: &LearnerId, now: Timestamp) -> Result<()> {
        self.erase_rows(id, now)
            .await
            .map_err(during("erasing a learner"))
    }

    async fn erased_repositories(&self, before: Timestamp) -> Result<Vec<RepositoryId>> {
        self.unswept(before)
            .await
            .map_err(during("listing erased repositories"))
    }

    async fn swept_repository(&self, repository: RepositoryId) -> Result<()> {
        self.mark_swept(repository)
            .await
            .map_err(during("keeping it that a repository was swept"))
    }

    async fn put_class(&self, name: &ClassName, spec: &ClassSpec) -> Result<()> {
        let write = async {
            let waiting: Vec<String> = sqlx::query_scalar(PUT_CLASS)
                .bind(name.as_str())
                .bind(to_json(spec)?)
                .fetch_all(&self.turns)
                .await?;
            for learner in waiting {
                self.hints.give(&parsed(&learner)?);
            }
            Inner::Ok(())
        };
        write.await.map_err(during("writing a class"))
    }

    async fn class(&self, name: &ClassName) -> Result<Option<ClassSpec>> {
        let read = async {
            let spec: Option<String> =
                sqlx::query_scalar("SELECT spec::text FROM class WHERE name = $1")
                    .bind(name.as_str())
                    .fetch_optional(&self.admission)
                    .await?;
            Inner::Ok(spec.as_deref().map(from_json).transpose()?)
        };
        read.await.map_err(during("reading a class"))
    }

    async fn classes(&self) -> Result<Vec<(ClassName, ClassSpec)>> {
        let read = async {
            let rows: Vec<(String, String)> =
                sqlx::query_as("SELECT name, spec::text FROM class ORDER BY name")
                    .fetch_all(&self.reports)
                    .await?;
            rows.iter()
                .map(|(name, spec)| Ok((parsed(name)?, from_json(spec)?)))
                .collect::<Inner<Vec<_>>>()
        };
        read.await.map_err(during("listing classes"))
    }
}
