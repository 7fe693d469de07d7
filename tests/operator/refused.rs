//! Starts that are refused: they say what is wrong and leave nothing behind that is in anybody's way.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use carrel_tests::variables::unheard;
use carrel_tests::{machine, wait};
use tempfile::TempDir;

use crate::{Said, said};

/// A folder for a configuration and, not yet made, for data.
struct Desk(TempDir);

impl Desk {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(TempDir::with_prefix("carrel-refused-")?))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A start with this configuration, on free ports unless the words say others.
    fn command(&self, config: &str, words: &[&str]) -> anyhow::Result<Command> {
        let file = self.0.path().join("config.yaml");
        fs::write(&file, format!("fleet: {{isolation: process}}\n{config}"))?;
        let mut command = Command::new(carrel_tests::carrel()?);
        unheard(&mut command)
            .args(["up", "--data-dir"])
            .arg(self.data());
        for address in ["--listen", "--model-listen"] {
            if !words.contains(&address) {
                command.args([address, "127.0.0.1:0"]);
            }
        }
        command
            .args(words)
            .args(["-o", "json", "--config"])
            .arg(file);
        Ok(command)
    }

    fn start(&self, config: &str, words: &[&str]) -> anyhow::Result<Said> {
        said(wait::output(&mut self.command(config, words)?)?)
    }

    /// What lies in the data folder.
    fn files(&self) -> anyhow::Result<Vec<String>> {
        if !self.data().exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(self.data())?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        machine::remove_run_dir(&self.data());
    }
}

#[test]
fn a_start_that_is_refused_makes_nothing() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let learner = "---\napiVersion: carrel.dev/v1alpha1\nkind: Learner\nmetadata: {name: ada}\n\
        spec: {className: none-such}\n";
    let provider = "providers: [{name: p, dialect: Anthropic, baseUrl: 'http://x', keys: ['env:NO_SUCH_KEY']}]";
    let cases: [(&str, &[&str], i32, &str); 9] = [
        (
            "limits:\n  messagesPerMinute: many\n",
            &[],
            2,
            "config.yaml:3: limits.messagesPerMinute: must be a whole number from 0 to 4294967295, not the text \"many\"",
        ),
        (
            "limit: {}\n",
            &[],
            2,
            "'limit' is not known; did you mean 'limits'?",
        ),
        (learner, &[], 2, "'none-such', which does not exist"),
        (provider, &[], 2, "NO_SUCH_KEY is not set"),
        (
            "routes: {default: [{model: nope/one}]}",
            &[],
            2,
            "there is no provider 'nope'",
        ),
        (
            "keys: {kekFile: /no/such/kek}",
            &[],
            2,
            "keys.kekFile: there is no folder /no/such",
        ),
        (
            "objects: {url: 's3://b', caFile: no.pem}",
            &[],
            1,
            "objects.caFile: reading",
        ),
        ("", &["--listen", &taken], 1, "cannot be listened on"),
        ("", &["--model-listen", "7071"], 2, "must be IP:PORT"),
    ];
    for (config, words, status, what) in cases {
        let desk = Desk::new()?;
        let said = desk.start(config, words)?;
        assert_eq!(said.status, Some(status), "{config}: {}", said.stderr);
        assert!(said.stderr.contains(what), "{}", said.stderr);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        assert!(!desk.data().exists(), "{config}: {:?}", desk.files()?);
        assert!(!machine::run_dir(&desk.data()).exists(), "{config}");
    }
    Ok(())
}

#[test]
fn a_file_of_keys_that_does_not_serve_is_named_with_its_line_and_nothing_is_added()
-> anyhow::Result<()> {
    for (name, text, what) in [
        (
            "kek",
            "rubbish\n",
            "kek:1: a key-encryption key must be 32 bytes in base64",
        ),
        ("kek", "\n", "kek: there is no key-encryption key in it"),
        (
            "signing.key",
            "rubbish\n",
            "signing.key: the key must be an Ed25519 private key in PEM",
        ),
        ("admin.token", "", "admin.token is empty: remove it"),
    ] {
        let desk = Desk::new()?;
        fs::create_dir(desk.data())?;
        let path = desk.data().join(name);
        private(&path, text)?;
        let said = desk.start("", &[])?;
        assert_eq!(said.status, Some(2), "{}", said.stderr);
        let what = format!("{}/{what}", desk.data().display());
        assert!(said.stderr.contains(&what), "{}", said.stderr);
        assert_eq!(desk.files()?, [name]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        let said = desk.start("", &[])?;
        assert!(said.stderr.contains("chmod 600"), "{}", said.stderr);
    }
    Ok(())
}

fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[test]
fn what_a_start_made_before_it_failed_is_said_and_serves_the_next() -> anyhow::Result<()> {
    let desk = Desk::new()?;
    // No folder can be made there; that is known when it is tried.
    let said = desk.start("objects: {url: 'file:/proc/objects'}", &[])?;
    assert_eq!(said.status, Some(1), "{}", said.stderr);
    let stays = format!(
        "{} was made before the start failed, and stays",
        desk.data().display()
    );
    assert!(said.stderr.contains(&stays), "{}", said.stderr);
    assert!(!machine::run_dir(&desk.data()).exists());
    let token = fs::read(desk.data().join("admin.token"))?;

    let mut next = desk
        .command("", &[])?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = next.stdout.take().context("its output is ours")?;
    let ready = wait::lines(stdout, |line| line.contains("gateway_url"));
    next.kill()?;
    next.wait()?;
    ready?;
    assert_eq!(fs::read(desk.data().join("admin.token"))?, token);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_of_keys_is_asked_for_and_no_other_takes_its_place() -> anyhow::Result<()> {
    let setup = carrel_tests::Setup {
        documents: vec![
            carrel_tests::agent::command("counting", &serde_json::json!({})),
            carrel_tests::agent::learner("ada", "counting"),
        ],
        settings: Some(serde_json::json!({"fleet": {"isolation": "process"}})),
        keeps_log: true,
        ..carrel_tests::Setup::default()
    };
    let mut up = carrel_tests::Up::start("a lost key", setup)
        .await?
        .context("processes can always be had")?;
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    assert!(up.terminate().await?.success());
    let kek = up.data().join("kek");
    let kept = kek.with_extension("kept");
    fs::rename(&kek, &kept)?;
    assert!(up.again().await.is_err());
    assert!(!kek.exists());
    let log = up.log()?;
    let what = format!("keys.kekFile: {} is not there", kek.display());
    assert!(log.contains(&what), "{log}");
    fs::rename(&kept, &kek)?;
    up.again().await?;
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    Ok(())
}
