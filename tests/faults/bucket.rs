//! Snapshots in a bucket: everything of a learner but rows lies there, and only there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carrel_testkit::certificates::Authority;
use carrel_testkit::s3::sts::Sts;
use carrel_testkit::s3::{self, BUCKET, S3Server, SECRET_ACCESS_KEY};
use carrel_tests::{Setup, Up, eventually, skip};
use serde_json::json;
use tempfile::TempDir;

use crate::ada;

const MARK: &str = "carrel-storage";
/// Longer than erasing takes.
const WITHIN: Duration = Duration::from_secs(30);

/// A server of S3's protocol, and a configuration that names a prefix of its bucket.
struct Cloud {
    server: S3Server,
    folder: TempDir,
}

impl Cloud {
    fn start(test: &str) -> anyhow::Result<Option<Self>> {
        Self::start_as(test, &s3::Setup::default())
    }

    fn start_as(test: &str, setup: &s3::Setup) -> anyhow::Result<Option<Self>> {
        let folder = TempDir::with_prefix("carrel-tests-s3-")?;
        let server = match S3Server::start_as(folder.path(), setup) {
            Ok(server) => server,
            Err(reason) => {
                skip(test, "s3", &reason)?;
                return Ok(None);
            }
        };
        fs::write(folder.path().join("keys"), S3Server::credentials())?;
        Ok(Some(Self { server, folder }))
    }

    fn setup(&self, prefix: &str) -> Setup {
        let objects = json!({
            "url": format!("s3://{BUCKET}/{prefix}"),
            "endpoint": self.server.endpoint(),
            "region": "us-east-1",
            "pathStyle": true,
            "credentialsFile": self.folder.path().join("keys"),
        });
        Setup {
            documents: ada(&json!({})),
            settings: Some(json!({"objects": objects})),
            keeps_log: true,
            ..Setup::default()
        }
    }

    /// The objects below a prefix.
    fn objects(&self, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
        let root = self.server.bucket_folder().join(prefix);
        let (mut folders, mut found) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            // What is removed meanwhile is not there.
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&root)?.to_owned());
                }
            }
        }
        Ok(found)
    }
}

/// Ends Carrel and starts it again.
async fn restart(up: &mut Up) -> anyhow::Result<()> {
    let status = up.terminate().await?;
    ensure!(status.success(), "{status}");
    up.again().await
}

fn rewrap(up: &Up) -> anyhow::Result<String> {
    let done = up.command(&["vault", "rewrap"])?.output()?;
    ensure!(done.status.success(), "{done:?}");
    Ok(String::from_utf8(done.stdout)?)
}

#[tokio::test]
async fn a_learner_wakes_from_a_bucket_and_leaves_nothing_there() -> anyhow::Result<()> {
    let test = "a learner in a bucket";
    let Some(cloud) = Cloud::start(test)? else {
        return Ok(());
    };
    let Some(mut up) = Up::start(test, cloud.setup("of/us")).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    up.api.sleep("ada").await?;
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    assert!(cloud.objects("of/us")?.len() > 1);
    let here = fs::read_dir(up.data().join("objects"))?;
    assert_eq!(here.count(), 0, "nothing is kept in a folder besides");

    // A new key in front: both unwrap. Then the old one leaves.
    let kek = up.data().join("kek");
    let old = fs::read_to_string(&kek)?;
    let new = STANDARD.encode(rand::random::<[u8; 32]>());
    fs::write(&kek, format!("{new}\n{old}"))?;
    restart(&mut up).await?;
    let said = rewrap(&up)?;
    assert!(said.starts_with("1 data keys were wrapped"), "{said}");
    fs::write(&kek, new)?;
    restart(&mut up).await?;
    assert_eq!(up.api.reply("ada", "count").await?, "3");

    let erased = up
        .command(&["learner", "rm", "ada", "--yes", "--wait"])?
        .output()?;
    assert!(erased.status.success(), "{erased:?}");
    eventually("nothing of ada is left", WITHIN, || async {
        let left = cloud.objects("of/us")?;
        Ok((left == [Path::new(MARK)]).then_some(()))
    })
    .await?;
    let log = up.log()?;
    assert!(!log.contains(SECRET_ACCESS_KEY), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_start_on_another_bucket_is_refused_when_learners_have_snapshots() -> anyhow::Result<()> {
    let test = "another bucket";
    let Some(cloud) = Cloud::start(test)? else {
        return Ok(());
    };
    let Some(mut up) = Up::start(test, cloud.setup("of/us")).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    up.terminate().await?;

    let right = fs::read_to_string(up.config())?;
    fs::write(up.config(), right.replace("of/us", "of/them"))?;
    refused(&mut up, "nothing was ever kept here").await?;
    fs::write(up.config(), right.replace(BUCKET, "no-such-bucket"))?;
    refused(&mut up, "nothing was ever kept here").await?;
    fs::write(up.config(), &right)?;
    let bucket = cloud.server.bucket_folder();
    let away = bucket.with_extension("away");
    fs::rename(&bucket, &away)?;
    fs::create_dir(&bucket)?;
    refused(&mut up, "nothing was ever kept here").await?;
    assert!(cloud.objects("")?.is_empty(), "nothing is written there");
    fs::remove_dir(&bucket)?;
    fs::rename(&away, &bucket)?;

    up.again().await?;
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    Ok(())
}

/// A cluster's way in: no keys in any file, but a token that is changed for lent keys; and Amazon's way of naming a bucket.
#[tokio::test]
async fn a_workload_is_known_by_its_token_and_finds_its_bucket_by_the_hosts_name()
-> anyhow::Result<()> {
    let test = "a workload's identity";
    let folder = TempDir::with_prefix("carrel-tests-sts-")?;
    let authority = Authority::new("cloud");
    let certificate = authority.certify(&["snapshots.localhost", "127.0.0.1"]);
    let trusted = folder.path().join("ca.crt");
    fs::write(&trusted, &authority.pem)?;
    let like_amazon = s3::Setup {
        certificate: Some(certificate.clone()),
        region: Some("eu-north-1"),
        domain: Some("localhost"),
    };
    let Some(cloud) = Cloud::start_as(test, &like_amazon)? else {
        return Ok(());
    };
    let sts = Sts::start(&certificate, "first-of-this-workload")?;
    let token = folder.path().join("token");
    fs::write(&token, "first-of-this-workload")?;
    let mut setup = cloud.setup("of/us");
    setup.settings = Some(json!({"objects": {
        "url": format!("s3://{BUCKET}/of/us"),
        "endpoint": format!("https://localhost:{}", cloud.server.port()),
        "region": "eu-north-1",
        "caFile": trusted,
    }}));
    setup.first = Some(format!(
        r#"echo "127.0.0.1 localhost {BUCKET}.localhost" > "$DATA/hosts"
mount --bind "$DATA/hosts" /etc/hosts
export AWS_ROLE_ARN=arn:aws:iam::123456789012:role/carrel AWS_ENDPOINT_URL_STS={}
export AWS_WEB_IDENTITY_TOKEN_FILE='{}'"#,
        sts.endpoint(),
        token.display(),
    ));
    let Some(mut up) = Up::start(test, setup).await? else {
        return Ok(());
    };
    assert_eq!(up.api.reply("ada", "count").await?, "1");
    up.api.sleep("ada").await?;
    // The file's token is another from time to time; the old one is good for nothing then.
    sts.expect("second-of-this-workload");
    fs::write(&token, "second-of-this-workload")?;
    assert_eq!(up.api.reply("ada", "count").await?, "2");
    assert!(cloud.objects("of/us")?.len() > 1);

    up.terminate().await?;
    sts.expect("third-of-this-workload");
    refused(
        &mut up,
        "storage of snapshots failed while opening the bucket",
    )
    .await?;
    let log = up.log()?;
    for secret in ["of-this-workload", SECRET_ACCESS_KEY] {
        assert!(!log.contains(secret), "{log}");
    }
    Ok(())
}

/// A start that must fail, and say this.
async fn refused(up: &mut Up, words: &str) -> anyhow::Result<()> {
    let before = up.log()?.len();
    ensure!(up.again().await.is_err(), "it started");
    let log = up.log()?;
    let said = log.get(before..).context("a log only grows")?;
    ensure!(said.contains(words), "'{words}' is not said: {said}");
    Ok(())
}
