//! What `carrel doctor` says of roles that are processes of their own: each that is away or wrong is named, with the next command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;
use carrel_testkit::certificates::Authority;
use carrel_testkit::s3::Fault;
use carrel_tests::Roles;
use serde_json::json;

use crate::{ada, school, school_with};

/// What doctor says as a role of the database, which must be well or not.
fn doctor(roles: &Roles, role: &str, database: &str, is_well: bool) -> anyhow::Result<String> {
    let url = roles.server.url(role, database);
    let output = roles
        .command(&["doctor"])?
        .env("CARREL_STORE_URL", url)
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() == is_well, "{said}{told}");
    Ok(said)
}

/// Each of these lines is said.
fn says(said: &str, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        ensure!(said.contains(line), "'{line}' is not said:\n{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_that_is_away_is_named_with_the_next_command() -> anyhow::Result<()> {
    let Some(mut school) = school("doctor of roles").await? else {
        return Ok(());
    };
    let api = school.roles.api(&school.gateway)?;
    assert_eq!(api.reply("ada", "count").await?, "1");
    let (roles, database) = (&school.roles, school.roles.database.clone());
    let well = doctor(roles, "carrel_migrate", &database, true)?;
    says(
        &well,
        &[
            "ok    database: answers",
            "ok    gateway: the one at http://127.0.0.1:",
            "ok    fleet: is there; oci",
            "ok    router: http://127.0.0.1:",
            "ok    vault: http://127.0.0.1:",
            "ok    snapshots: s3://",
            "ok    keys: signing.pub, gateway.pub, signing.key, gateway.key, kek serve",
            "ok    server: answers and is ready",
            "ok    learners: 1 looked at",
        ],
    )?;
    let as_gateway = doctor(roles, "carrel_gateway", &database, true)?;
    says(&as_gateway, &["note  keys: ", "ok    fleet: "])?;
    let as_vault = doctor(roles, "carrel_vault", &database, true)?;
    says(&as_vault, &["ok    keys: ", "note  fleet: "])?;

    roles.s3.disturb(Some(Fault::NoConditions), 1);
    let said = doctor(roles, "carrel_migrate", &database, true)?;
    says(&said, &["note  snapshots: ", "no conditional writes"])?;
    roles
        .s3
        .disturb(Some(Fault::Answer(403, "InvalidAccessKeyId")), 1);
    let said = doctor(roles, "carrel_migrate", &database, false)?;
    says(&said, &["FAIL  snapshots: ", "refuses our keys"])?;
    roles.s3.disturb(None, 0);

    let kek = roles.data().join("kek");
    let right = fs::read_to_string(&kek)?;
    fs::write(&kek, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")?;
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o600))?;
    let said = doctor(roles, "carrel_vault", &database, false)?;
    says(
        &said,
        &[
            "FAIL  keys: ",
            "is wrapped by a key that is not in the key file",
        ],
    )?;
    fs::write(&kek, right)?;

    school.vault.kill()?;
    school.router.kill()?;
    school.fleet.terminate().await?;
    school.gateway.terminate().await?;
    let said = doctor(roles, "carrel_gateway", &database, false)?;
    says(
        &said,
        &[
            "FAIL  gateway: none says that it is there\n      next: carrel gateway",
            "FAIL  fleet: none says that it is there",
            "next: carrel fleet",
            "FAIL  router: http://127.0.0.1:",
            "next: carrel router",
            "FAIL  vault: http://127.0.0.1:",
            "next: carrel vault",
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_believed_on_the_word_of_whom_the_configuration_names() -> anyhow::Result<()> {
    let authority = Authority::new("the school's");
    let set = |roles: &mut Roles| roles.secure(&authority);
    let Some(school) = school_with("doctor with certificates", set).await? else {
        return Ok(());
    };
    let (roles, database) = (&school.roles, &school.roles.database);
    let well = doctor(roles, "carrel_migrate", database, true)?;
    says(
        &well,
        &[
            "ok    gateway: the one at https://127.0.0.1:",
            "ok    router: https://127.0.0.1:",
            "ok    vault: https://127.0.0.1:",
            "ok    server: answers and is ready",
        ],
    )?;
    let others = Authority::new("another");
    roles.renew(&others.certify_until(2020, &["127.0.0.1"]), &others.pem)?;
    let said = doctor(roles, "carrel_migrate", database, false)?;
    says(
        &said,
        &[
            "FAIL  certificates: tls.certFile: ",
            "its certificate expired at 2020-01-01",
            "FAIL  vault: https://127.0.0.1:",
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_serve_is_named() -> anyhow::Result<()> {
    let Some(roles) = Roles::prepare("doctor of a database", &ada(&json!({})))? else {
        return Ok(());
    };
    let empty = roles.server.database("template1");
    let said = doctor(&roles, "postgres", &empty, false)?;
    says(&said, &["FAIL  database: ", "next: carrel migrate"])?;
    let said = doctor(&roles, "carrel_gateway", "no_such_database", false)?;
    says(
        &said,
        &["FAIL  database: ", "next: psql 'postgres://carrel_gateway@"],
    )?;
    let said = doctor(&roles, "carrel_nobody", &roles.database, false)?;
    says(&said, &["FAIL  database: "])
}
