//! Flipped bits in what the store says of a learner's workspace: head, generations, wrapped key. None may lead to another
//! workspace, to an empty one, to a fall-back, or to the removal of a snapshot: it is refused, or changes nothing.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use carrel_protocol::vault::{DataKey, Head};
use carrel_sidecar::snapshot::Snapshots;
use carrel_store_postgres::{Options, PostgresStore, migrate};
use carrel_testkit::postgres::{SUPERUSER, Server};
use carrel_vault::Objects;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use support::{Desk, Pod, tree};

/// Bits flipped in each store.
const FLIPS: usize = 156;

/// A value in a row, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(i64),
    Truth(bool),
    Bytes(Vec<u8>),
}

/// How a column's values are stored.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
    Truth,
    Bytes,
}

/// A column of one row. `of` says which row of the table.
#[derive(Debug, Clone, Copy)]
struct Cell {
    table: &'static str,
    column: &'static str,
    of: &'static str,
    kind: Kind,
}

const fn cell(table: &'static str, column: &'static str, of: &'static str, kind: Kind) -> Cell {
    Cell {
        table,
        column,
        of,
        kind,
    }
}

/// All that leads from a learner to a workspace: the head, its generation, an older one, and the wrapped key.
const CELLS: [Cell; 13] = [
    cell("learner", "head_generation", "id = 'ada'", Kind::Number),
    cell("learner", "head_snapshot", "id = 'ada'", Kind::Text),
    cell("learner", "repository", "id = 'ada'", Kind::Bytes),
    cell("learner", "fence", "id = 'ada'", Kind::Number),
    cell("generation", "generation", "generation = 3", Kind::Number),
    cell("generation", "snapshot", "generation = 3", Kind::Text),
    cell("generation", "expired", "generation = 3", Kind::Truth),
    cell("generation", "parent", "generation = 3", Kind::Number),
    cell("generation", "generation", "generation = 1", Kind::Number),
    cell("data_key", "learner", "true", Kind::Text),
    cell("data_key", "algorithm", "true", Kind::Text),
    cell("data_key", "key_id", "true", Kind::Text),
    cell("data_key", "wrapped", "true", Kind::Bytes),
];

impl Value {
    fn flipped(&self, random: &mut StdRng) -> Self {
        match self {
            Self::Number(number) => Self::Number(number ^ (1 << random.random_range(0..63))),
            Self::Truth(truth) => Self::Truth(!truth),
            Self::Bytes(bytes) => {
                let mut bytes = bytes.clone();
                let place = random.random_range(0..bytes.len());
                bytes[place] ^= 1 << random.random_range(0..8);
                Self::Bytes(bytes)
            }
            // The eighth bit of a character would make the text one that a database refuses to give.
            Self::Text(text) => loop {
                let mut bytes = text.clone().into_bytes();
                let place = random.random_range(0..bytes.len());
                bytes[place] ^= 1 << random.random_range(0..7);
                if bytes[place] != 0 {
                    break Self::Text(String::from_utf8(bytes).expect("ASCII"));
                }
            },
        }
    }
}

/// The rows of a store, read and written behind its back.
enum Rows {
    Sqlite(SqliteConnection),
    Postgres(&'static Server, String),
}

impl Rows {
    async fn read(&mut self, cell: Cell) -> Value {
        let Cell {
            table, column, of, ..
        } = cell;
        let shown = match (&*self, cell.kind) {
            (Self::Sqlite(_), Kind::Bytes) => format!("lower(hex({column}))"),
            (Self::Sqlite(_), _) => format!("CAST({column} AS TEXT)"),
            (Self::Postgres(..), Kind::Bytes) if column == "repository" => {
                format!("replace({column}::text, '-', '')")
            }
            (Self::Postgres(..), Kind::Bytes) => format!("encode({column}, 'hex')"),
            (Self::Postgres(..), Kind::Truth) => format!("{column}::int::text"),
            (Self::Postgres(..), _) => format!("{column}::text"),
        };
        let text = self
            .ask(&format!("SELECT {shown} FROM {table} WHERE {of}"))
            .await;
        match cell.kind {
            Kind::Text => Value::Text(text),
            Kind::Number => Value::Number(text.parse().expect("a number")),
            Kind::Truth => Value::Truth(text == "1"),
            Kind::Bytes => Value::Bytes(hex::decode(text).expect("bytes")),
        }
    }

    /// Replaces a value wherever it stands in the column.
    async fn replace(&mut self, cell: Cell, old: &Value, new: &Value) {
        let Cell { table, column, .. } = cell;
        let (old, new) = (self.literal(cell, old), self.literal(cell, new));
        let which = if matches!(cell.kind, Kind::Truth) {
            cell.of
        } else {
            "true"
        };
        let statement =
            format!("UPDATE {table} SET {column} = {new} WHERE {column} = {old} AND {which}");
        match self {
            Self::Sqlite(connection) => {
                sqlx::raw_sql(AssertSqlSafe(statement))
                    .execute(connection)
                    .await
                    .expect("written");
            }
            Self::Postgres(server, database) => {
                // Neither triggers nor keys of other tables: a bit that falls over asks nobody.
                let behind = format!("SET session_replication_role = replica; {statement}");
                server.psql(database, &behind);
            }
        }
    }

    fn literal(&self, cell: Cell, value: &Value) -> String {
        match value {
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Number(number) => number.to_string(),
            Value::Truth(truth) => match self {
                Self::Sqlite(_) => u8::from(*truth).to_string(),
                Self::Postgres(..) => truth.to_string(),
            },
            Value::Bytes(bytes) => match self {
                Self::Sqlite(_) => format!("X'{}'", hex::encode(bytes)),
                Self::Postgres(..) if cell.column == "repository" => {
                    format!("'{}'::uuid", hex::encode(bytes))
                }
                Self::Postgres(..) => format!("'\\x{}'::bytea", hex::encode(bytes)),
            },
        }
    }

    async fn ask(&mut self, statement: &str) -> String {
        match self {
            Self::Sqlite(connection) => {
                let asked = sqlx::query_scalar(AssertSqlSafe(statement.to_owned()));
                asked.fetch_one(connection).await.expect("read")
            }
            Self::Postgres(server, database) => {
                server.psql(database, statement).trim_end().to_owned()
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_a_row_leads_nowhere() {
    let desk = Desk::new().await;
    let file = format!("sqlite://{}", desk.folder.path().join("store.db").display());
    let mut connection = SqliteConnection::connect(&file)
        .await
        .expect("a connection");
    let behind = "PRAGMA foreign_keys = OFF; DROP TRIGGER fence_never_falls";
    sqlx::raw_sql(behind)
        .execute(&mut connection)
        .await
        .expect("done");
    flip_rows(&desk, Rows::Sqlite(connection)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_postgresql_a_flipped_bit_of_a_row_leads_nowhere() {
    let Some(server) = Server::shared(&["fsync=off"]) else {
        return;
    };
    let database = server.database("template1");
    let options = Options::new(&server.url(SUPERUSER, &database));
    migrate(&options).await.expect("migrated");
    let store = PostgresStore::open(&options).await.expect("a store");
    let folder = tempfile::tempdir().expect("a folder");
    let objects = Objects::local(folder.path().join("objects")).expect("objects");
    let desk = Desk::on_store(folder, objects, Arc::new(store));
    flip_rows(&desk, Rows::Postgres(server, database)).await;
}

async fn flip_rows(desk: &Desk, mut rows: Rows) {
    let ada = desk.learner("ada").await;
    let workspace = tempfile::tempdir().expect("a folder");
    let mut pod = desk.pod(&ada, 1).await;
    for turn in 1_u8..=3 {
        let content = vec![turn; 30_000];
        fs::write(workspace.path().join(format!("turn-{turn}")), content).expect("written");
        pod.save(workspace.path()).await;
    }
    let expected = tree::tree(workspace.path());
    let objects = tree::tree(&desk.repository(&pod.head));
    let head = pod.head.clone();
    let mut random = StdRng::seed_from_u64(13);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..FLIPS {
        let cell = CELLS[round % CELLS.len()];
        let right = rows.read(cell).await;
        // A number that another row has already could not be written.
        let is_taken =
            |value: &Value| cell.column == "generation" && matches!(value, Value::Number(1..=3));
        let mut wrong = right.flipped(&mut random);
        while is_taken(&wrong) {
            wrong = right.flipped(&mut random);
        }
        rows.replace(cell, &right, &wrong).await;
        let epoch = 2 + round as u64;
        let outcome = wake(desk, epoch, &head).await;
        let told = format!("{cell:?}: {right:?} became {wrong:?}");
        match &outcome {
            Woken::Refused => *outcomes.entry("refused").or_default() += 1,
            Woken::Restored(found) => {
                assert!(*found == expected, "silently wrong: {told}");
                *outcomes.entry("right all the same").or_default() += 1;
            }
            Woken::Lost(what) => unreachable!("{what}: {told}"),
        }
        // Whoever looks after the repository removes nothing by it.
        let _: Result<_, _> = desk.vault.maintain(&ada).await;
        rows.replace(cell, &wrong, &right).await;
        assert!(
            tree::tree(&desk.repository(&head)) == objects,
            "objects went: {told}"
        );
    }
    assert!(outcomes["refused"] > FLIPS / 2, "{outcomes:?}");
    assert!(outcomes["right all the same"] > 0, "{outcomes:?}");
    let whole = wake(desk, 2 + FLIPS as u64, &head).await;
    assert!(matches!(whole, Woken::Restored(found) if found == expected));
}

/// What became of an incarnation.
enum Woken {
    Refused,
    Restored(BTreeMap<PathBuf, String>),
    /// It would have gone on without what the learner has.
    Lost(&'static str),
}

/// The next incarnation's way to its workspace.
async fn wake(desk: &Desk, epoch: u64, right: &Head) -> Woken {
    let ada = "ada".parse().expect("a label");
    let mut pod = Pod {
        desk,
        learner: ada,
        epoch,
        head: right.clone(),
        key: None,
    };
    let (head, key) = (
        pod.get::<Head>("head").await,
        pod.get::<DataKey>("key").await,
    );
    let (Ok(head), Ok(key)) = (head, key) else {
        return Woken::Refused;
    };
    let Some(snapshot) = head.snapshot_id.clone() else {
        return Woken::Lost("an empty workspace");
    };
    (pod.head, pod.key) = (head, Some(key));
    let fresh = tempfile::tempdir().expect("a folder");
    let snapshots: Snapshots = pod.snapshots();
    match snapshots.restore(&snapshot, fresh.path()).await {
        Ok(_) => Woken::Restored(tree::tree(fresh.path())),
        Err(_) => match pod.report_damage().await {
            Ok(now) if now != *right => Woken::Lost("a fall-back"),
            Ok(_) | Err(_) => Woken::Refused,
        },
    }
}
