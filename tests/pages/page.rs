//! One page of a browser: what a person does with it, and what they see.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use carrel_tests::eventually;
use serde_json::{Value, json};

use crate::browser::Connection;

const PATIENCE: Duration = Duration::from_secs(40);

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
    pub(crate) phone: bool,
}

impl Look {
    pub(crate) const LIGHT: Self = Self {
        width: 1100,
        height: 820,
        dark: false,
        phone: false,
    };
    pub(crate) const DARK: Self = Self {
        dark: true,
        ..Self::LIGHT
    };
    pub(crate) const PHONE: Self = Self {
        width: 390,
        height: 780,
        dark: false,
        phone: true,
    };
}

/// A page.
pub(crate) struct Page {
    connection: Arc<Connection>,
    session: String,
}

impl Page {
    pub(crate) async fn open(
        connection: Arc<Connection>,
        session: String,
        look: Look,
    ) -> anyhow::Result<Self> {
        let page = Self {
            connection,
            session,
        };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await?;
        }
        page.look(look).await?;
        Ok(page)
    }

    async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.connection
            .call(method, params, Some(&self.session))
            .await
    }

    /// Looks at it otherwise.
    pub(crate) async fn look(&self, look: Look) -> anyhow::Result<()> {
        let Look {
            width,
            height,
            dark,
            phone,
        } = look;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", size)
            .await?;
        let scheme = if dark { "dark" } else { "light" };
        // What moves is at rest in a picture.
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.call("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    pub(crate) async fn go(&self, address: &str) -> anyhow::Result<()> {
        self.call("Page.navigate", json!({"url": address}))
            .await
            .map(drop)
    }

    pub(crate) async fn reload(&self) -> anyhow::Result<()> {
        self.call("Page.reload", json!({})).await.map(drop)
    }

    /// The value of an expression in the page.
    pub(crate) async fn run(&self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params).await?;
        if let Some(error) = answer.get("exceptionDetails") {
            bail!("{expression}: {error}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// The text of what a selector finds first.
    pub(crate) async fn text(&self, selector: &str) -> anyhow::Result<String> {
        let found = self
            .run(&format!("document.querySelector('{selector}').innerText"))
            .await?;
        Ok(found.as_str().context(selector.to_owned())?.to_owned())
    }

    /// Waits until an expression is true; a page that is just loading is asked again.
    pub(crate) async fn until(&self, expression: &str) -> anyhow::Result<()> {
        let seen = eventually(expression, PATIENCE, || async {
            let value = self.run(expression).await.unwrap_or(Value::Null);
            Ok((value == true).then_some(()))
        })
        .await;
        let Err(error) = seen else { return Ok(()) };
        let shows = self.run("document.body.innerText.slice(-2000)").await;
        Err(error.context(format!(
            "the page shows {shows:?}, and said {:?}",
            self.errors()
        )))
    }

    /// Types into what has the focus.
    pub(crate) async fn write(&self, text: &str) -> anyhow::Result<()> {
        self.call("Input.insertText", json!({"text": text}))
            .await
            .map(drop)
    }

    /// Presses a key; `shift` with it or not.
    pub(crate) async fn press(&self, key: &str, shift: bool) -> anyhow::Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            other => bail!("the key {other} is not known here"),
        };
        let modifiers = if shift { 8 } else { 0 };
        let mut down = json!({
            "type": "keyDown", "key": key, "code": key,
            "windowsVirtualKeyCode": code, "modifiers": modifiers,
        });
        if key == "Enter" {
            down["text"] = json!("\r");
        }
        self.call("Input.dispatchKeyEvent", down.clone()).await?;
        down["type"] = json!("keyUp");
        down["text"] = Value::Null;
        let up = json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).await.map(drop)
    }

    /// Writes a message and sends it by Enter.
    pub(crate) async fn say(&self, text: &str) -> anyhow::Result<()> {
        self.write(text).await?;
        self.press("Enter", false).await
    }

    /// Clicks what a selector finds first.
    pub(crate) async fn click(&self, selector: &str) -> anyhow::Result<()> {
        self.run(&format!("document.querySelector('{selector}').click()"))
            .await
            .map(drop)
    }

    /// Keeps a picture of it, in the target folder.
    pub(crate) async fn picture(&self, name: &str) -> anyhow::Result<()> {
        // What moves has come to rest in two frames.
        let rest =
            "new Promise((rest) => requestAnimationFrame(() => requestAnimationFrame(rest)))";
        self.run(rest).await?;
        let answer = self.call("Page.captureScreenshot", json!({})).await?;
        let data = answer["data"].as_str().context("a picture")?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&folder)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data)?;
        ensure!(bytes.starts_with(b"\x89PNG"), "a picture is a PNG");
        Ok(std::fs::write(folder.join(format!("{name}.png")), bytes)?)
    }

    /// What its console showed in red since it was last asked.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.connection.take_errors(&self.session)
    }

    /// Checks that its console showed nothing in red.
    pub(crate) fn is_clean(&self) -> anyhow::Result<()> {
        let errors = self.errors();
        ensure!(errors.is_empty(), "the console shows {errors:#?}");
        Ok(())
    }

    /// Checks that nothing is wider than the window.
    pub(crate) async fn fits(&self) -> anyhow::Result<()> {
        let over = self
            .run("document.documentElement.scrollWidth - innerWidth")
            .await?;
        ensure!(
            over.as_i64().is_some_and(|over| over <= 0),
            "{over} pixels are beyond the edge"
        );
        Ok(())
    }
}
