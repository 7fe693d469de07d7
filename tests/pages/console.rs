//! The operator's page: every learner, live.

use anyhow::ensure;
use carrel_tests::agent;
use serde_json::json;

use crate::browser::Browser;
use crate::page::Look;
use crate::server::Server;

/// The cells of a learner's row.
fn row(learner: &str) -> String {
    format!(
        "[...document.querySelectorAll('#rows tr')].find((row) => row.querySelector('th').innerText === '{learner}')"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_learners_live_and_puts_them_to_sleep() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("an_operator_sees_learners_live").await? else {
        return Ok(());
    };
    let names = ["noor", "sam", "tomas"];
    let mut documents = vec![agent::http("counting", &json!({}))];
    documents.extend(names.map(|name| agent::learner(name, "counting")));
    let server = Server::start(&documents)?;
    let page = browser
        .page(Look {
            width: 1280,
            ..Look::LIGHT
        })
        .await?;
    page.go(&server.console).await?;
    page.until("document.querySelectorAll('#rows tr').length === 4")
        .await?;
    ensure!(
        page.run("location.hash + location.search").await? == "",
        "the code is in the address"
    );
    let (sam, state) = (row("sam"), |learner: &str| {
        format!("{}.querySelector('.pill').textContent", row(learner))
    });
    ensure!(page.run(&state("sam")).await? == "Asleep");

    let chat = browser.page(Look::LIGHT).await?;
    chat.go(&server.link("sam")?).await?;
    chat.until("document.activeElement.id === 'text'").await?;
    chat.say("slow 200").await?;
    page.until(&format!(
        "{} === 'Busy' && document.getElementById('figure-busy').textContent === '1'",
        state("sam")
    ))
    .await?;
    page.picture("console-light").await?;
    page.until(&format!("{} === 'Ready'", state("sam"))).await?;
    page.until(&format!("{sam}.children[5].textContent !== 'none'"))
        .await?;
    page.run(&format!("{sam}.querySelector('.actions button').click()"))
        .await?;
    page.until(&format!(
        "{} === 'Asleep' && document.getElementById('figure-awake').textContent === '0'",
        state("sam")
    ))
    .await?;

    page.run(&format!("{sam}.querySelector('.name').click()"))
        .await?;
    page.until("document.getElementById('learner-dialog').open && document.querySelectorAll('#snapshots li').length > 0").await?;
    page.picture("console-learner-light").await?;
    page.press("Escape", false).await?;
    page.until("!document.getElementById('learner-dialog').open")
        .await?;

    page.click("#create").await?;
    page.until("document.activeElement.name === 'id'").await?;
    page.say("yara").await?;
    page.until("document.querySelectorAll('#rows tr').length === 5")
        .await?;
    page.until("!document.getElementById('create-dialog').open")
        .await?;
    page.run("document.getElementById('filter').focus()")
        .await?;
    page.write("yar").await?;
    page.until("document.querySelectorAll('#rows tr').length === 1")
        .await?;
    page.run("document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))").await?;
    page.look(Look {
        width: 1280,
        ..Look::DARK
    })
    .await?;
    page.picture("console-dark").await?;
    page.look(Look::PHONE).await?;
    page.fits().await?;
    page.picture("console-phone").await?;
    page.is_clean()?;
    chat.is_clean()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_reads_why_a_learners_last_turn_failed() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("an_operator_reads_why").await? else {
        return Ok(());
    };
    let server = Server::start(&[
        agent::http("counting", &json!({})),
        agent::learner("sam", "counting"),
    ])?;
    let chat = browser.page(Look::LIGHT).await?;
    chat.go(&server.link("sam")?).await?;
    chat.until("document.activeElement.id === 'text'").await?;
    chat.say("exit").await?;
    chat.until("!!document.querySelector('.turn:last-child .failure')")
        .await?;

    let page = browser.page(Look::LIGHT).await?;
    page.go(&server.console).await?;
    let name = format!("{}?.querySelector('.name')", row("sam"));
    page.until(&format!("!!{name}")).await?;
    page.run(&format!("{name}.click()")).await?;
    page.until(
        "/Last turn\\s+failed \\(agent_failed\\): the agent /.test(document.getElementById('learner-facts').innerText)",
    )
    .await?;
    page.picture("console-failure-light").await?;
    page.is_clean()?;
    chat.is_clean()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_opens_to_the_admin_token_only() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("the_console_opens").await? else {
        return Ok(());
    };
    let server = Server::start(&[])?;
    let page = browser.page(Look::LIGHT).await?;
    page.go(&format!("{}/console", server.url())).await?;
    page.until("document.activeElement.id === 'token'").await?;
    page.say("guess").await?;
    page.until(
        "/not the admin token/.test(document.getElementById('sign-in-problem').textContent)",
    )
    .await?;
    page.picture("console-door-light").await?;
    page.run(
        "document.getElementById('token').value = ''; document.getElementById('token').focus()",
    )
    .await?;
    page.say(server.admin_token()?.trim()).await?;
    page.until("document.querySelectorAll('#rows tr').length === 1")
        .await?;
    // The operator's session opens no learner's desk.
    page.go(server.url()).await?;
    page.until("!document.getElementById('door').hidden")
        .await?;
    Ok(())
}
