//! The pages run their own scripts and talk to their own server, whatever is put into them.

use anyhow::ensure;

use crate::browser::Browser;
use crate::page::Look;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_from_elsewhere_runs_in_the_pages() -> anyhow::Result<()> {
    let Some(browser) = Browser::start("nothing_from_elsewhere").await? else {
        return Ok(());
    };
    let server = Server::start(&[])?;
    let page = browser.page(Look::LIGHT).await?;
    page.go(&server.chat).await?;
    page.until("document.activeElement.id === 'text'").await?;
    // What a learner, or a model, writes is text.
    page.say("<img src=x onerror='window.ran=1'><script>window.ran=1</script> [a](javascript:window.ran=1)").await?;
    page.until("document.querySelectorAll('.turn').length === 1 && document.getElementById('stop').hidden && !!document.querySelector('.said')?.textContent").await?;
    ensure!(
        page.run("document.querySelectorAll('#log img, #log script, #log [onerror]').length")
            .await?
            == 0
    );
    page.is_clean()?;

    page.run("window.refused = []; addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective))").await?;
    page.run("(() => {
        const add = (name, values) => document.body.append(Object.assign(document.createElement(name), values));
        add('script', {textContent: 'window.ran = 1'});
        add('script', {src: 'data:text/javascript,window.ran=1'});
        add('style', {textContent: 'body { display: none }'});
        add('iframe', {src: '/console'});
        add('img', {src: 'http://127.0.0.1:9/x.png'});
        document.body.setAttribute('onclick', 'window.ran = 1');
        document.body.click();
        fetch('http://127.0.0.1:9/').catch(() => {});
    })()").await?;
    for directive in [
        "script-src-elem",
        "script-src-attr",
        "style-src-elem",
        "frame-src",
        "img-src",
        "connect-src",
    ] {
        page.until(&format!("refused.includes('{directive}')"))
            .await?;
    }
    ensure!(
        page.run("window.ran === undefined").await? == true,
        "a script from elsewhere ran"
    );
    ensure!(page.run("getComputedStyle(document.body).display").await? != "none");
    Ok(())
}
