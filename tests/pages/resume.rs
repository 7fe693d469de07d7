//! A page whose server is killed in the middle of an answer goes on by itself.

use anyhow::ensure;
use carrel_tests::agent;
use serde_json::json;

use crate::browser::Browser;
use crate::page::Look;
use crate::server::Server;

const LAST: &str = "document.querySelector('.turn:last-child .said')?.textContent";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_on_after_its_server_was_killed_and_started_again() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("a_page_goes_on").await? else {
        return Ok(());
    };
    let mut server = Server::start(&[
        agent::http("counting", &json!({})),
        agent::learner("sam", "counting"),
    ])?;
    let page = browser.page(Look::LIGHT).await?;
    page.go(&server.link("sam")?).await?;
    page.until("document.activeElement.id === 'text'").await?;
    page.say("slow 2").await?;
    page.until(&format!(
        "{LAST} === '1 1 2' && document.getElementById('stop').hidden"
    ))
    .await?;
    page.say("slow 150").await?;
    page.until(&format!("/^2 1 2 3/.test({LAST})")).await?;
    server.kill()?;
    page.until("!document.getElementById('line').hidden")
        .await?;
    page.picture("away-light").await?;
    // What is written meanwhile waits, and goes by itself.
    page.say("count").await?;
    page.until("/Waiting for the connection/.test(document.getElementById('log').innerText)")
        .await?;
    server.again()?;
    page.until("document.getElementById('line').hidden").await?;
    let (second, third) = (
        "document.querySelectorAll('.turn')[1].querySelector('.said')",
        "document.querySelectorAll('.turn')[2]?.querySelector('.said')",
    );
    page.until(&format!("/ 149 150$/.test({second}?.textContent)"))
        .await?;
    page.until(&format!("{third}?.textContent === '3'")).await?;
    let said = page.run(&format!("{second}.textContent")).await?;
    let said = said.as_str().unwrap_or_default();
    let expected: Vec<String> = std::iter::once(2)
        .chain(1..=150)
        .map(|n: u32| n.to_string())
        .collect();
    ensure!(
        said == expected.join(" "),
        "each piece is seen once: {said}"
    );
    ensure!(
        page.run("document.querySelectorAll('.turn').length")
            .await?
            == 3,
        "no turn is shown twice"
    );
    page.reload().await?;
    page.until("document.querySelectorAll('.turn').length === 3")
        .await?;
    page.until(&format!("{second}?.textContent === {}", json!(said)))
        .await?;
    // While the server was away the browser itself said so, and nothing else is wrong.
    let strange: Vec<_> = page
        .errors()
        .into_iter()
        .filter(|error| !error.contains("net::ERR_"))
        .collect();
    ensure!(strange.is_empty(), "{strange:#?}");
    Ok(())
}
