//! A learner's first visit, and the next.

use anyhow::ensure;
use carrel_tests::{agent, eventually};
use serde_json::json;

use crate::browser::Browser;
use crate::page::{Look, Page};
use crate::server::Server;

/// Writes down how long the answer was each time that it grew.
const WATCH: &str = "window.lengths = []; new MutationObserver(() => {
    const said = document.querySelectorAll('.turn:last-child .said');
    const length = [...said].map((said) => said.textContent).join('').length;
    if (length && lengths.at(-1) !== length) lengths.push(length);
}).observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true, attributes: true})";

/// The last turn has its answer, and nothing runs.
const ANSWERED: &str = "(() => { const turn = document.querySelector('.turn:last-child'); \
    return !!turn?.querySelector('.said')?.textContent && document.getElementById('stop').hidden && !turn.querySelector('.status:not([hidden])'); })()";

async fn ask(page: &Page, text: &str) -> anyhow::Result<String> {
    let before = page
        .run("document.querySelectorAll('.turn').length")
        .await?;
    page.say(text).await?;
    page.until(&format!(
        "document.querySelectorAll('.turn').length === {before} + 1"
    ))
    .await?;
    page.until(ANSWERED).await?;
    page.text(".turn:last-child .tutor").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_signs_in_talks_and_finds_everything_again() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("a_learner_signs_in").await? else {
        return Ok(());
    };
    let server = Server::start(&[])?;
    let page = browser.page(Look::LIGHT).await?;
    page.go(&server.chat).await?;
    page.until("!document.getElementById('greeting').hidden")
        .await?;
    ensure!(
        page.run("location.hash + location.search").await? == "",
        "the code is in the address"
    );
    ensure!(
        page.run("document.cookie").await? == "",
        "a script reads the session"
    );
    page.until("document.activeElement.id === 'text'").await?;
    page.fits().await?;
    page.picture("greeting-light").await?;

    page.run(WATCH).await?;
    // A new line is no end of a message.
    page.write("Hello! My name is Ada,").await?;
    page.press("Enter", true).await?;
    ensure!(
        page.run("document.querySelectorAll('.turn').length")
            .await?
            == 0,
        "it was sent"
    );
    let first = ask(&page, "and I like chess.").await?;
    ensure!(!first.is_empty());
    ensure!(
        page.run("document.querySelector('.turn:last-child .text').innerText")
            .await?
            == "Hello! My name is Ada,\nand I like chess."
    );
    ask(&page, "Remember that my test is on Friday").await?;
    let question = ask(&page, "Quiz me on arithmetic").await?;
    let solve = format!(
        "(([, a, sign, b]) => String({{'+': +a + +b, '−': a - b, '-': a - b, '×': a * b, '÷': a / b}}[sign]))\
        (/(\\d+) (.) (\\d+)\\?/.exec({}))",
        json!(question)
    );
    let answer = page.run(&solve).await?;
    let praise = ask(&page, answer.as_str().unwrap_or_default()).await?;
    ensure!(!praise.is_empty());
    let lengths = page.run("lengths.length").await?;
    ensure!(
        lengths.as_u64().is_some_and(|lengths| lengths > 1),
        "the answer streams: {lengths}"
    );
    hears(&page).await?;
    page.picture("chat-light").await?;
    page.look(Look::DARK).await?;
    page.picture("chat-dark").await?;

    let words = "[...document.querySelectorAll('#log .text, #log .said, #log .tool')].map((e) => [e.className, e.innerText])";
    let told = page.run(words).await?;
    ensure!(
        page.run("document.querySelectorAll('#log .tool.done').length")
            .await?
            .as_u64()
            .is_some_and(|tools| tools > 0),
        "the notes that the tutor took are shown: {told}"
    );
    page.reload().await?;
    page.until("document.querySelectorAll('.turn').length === 4")
        .await?;
    page.until(ANSWERED).await?;
    let kept = page.run(words).await?;
    ensure!(kept == told, "the history is {kept}, and {told} was seen");
    page.look(Look::PHONE).await?;
    page.fits().await?;
    page.until("(() => { const text = document.getElementById('text').getBoundingClientRect(); return text.bottom <= innerHeight && text.width > 150; })()").await?;
    page.picture("chat-phone").await?;
    page.is_clean()?;

    // A link opens once.
    let other = browser.page(Look::LIGHT).await?;
    other.go(&server.chat).await?;
    other
        .until("!document.getElementById('door').hidden && document.getElementById('desk').hidden")
        .await?;
    ensure!(other.text("#door-title").await?.contains("used"));
    other.picture("door-light").await?;
    Ok(())
}

/// What a screen reader is given: a log that says nothing by itself, and finished sentences in a polite region.
async fn hears(page: &Page) -> anyhow::Result<()> {
    let log = "(() => { const log = document.querySelector('[role=log]'); return log.id === 'log' && log.ariaLive === 'off' && !!log.ariaLabel; })()";
    ensure!(page.run(log).await? == true, "the log");
    let polite = "document.getElementById('announcements').ariaLive === 'polite'";
    ensure!(page.run(polite).await? == true, "the polite region");
    let said = page
        .run("[...document.querySelectorAll('#announcements p')].map((p) => p.textContent)")
        .await?;
    let said: Vec<String> = serde_json::from_value(said)?;
    ensure!(!said.is_empty(), "nothing is announced");
    for sentence in &said {
        let ends = sentence.ends_with(['.', '!', '?', '…', ':', ')']);
        ensure!(ends, "'{sentence}' is no finished sentence: {said:?}");
    }
    let named = "[...document.querySelectorAll('button, input:not([hidden]), textarea')].every((e) => e.hidden || e.closest('[hidden]') || e.ariaLabel || e.textContent.trim() || e.labels?.length)";
    ensure!(
        page.run(named).await? == true,
        "everything that is pressed has a name"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_works_with_the_keyboard_alone_and_stops_an_answer() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("a_learner_works_with_the_keyboard").await? else {
        return Ok(());
    };
    let server = Server::start(&[
        agent::http("counting", &json!({})),
        agent::learner("sam", "counting"),
    ])?;
    let page = browser.page(Look::DARK).await?;
    page.go(&server.link("sam")?).await?;
    page.until("document.activeElement.id === 'text'").await?;
    page.say("slow 2000").await?;
    page.until("/ 3 4 5/.test(document.querySelector('.turn:last-child .said')?.textContent)")
        .await?;
    ensure!(
        page.run("document.getElementById('stop').hidden").await? == false,
        "an answer can be stopped"
    );
    page.picture("running-dark").await?;
    page.press("Escape", false).await?;
    page.until("/Stopped\\./.test(document.querySelector('.turn:last-child .note')?.textContent)")
        .await?;
    page.until("document.getElementById('stop').hidden").await?;
    ensure!(
        page.text(".turn:last-child .said")
            .await?
            .ends_with("stopped"),
        "what was said is kept"
    );
    // The next is sent by Tab to the button, whose focus is seen.
    page.write("count").await?;
    let reached = eventually(
        "Tab reaches the button",
        std::time::Duration::from_secs(5),
        || async {
            page.press("Tab", false).await?;
            Ok((page.run("document.activeElement.id").await? == "send").then_some(()))
        },
    );
    reached.await?;
    let ring = page
        .run("getComputedStyle(document.activeElement).outlineStyle")
        .await?;
    ensure!(ring == "solid", "the focus is seen: {ring}");
    page.press("Enter", false).await?;
    page.until("document.querySelectorAll('.turn').length === 2")
        .await?;
    page.until("document.querySelector('.turn:last-child .said')?.textContent === '2'")
        .await?;
    // An answer that fails says so and offers to be tried again; nothing is lost by it.
    page.run("document.getElementById('text').focus()").await?;
    page.say("exit").await?;
    page.until("!!document.querySelector('.turn:last-child .failure button')")
        .await?;
    page.picture("failed-dark").await?;
    page.is_clean()
}
