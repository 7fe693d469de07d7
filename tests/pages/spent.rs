//! The operator's page: a learner is woken by its button, and what its turn has cost is shown.

use anyhow::ensure;
use carrel_testkit::provider::{Provider, Scene, Used, anthropic_stream};
use carrel_tests::agent;
use serde_json::json;

use crate::browser::Browser;
use crate::page::Look;
use crate::server::Server;

const USED: Used = Used {
    input: 1000,
    output: 500,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_wakes_a_learner_and_sees_what_its_turn_has_cost() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("an_operator_wakes_a_learner").await? else {
        return Ok(());
    };
    let provider =
        Provider::answering(|_| Some(Scene::events(anthropic_stream("Hello!", USED)))).await?;
    let files = tempfile::tempdir()?;
    let prices = files.path().join("prices.json");
    // Nano-USD for a token.
    let price = json!({"input": 1000, "output": 10_000});
    let table = json!({"version": "test", "source": "test", "models": {"priced/parrot": price}});
    std::fs::write(&prices, table.to_string())?;
    let config = json!({
        "providers": [{"name": "priced", "dialect": "Anthropic", "baseUrl": provider.url(), "keys": []}],
        "routes": {"default": [{"model": "priced/parrot"}]},
        "prices": {"overlayFile": prices},
    });
    let server = Server::configured(&config, &[agent::learner("sam", "default")])?;
    let page = browser.page(Look::LIGHT).await?;
    page.go(&server.console).await?;
    let sam = "[...document.querySelectorAll('#rows tr')].find((row) => row.querySelector('th').innerText === 'sam')";
    page.until(&format!("{sam} !== undefined")).await?;
    let (state, cost) = (
        format!("{sam}.querySelector('.pill').textContent"),
        format!("{sam}.children[6].textContent"),
    );
    let button = format!("{sam}.querySelector('.actions button')");
    ensure!(page.run(&state).await? == "Asleep" && page.run(&cost).await? == "$0");
    ensure!(page.run(&format!("{button}.textContent")).await? == "Wake");
    page.run(&format!("{button}.click()")).await?;
    page.until(&format!(
        "{state} === 'Ready' && {button}.textContent === 'Sleep'"
    ))
    .await?;
    ensure!(page.run(&cost).await? == "$0", "nobody has asked anything");

    let chat = browser.page(Look::LIGHT).await?;
    chat.go(&server.link("sam")?).await?;
    chat.until("document.activeElement.id === 'text'").await?;
    chat.say("Hello").await?;
    page.until(&format!("{cost} === '$0.0060'")).await?;
    ensure!(
        page.run("document.getElementById('figure-cost').textContent")
            .await?
            == "$0.0060"
    );
    page.is_clean()?;
    chat.is_clean()
}
