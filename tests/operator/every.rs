//! Every command that other tests do not run, against one server: what it prints where, and its exit status.

use std::path::Path;

use anyhow::Context as _;
use carrel_tests::{Setup, Up, agent};
use serde_json::{Value, json};

use crate::{Said, carrel, said};

/// A command, its exit status, and what stands in its output: in the data, or after `talk: ` in the talk.
type Row<'a> = (&'a str, i32, &'a [&'a str]);

/// Runs each; none of them colours what goes to no terminal.
fn runs(up: &Up, rows: &[Row<'_>]) -> anyhow::Result<()> {
    for (words, status, wanted) in rows {
        let words: Vec<_> = words.split(' ').collect();
        let said = carrel(up, &words, "")?;
        assert_eq!(said.status, Some(*status), "{words:?}: {}", said.stderr);
        for wanted in *wanted {
            let found = match wanted.strip_prefix("talk: ") {
                Some(talk) => said.stderr.contains(talk),
                None => said.stdout.contains(wanted),
            };
            assert!(found, "{words:?} without '{wanted}': {said:?}");
        }
        assert!(
            !said.stdout.contains('\x1b') && !said.stderr.contains('\x1b'),
            "{words:?} in colour: {said:?}"
        );
    }
    Ok(())
}

/// The data of a command that succeeds.
fn data(up: &Up, words: &str) -> anyhow::Result<String> {
    let words: Vec<_> = words.split(' ').collect();
    let said = carrel(up, &words, "")?;
    assert_eq!(said.status, Some(0), "{words:?}: {}", said.stderr);
    Ok(said.stdout)
}

fn json_of(up: &Up, words: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&data(
        up,
        &format!("{words} -o json"),
    )?)?)
}

/// Learners that are awake, that never get ready, that may spend next to nothing; and `me`.
async fn server(prices: &Path) -> anyhow::Result<Option<Up>> {
    let stuck = json!({"agent": {"adapter": "Http", "command": ["/bin/sleep", "1000"]}});
    let poor = json!({
        "agent": {},
        "budget": {"perDayUsd": "0.000001", "onExhausted": "Refuse"},
        "models": {"routes": {"default": "priced/parrot"}, "allow": []},
    });
    let price = json!({"input": 10, "output": 1000});
    let table = json!({"version": "test", "source": "test", "models": {"priced/parrot": price}});
    std::fs::write(prices, table.to_string())?;
    let setup = Setup {
        documents: vec![
            agent::http("counting", &json!({})),
            agent::http("stuck", &stuck),
            agent::http("poor", &poor),
            agent::learner("ada", "counting"),
            agent::learner("eve", "stuck"),
            agent::learner("pia", "poor"),
        ],
        settings: Some(json!({
            // Nobody is there: whoever may not spend is refused before.
            "providers": [{"name": "priced", "dialect": "Anthropic", "baseUrl": "http://127.0.0.1:9", "keys": []}],
            "prices": {"overlayFile": prices},
        })),
        keeps_log: true,
        ..Setup::default()
    };
    Up::start("every command", setup).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_prints_what_it_promises_and_ends_with_its_status() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(up) = server(&folder.path().join("prices")).await? else {
        return Ok(());
    };
    for n in 1..=2 {
        assert_eq!(up.api.reply("ada", "count").await?, n.to_string());
    }
    up.api.reply("me", "Hello!").await?;
    looks(&up)?;
    classes(&up)?;
    learners(&up).await?;
    finds_the_server(&up, folder.path())?;
    snapshots(&up).await?;
    usage(&up)?;
    statuses(&up)
}

/// Commands that look, and those that need no server.
fn looks(up: &Up) -> anyhow::Result<()> {
    let version = concat!("carrel ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(data(up, "version")?, version);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        runs(
            up,
            &[(&format!("completion {shell}"), 0, &["carrel", "snapshot"])],
        )?;
    }
    let healthy = data(up, "doctor")?;
    for (name, what) in [
        ("data folder", "free)"),
        ("configuration", "can be read"),
        ("isolation", "oci"),
        ("providers", "priced, demo"),
        ("server", "answers and is ready"),
        ("learners", "4 looked at, none has failed"),
        ("router", "demo/tutor"),
    ] {
        let line = healthy
            .lines()
            .find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(name)));
        let line = line.with_context(|| format!("no word of '{name}': {healthy}"))?;
        assert!(!line.starts_with("FAIL") && line.contains(what), "{line}");
    }

    let config = up.config().display().to_string();
    let shown = up
        .command(&["config", "show", "--config", &config])?
        .env("CARREL_FLEET_MAX_LIVE", "7")
        .output()?;
    let Said { stdout, stderr, .. } = said(shown)?;
    assert!(
        stdout.contains("maxLive: 7\n") && stdout.contains("messagesPerMinute: 1000000\n"),
        "{stdout}"
    );
    for origin in [
        "# fleet.maxLive: from CARREL_FLEET_MAX_LIVE\n".to_owned(),
        format!("# limits.messagesPerMinute: from {config}:1\n"),
    ] {
        assert!(stderr.contains(&origin), "{stderr}");
    }
    assert!(
        !stderr.contains("fleet.startsPerSecond"),
        "a default has no origin: {stderr}"
    );
    Ok(())
}

fn classes(up: &Up) -> anyhow::Result<()> {
    assert_eq!(
        data(up, "class ls -o name")?,
        "counting\ndefault\npoor\nstuck\n"
    );
    runs(
        up,
        &[
            (
                "class ls",
                0,
                &[
                    "NAME",
                    "PER-DAY-USD",
                    "counting  Http",
                    "default   built-in",
                ],
            ),
            ("class ls -o wide", 0, &["IMAGE"]),
            ("class ls -o yaml", 0, &["- name: counting\n  spec:\n"]),
            ("class show none-such", 4, &["talk: there is no such class"]),
            ("class show poor -o name", 0, &["poor\n"]),
        ],
    )?;
    assert!(!data(up, "class ls")?.contains("IMAGE"));
    let bare = data(up, "class ls --no-headers")?;
    assert!(
        !bare.contains("NAME") && bare.lines().count() == 4,
        "{bare}"
    );
    let listed = json_of(up, "class ls")?;
    assert_eq!(listed[0]["spec"]["agent"]["adapter"], "Http");

    // What is shown can be applied.
    let shown = data(up, "class show counting")?;
    assert!(
        shown.starts_with("apiVersion: carrel.dev/v1alpha1\n"),
        "{shown}"
    );
    let applied = carrel(up, &["class", "apply", "-f", "-"], &shown)?;
    assert_eq!(applied.status, Some(0), "{}", applied.stderr);
    assert_eq!(data(up, "class show counting")?, shown);
    Ok(())
}

async fn learners(up: &Up) -> anyhow::Result<()> {
    assert_eq!(data(up, "learner ls -o name")?, "ada\neve\nme\npia\n");
    assert_eq!(data(up, "learner show ada -o name")?, "ada\n");
    assert_eq!(
        json_of(up, "learner show ada")?,
        up.api.learner("ada").await?
    );
    runs(
        up,
        &[
            ("learner ls", 0, &["NAME", "COST-TODAY"]),
            ("learner ls -o yaml", 0, &["- id: ada\n"]),
            ("learner show ada", 0, &["id: ada\n", "class: counting\n"]),
            ("learner show ada -o yaml", 0, &["id: ada\n"]),
            (
                "learner show nobody",
                4,
                &["talk: there is no such learner"],
            ),
            (
                "learner sleep ada --wait",
                0,
                &["talk: learner 'ada': is asleep"],
            ),
        ],
    )?;
    assert_eq!(up.api.learner("ada").await?["state"], "Asleep");
    runs(
        up,
        &[
            (
                "learner wake ada --wait",
                0,
                &["talk: learner 'ada': is awake"],
            ),
            (
                "learner wake ada",
                0,
                &["talk: learner 'ada': will be awake"],
            ),
            ("learner sleep nobody", 4, &[]),
        ],
    )?;
    assert_eq!(up.api.learner("ada").await?["state"], "Ready");

    let url = format!("{}/v1/learners/ada/messages", up.text("gateway_url"));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let status = async |token: &str| -> anyhow::Result<u16> {
        let answer = client.get(&url).bearer_auth(token).send().await?;
        Ok(answer.status().as_u16())
    };
    let plain = data(up, "learner token ada")?;
    let whole = json_of(up, "learner token ada --ttl 3600")?;
    assert!(whole["expires_time"].is_string(), "{whole}");
    let tokens = [plain.trim(), whole["token"].as_str().unwrap_or_default()];
    for token in tokens {
        assert_eq!(status(token).await?, 200);
    }
    let revoked = "talk: learner 'ada': all tokens are revoked";
    runs(up, &[("learner token ada --revoke", 0, &[revoked])])?;
    for token in tokens {
        assert_eq!(status(token).await?, 401);
    }
    Ok(())
}

/// By flags or by variables, from anywhere.
fn finds_the_server(up: &Up, elsewhere: &Path) -> anyhow::Result<()> {
    let (url, file) = (up.text("gateway_url"), up.text("admin_token_file"));
    let learners = "ada\neve\nme\npia\n";
    let ls = |more: &[&str], variables: &[(&str, &str)]| -> anyhow::Result<Said> {
        let words = [&["learner", "ls", "-o", "name"], more].concat();
        let mut command = up.command(&words)?;
        command.env("CARREL_DATA_DIR", elsewhere);
        command.envs(variables.iter().copied());
        said(command.output()?)
    };
    for said in [
        ls(&["--server", url, "--token-file", file], &[])?,
        ls(&[], &[("CARREL_SERVER", url), ("CARREL_TOKEN_FILE", file)])?,
        ls(&["--token-file", file], &[("CARREL_SERVER", url)])?,
        ls(&["--data-dir", &up.data().display().to_string()], &[])?,
        // Flags win.
        ls(
            &["--server", url],
            &[
                ("CARREL_SERVER", "http://127.0.0.1:9"),
                ("CARREL_TOKEN_FILE", file),
            ],
        )?,
    ] {
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (Some(0), learners),
            "{said:?}"
        );
    }
    let token = elsewhere.join("token");
    std::fs::write(&token, data(up, "learner token ada")?)?;
    let token = token.display().to_string();
    let bare = url.trim_start_matches("http://");
    for (more, status, why) in [
        (
            &["--server", url, "--token-file", &token][..],
            5,
            "carrel: ",
        ),
        (
            &["--server", url, "--token-file", "/no/such/file"],
            5,
            "/no/such/file cannot be read",
        ),
        (&["--server", url], 2, "by --token-file"),
        (
            &["--server", bare, "--token-file", file],
            2,
            "as in http://",
        ),
        (
            &["--server", "http://127.0.0.1:9", "--token-file", file],
            1,
            "does not answer",
        ),
        (&[], 1, "no server runs on"),
    ] {
        let said = ls(more, &[])?;
        assert_eq!(said.status, Some(status), "{more:?}: {said:?}");
        assert!(
            said.stdout.is_empty() && said.stderr.contains(why),
            "{said:?}"
        );
    }
    Ok(())
}

async fn snapshots(up: &Up) -> anyhow::Result<()> {
    assert_eq!(up.api.reply("ada", "count").await?, "3");
    let names = data(up, "snapshot ls ada -o name")?;
    let ids: Vec<_> = names.lines().collect();
    let listed = json_of(up, "snapshot ls ada")?;
    let generations: Vec<_> = listed.as_array().context("a list")?.iter().collect();
    assert_eq!(generations.len(), ids.len());
    assert_eq!(listed[0]["snapshot_id"], ids[0], "the newest is the first");
    let (newest, oldest) = (ids[0], ids[ids.len() - 1]);
    assert_ne!(newest, oldest);
    let none = "0".repeat(64);
    runs(
        up,
        &[
            (
                "snapshot ls ada",
                0,
                &["GENERATION", "DAMAGED", newest, oldest],
            ),
            ("snapshot ls ada -o wide", 0, &["TURN"]),
            ("snapshot ls nobody", 4, &[]),
            (
                "snapshot verify ada",
                0,
                &[&format!("talk: snapshot {newest} is intact")],
            ),
            (
                &format!("snapshot verify ada {oldest}"),
                0,
                &[&format!("talk: {oldest} is intact")],
            ),
            (&format!("snapshot verify ada {none}"), 4, &[]),
            (
                "snapshot verify eve",
                4,
                &["talk: learner 'eve' has no snapshot"],
            ),
            (
                &format!("snapshot restore ada {oldest}"),
                2,
                &["talk: --yes"],
            ),
            (&format!("snapshot restore ada {none} --yes"), 4, &[]),
            ("snapshot restore ada nonsense --yes", 2, &[]),
            (
                &format!("snapshot restore ada {oldest} --yes"),
                0,
                &["talk: will go on from"],
            ),
        ],
    )?;
    assert_eq!(
        up.api.reply("ada", "count").await?,
        "2",
        "after the first turn"
    );
    runs(
        up,
        &[("snapshot create ada", 0, &["talk: a snapshot of now"])],
    )?;
    let first = data(up, "snapshot ls ada -o name")?;
    let head = first.lines().next().context("a newest one")?;
    runs(
        up,
        &[
            (&format!("snapshot rm ada {newest}"), 2, &["talk: --yes"]),
            (&format!("snapshot rm ada {head} --yes"), 6, &[]),
            (
                &format!("snapshot rm ada {newest} --yes"),
                0,
                &["talk: is removed"],
            ),
        ],
    )?;
    assert!(!data(up, "snapshot ls ada -o name")?.contains(newest));

    let restic = data(up, "snapshot restic ada")?;
    let value = |name: &str| {
        let line = restic.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.strip_prefix('='))
            .context(name.to_owned())
    };
    let (repository, password) = (value("RESTIC_REPOSITORY")?, value("RESTIC_PASSWORD_FILE")?);
    assert!(Path::new(repository).join("config").is_file(), "{restic}");
    assert!(!std::fs::read(password)?.is_empty(), "{restic}");
    Ok(())
}

fn usage(up: &Up) -> anyhow::Result<()> {
    runs(
        up,
        &[
            ("usage", 0, &["KEY", "COST-USD", "me"]),
            ("usage --by class -o name", 0, &["default\n"]),
            ("usage --by model -o name", 0, &["demo/tutor\n"]),
            ("usage --since 2000-01-01 --until 2000-01-02", 0, &["CALLS"]),
            (
                "usage --since yesterday",
                2,
                &["talk: 'since' and 'until' are days"],
            ),
        ],
    )?;
    let none = data(
        up,
        "usage --since 2000-01-01 --until 2000-01-02 --no-headers",
    )?;
    assert_eq!(none, "");
    let rows = json_of(up, "usage --by day")?;
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert!(rows[0]["calls"].as_u64() > Some(0), "{rows}");
    Ok(())
}

/// The statuses that nothing above has.
fn statuses(up: &Up) -> anyhow::Result<()> {
    runs(
        up,
        &[
            (
                "learner wake eve --wait --timeout 1",
                7,
                &["talk: learner show eve"],
            ),
            ("learner chat pia hello", 8, &["talk: learner logs pia"]),
        ],
    )?;
    let asked = on_a_terminal(up, "learner rm ada", "n\n", &[])?;
    assert_eq!(asked.status, Some(130), "{asked:?}");
    assert!(asked.stdout.contains("Go on? [y/N]") && asked.stdout.contains("nothing was done"));
    runs(up, &[("learner show ada", 0, &[])])?;

    // There colour is in place, unless it is not wanted.
    let coloured = on_a_terminal(up, "learner nonsense", "", &[])?;
    assert!(coloured.stdout.contains('\x1b'), "{coloured:?}");
    let plain = on_a_terminal(up, "learner nonsense", "", &[("NO_COLOR", "1")])?;
    assert!(!plain.stdout.contains('\x1b'), "{plain:?}");
    Ok(())
}

/// Runs a command on a terminal of its own (script(1)): all that is seen there.
fn on_a_terminal(
    up: &Up,
    words: &str,
    typed: &str,
    variables: &[(&str, &str)],
) -> anyhow::Result<Said> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let carrel = carrel_tests::carrel()?.display().to_string();
    let mut script = carrel_tests::variables::unheard(&mut Command::new("script"))
        .args(["--quiet", "--return", "--command"])
        .args([&format!("'{carrel}' {words}"), "/dev/null"])
        .env("CARREL_DATA_DIR", up.data())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting script")?;
    let mut input = script.stdin.take().context("its input is ours")?;
    // One that does not read it ends before it is written.
    let _ = input.write_all(typed.as_bytes());
    drop(input);
    said(script.wait_with_output()?)
}
