//! `carrel model`: what the router offers, and whether it answers. The router takes the admin token as a key of its own.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::ModelCommand;
use crate::client::Client;
use crate::output::{self, Rows};

#[derive(Debug, Serialize, Deserialize)]
struct Model {
    id: String,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

pub(super) async fn run(command: ModelCommand) -> anyhow::Result<()> {
    match command {
        ModelCommand::Ls { client } => {
            let router = Client::find(&client).await?.of_router().await?;
            let list: List = router.get("/v1/models").await?;
            let rows = Rows {
                items: &list.data,
                headers: &["MODEL"],
                plain: 1,
                cells: |model: &Model, _| vec![model.id.clone()],
                name: |model| model.id.clone(),
            };
            rows.print(&client)
        }
        ModelCommand::Test { model, client } => {
            let router = Client::find(&client).await?.of_router().await?;
            let body = json!({
                "model": model,
                "max_tokens": 32,
                "messages": [{"role": "user", "content": "Say one word."}],
            });
            let began = std::time::Instant::now();
            let request = router.request(Method::POST, "/v1/messages").json(&body);
            let answer: Value = router.answer(request).await?.json().await?;
            let text = answer
                .pointer("/content/0/text")
                .and_then(Value::as_str)
                .unwrap_or("");
            output::talk(&format!(
                "{model} answered in {} ms:",
                began.elapsed().as_millis()
            ));
            output::line(text)
        }
    }
}
