//! Disks on which there is no room for a while.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use carrel_testkit::postgres::Server;
use carrel_tests::{eventually, machine};

/// The database takes it back by then, wherever it is in a restart.
const ROOM_WITHIN: Duration = Duration::from_secs(30);
/// What is freed meanwhile is taken so soon.
const TAKEN_AGAIN: Duration = Duration::from_millis(100);
/// What pods have between them, besides executables.
const ROOM_BYTES: u64 = 96 << 20;

/// The database's disk. That it is full is said by a trigger on each table, in the server's own words and with its own code.
pub(crate) struct DatabaseDisk {
    server: &'static Server,
    database: String,
}

/// A sequence counts what is refused: all else is rolled back.
const TRIGGERS: &str = "
CREATE SCHEMA chaos;
CREATE TABLE chaos.disk (is_full boolean NOT NULL);
INSERT INTO chaos.disk VALUES (false);
CREATE SEQUENCE chaos.refused;
CREATE FUNCTION chaos.room() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF (SELECT is_full FROM chaos.disk) THEN
        PERFORM nextval('chaos.refused');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TRIGGER room BEFORE INSERT OR UPDATE ON %I \
            FOR EACH STATEMENT EXECUTE FUNCTION chaos.room()', name);
    END LOOP;
END $$;";

impl DatabaseDisk {
    pub(crate) fn of(server: &'static Server, database: &str) -> Self {
        server.psql(database, TRIGGERS);
        Self {
            server,
            database: database.to_owned(),
        }
    }

    /// Whether anybody was refused.
    pub(crate) async fn fill_for(&self, lasts: Duration) -> bool {
        const REFUSED: &str =
            "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM chaos.refused";
        let before = self.ask(REFUSED).await;
        if self
            .ask("UPDATE chaos.disk SET is_full = true")
            .await
            .is_none()
        {
            return false;
        }
        tokio::time::sleep(lasts).await;
        let emptied = eventually("the database's disk has room", ROOM_WITHIN, || async {
            Ok(self.ask("UPDATE chaos.disk SET is_full = false").await)
        });
        emptied.await.is_ok() && before != self.ask(REFUSED).await
    }

    /// `None` while the database is away.
    async fn ask(&self, statement: &'static str) -> Option<String> {
        let (server, database) = (self.server, self.database.clone());
        let asked = tokio::task::spawn_blocking(move || server.ask(&database, statement));
        asked.await.ok()?.ok()
    }
}

/// The disk of the machine of the pods: a small file system, mounted for a process that holds it and for whoever joins it.
pub(crate) struct PodsDisk {
    holder: Child,
    folder: PathBuf,
}

impl PodsDisk {
    /// For the fleet of this data folder; only root can mount one.
    pub(crate) fn of(data: &Path, executable: &Path) -> anyhow::Result<Self> {
        let folder = machine::run_dir(data);
        std::fs::create_dir(&folder)?;
        // A fleet that is started again copies the executable while pods of the one before may still run theirs.
        let bytes = 2 * executable.metadata()?.len() + ROOM_BYTES;
        let mount = format!("mount -t tmpfs -o size={bytes},mode=711 tmpfs \"$0\"; echo; exec cat");
        // It ends with its standard input, which this program holds.
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-e", "-c"])
            .arg(mount)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = holder.stdout.take().context("it is piped")?;
        let mounted = BufReader::new(said).read_line(&mut String::new())?;
        ensure!(mounted > 0, "{} could not be mounted", folder.display());
        Ok(Self { holder, folder })
    }

    /// What a process is started by that is to have this disk.
    pub(crate) fn joins(&self) -> Vec<String> {
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        vec!["nsenter".to_owned(), mounts, "--".to_owned()]
    }

    /// Whether it was full.
    pub(crate) async fn fill_for(&self, lasts: Duration) -> bool {
        let seen = Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root");
        let folder = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        let file = seen
            .join(folder)
            .join(format!("filler-{}", rand::random::<u32>()));
        let filling = tokio::task::spawn_blocking(move || {
            let until = Instant::now() + lasts;
            let mut filler = File::create(&file)?;
            let mut was_full = false;
            while Instant::now() < until {
                was_full |= fill(&mut filler);
                std::thread::sleep(TAKEN_AGAIN);
            }
            std::fs::remove_file(&file)?;
            std::io::Result::Ok(was_full)
        });
        matches!(filling.await, Ok(Ok(true)))
    }
}

impl Drop for PodsDisk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Writes until there is no room.
fn fill(filler: &mut File) -> bool {
    let piece = vec![0; 1 << 16];
    loop {
        match filler.write_all(&piece) {
            Ok(()) => {}
            Err(error) => return error.kind() == ErrorKind::StorageFull,
        }
    }
}
