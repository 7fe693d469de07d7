//! What an agent leaves in its workspace: links lead nowhere else, what is no file is not kept, any name comes back.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use carrel_tests::{Event, Setup, Up, agent, eventually};

use serde_json::json;

use crate::raw::Raw;
use crate::shell::up;

/// Makes what no snapshot may follow or keep.
const MAKE: &str = r#"
ln -s /etc/passwd passwd; ln -s /proc/1/environ environ; ln -s / root; ln -s loop loop
ln -s ../../../../../../../../etc/shadow up; ln -s "$(printf 'new\nline')" odd
mkfifo pipe; perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("socket")) or die'
mknod null c 1 3; mknod disk b 254 0; ln /etc/ssl/openssl.cnf hard
echo own > file; ln file twin; chmod 4777 file
ls -l --time-style=+ | sed 's/  */ /g' | cut -d' ' -f1,6-
"#;

#[tokio::test]
async fn links_and_special_files_lead_nowhere_and_stay_behind() -> anyhow::Result<()> {
    let Some(up) = up("links_and_special_files", &["eve"]).await? else {
        return Ok(());
    };
    let made = up.api.reply("eve", MAKE).await?;
    ensure!(
        made.contains("prw") && made.contains("srw"),
        "pipe and socket are made: {made}"
    );
    for never in ["null", "disk", "hard"] {
        ensure!(
            !made.contains(never),
            "no device and no link to the host's file: {made}"
        );
    }
    up.api.sleep("eve").await?;
    let look = "ls -A | sort | tr '\\n' ' '; echo; readlink passwd environ root loop up; readlink odd; \
        stat -c %a file; cat file twin";
    let said = up.api.reply("eve", look).await?;
    let expected = ".home environ file loop odd passwd root twin up \n\
        /etc/passwd\n/proc/1/environ\n/\nloop\n../../../../../../../../etc/shadow\nnew\nline\n777\nown\nown\n";
    ensure!(said == expected, "{said}");
    Ok(())
}

#[tokio::test]
async fn names_of_any_bytes_come_back_as_they_were() -> anyhow::Result<()> {
    let Some(up) = up("names_of_any_bytes", &["eve"]).await? else {
        return Ok(());
    };
    let make = r#"perl -e '
        my @names = ("new\nline", "tab\t", "\xff\xfe", "-rf", "--", " ", "\\", "\"", "\x27", "a\x01b\x7f", "\xc3\xbc", "u\xcc\x88", "*", "~", "%2e%2e", "x" x 255);
        mkdir "$_.d" for @names[0 .. 3];
        for my $name (@names, map { "$_.d/$_" } @names[0 .. 3]) { open(my $f, ">", "./$name") or die "$name: $!"; print $f "<$name>" }
    '"#;
    let list = "find . -path ./.home -prune -o -print0 | sort -z | od -An -tx1 | md5sum; \
        find . -path ./.home -prune -o -type f -print0 | sort -z | xargs -0 cat | md5sum; find . -print0 | tr -cd '\\0' | wc -c";
    let before = up.api.reply("eve", &format!("{make}\n{list}")).await?;
    up.api.sleep("eve").await?;
    ensure!(up.api.reply("eve", list).await? == before, "{before}");
    ensure!(before.ends_with("\n26\n"), "all were made: {before}");
    Ok(())
}

#[tokio::test]
async fn a_file_of_a_reply_is_a_plain_file_of_the_workspace_or_the_turn_fails() -> anyhow::Result<()>
{
    let documents = vec![
        agent::http("http", &json!({})),
        agent::learner("eve", "http"),
    ];
    let setup = Setup {
        documents,
        ..Setup::default()
    };
    let name = "a_file_of_a_reply";
    let Some(up) = Up::start(name, setup).await? else {
        return Ok(());
    };
    let events = up.api.ask("eve", "file note the learner's own").await?;
    let done = events.last().context("an outcome")?;
    ensure!(done.data["reply"]["files"][0]["name"] == "note", "{done:?}");
    let path = format!("/v1/learners/eve/turns/{}/files/0", done.text("turn_id"));
    let answer = Raw::new(up.text("gateway_url"), up.api.token())
        .ask(&format!("GET {path}"))
        .await?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.body == b"the learner's own", "{answer:?}");
    for link in [
        "/etc/passwd",
        "/proc/1/environ",
        "n",
        "../workspace/n",
        "/dev/zero",
    ] {
        let error = up.api.failure("eve", &format!("link {link}")).await?;
        refused(&error, link)?;
    }
    for path in [
        "/etc/passwd",
        "../../etc/passwd",
        "/dev/zero",
        ".",
        "missing",
        "/proc/self/fd/0",
    ] {
        let error = up.api.failure("eve", &format!("name {path}")).await?;
        refused(&error, path)?;
    }
    ensure!(
        up.api.reply("eve", "count").await? == "2",
        "what failed has changed nothing"
    );
    Ok(())
}

fn refused(error: &Event, what: &str) -> anyhow::Result<()> {
    ensure!(error.text("code") == "agent_failed", "{what}: {error:?}");
    ensure!(
        !error.data.to_string().contains("root:"),
        "{what}: {error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_attachment_is_written_into_the_inbox_and_over_no_link() -> anyhow::Result<()> {
    let Some(up) = up("an_attachment", &["eve"]).await? else {
        return Ok(());
    };
    let data = base64::engine::general_purpose::STANDARD.encode("attached");
    let file = json!({"name": "..\u{2215}x;$(id)", "media_type": "text/plain", "data": data});
    let turn = up
        .api
        .post_with("eve", "cat \"$CARREL_INBOX\"/*", vec![file.clone()])
        .await?
        .turn;
    ensure!(reply(&up, &turn).await? == "attached");
    up.api.reply("eve", "rm -r inbox; ln -s /tmp inbox").await?;
    let turn = up.api.post_with("eve", "ls /tmp", vec![file]).await?.turn;
    let ended = ended(&up, &turn).await?;
    ensure!(
        ended["state"] == "failed" && ended["error"]["code"] == "agent_failed",
        "{ended}"
    );
    Ok(())
}

async fn ended(up: &Up, turn: &str) -> anyhow::Result<serde_json::Value> {
    eventually("the turn ends", Duration::from_secs(30), || async {
        let turn = up.api.turn("eve", turn).await?;
        let is_ended = turn["state"] != "queued" && turn["state"] != "running";
        Ok(is_ended.then_some(turn))
    })
    .await
}

async fn reply(up: &Up, turn: &str) -> anyhow::Result<String> {
    let turn = ended(up, turn).await?;
    turn["reply"]["text"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("{turn}"))
}
