//! What a learner is told that has to be woken first.

use anyhow::ensure;
use carrel_tests::agent;
use serde_json::json;

use crate::browser::Browser;
use crate::page::Look;
use crate::server::Server;

const LINE: &str = "document.querySelector('.turn:last-child .status:not([hidden])')?.textContent";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_sleeps_is_told_what_its_message_waits_for() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("a_learner_that_sleeps_is_told").await? else {
        return Ok(());
    };
    // One place, taken by a learner who works: the other stays asleep for as long as this test wants.
    let server = Server::configured(
        &json!({"fleet": {"maxLive": 1}}),
        &[
            agent::http("counting", &json!({})),
            agent::learner("sam", "counting"),
            agent::learner("tomas", "counting"),
        ],
    )?;
    let sam = browser.page(Look::LIGHT).await?;
    sam.go(&server.link("sam")?).await?;
    sam.until("document.activeElement.id === 'text'").await?;
    sam.say("slow 100000").await?;
    sam.until("/ 1 2 3/.test(document.querySelector('.said')?.textContent)")
        .await?;

    let tomas = browser.page(Look::PHONE).await?;
    tomas.go(&server.link("tomas")?).await?;
    tomas.until("document.activeElement.id === 'text'").await?;
    // By a button: nothing is typed, so nothing woke it before.
    tomas.click(".openings button").await?;
    // What was said stays in the region that screen readers read; the line itself says after a while why it takes long.
    tomas
        .until("[...document.querySelectorAll('#announcements p')].some((p) => p.textContent === 'Fetching your notes…')")
        .await?;
    let line = tomas.run(LINE).await?;
    ensure!(
        line == "Fetching your notes…" || line == "waits for a place",
        "the line is shown for as long as it waits: {line}"
    );
    tomas.picture("waking-phone").await?;

    sam.press("Escape", false).await?;
    sam.until("document.getElementById('stop').hidden").await?;
    tomas
        .until("document.querySelector('.turn:last-child .said')?.textContent === '1'")
        .await?;
    tomas
        .until(&format!(
            "document.getElementById('stop').hidden && !{LINE}"
        ))
        .await?;
    sam.is_clean()?;
    tomas.is_clean()
}
